import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zoo
from safetensors.torch import load_file, save_file

import wavecomp as wc
from wavecomp.files import CodesFile, CodesWriter, fingerprint, load_codes, read_checkpoint, save_codes
from wavecomp.files.output import write_whole
from wavecomp.pace import NEVER


def save(folder, state, model="wavecomp.DWT1d"):
    config = {
        "model": {
            "init_args": {
                "model": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
            }
        }
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({"state_dict": state}, folder / "last.ckpt")


def test_load_rebuilds_from_the_config(tmp_path):
    linear = torch.nn.Linear(2, 3)
    save(
        tmp_path, {f"model.{name}": value for name, value in linear.state_dict().items()} | {"metrics.x": torch.ones(1)}
    )
    loaded = wc.load(tmp_path)
    assert torch.equal(loaded.weight, linear.weight) and not loaded.training


def test_a_pickle_is_never_opened(tmp_path):
    class Harm:
        def __reduce__(self):
            return print, ("harm",)

    torch.save({"state_dict": {"x": Harm()}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="damaged or no checkpoint of tensors"):
        read_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match="damaged or no checkpoint of tensors"):
        read_checkpoint(tmp_path / "raw.ckpt")


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="it holds neither best.ckpt nor last.ckpt, nor model.safetensors of"):
        wc.load(tmp_path)
    for state, message in (
        ({"weight": torch.zeros(2, 2)}, "Missing key bias; 2 keys do not fit"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "x": torch.zeros(1)}, "Unexpected key x"),
        (
            {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)},
            r"Key weight has shape \(2, 2\), the model's has \(3, 2\)",
        ),
    ):
        save(tmp_path, {f"model.{name}": value for name, value in state.items()})
        with pytest.raises(ValueError, match=f"does not fit the model in .*config.yaml: {message}$"):
            wc.load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: 3")
    with pytest.raises(ValueError, match="has no entry model.init_args.model"):
        wc.load(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "model: {init_args: {model: {class_path: os.system, init_args: {command: ls}}}}"
    )
    with pytest.raises(ValueError, match="does not describe a model"):
        wc.load(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="config .*config.yaml does not exist"):
        wc.load(tmp_path)
    torch.save({"weights": 1}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="holds no state_dict"):
        wc.load(tmp_path)


def test_zoo_models_survive_the_state_dict(tmp_path):
    one, other = zoo.perturb(zoo.language_model()), zoo.language_model()
    other.load_state_dict(one.state_dict())
    tokens = torch.randint(256, (1, 40))
    assert torch.equal(one(tokens), other(tokens))


def text_with_quiet_places(length=200):
    tokens = torch.randint(256, (1, length))
    return torch.where(torch.arange(length) // 16 % 3 == 1, 7, tokens)


MODELS = {
    "fixed": lambda: zoo.language_model(),
    "adaptive": lambda: zoo.language_model(zoo.leaves()),
    "two-stages": lambda: zoo.language_model(second=8),
    "double": lambda: zoo.language_model().double(),
    "half": lambda: zoo.language_model().bfloat16(),
    "none": lambda: zoo.language_model(wc.NoCodes()),
}


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_codes_come_back_as_they_were(name, tmp_path):
    model = zoo.perturb(MODELS[name]()).eval()
    codes = model.encode(text_with_quiet_places())
    save_codes(tmp_path / "codes", codes, model)
    loaded = load_codes(tmp_path / "codes", model)
    held = codes.mask[0]
    assert loaded.mask.all() and loaded.mask.shape == (1, int(held.sum()))
    for field in ("values", *wc.Codes.per_slot):
        mine, theirs = getattr(loaded, field), getattr(codes, field)[:, held]
        assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype, field
    assert loaded.tokens.tolist() == [200] and loaded.ratio == codes.ratio
    assert (tmp_path / "codes").stat().st_size < 1500 + int(held.sum()) * (16 * codes.values.element_size() + 48)
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]


@pytest.mark.parametrize("name", ["adaptive", "two-stages"])
def test_a_model_answers_from_saved_codes_without_the_text(name, tmp_path):
    model = zoo.perturb(MODELS[name]()).eval()
    text = text_with_quiet_places(300)
    encoder = wc.StreamingEncoder(model)
    with CodesWriter(tmp_path / "codes", model) as writer:
        for piece in text.split(70, dim=1):
            writer.add(encoder.feed(piece))
    assert writer.tokens == 288 and writer.codes == load_file(tmp_path / "codes")["end"].shape[0]
    codes = wc.load_codes(tmp_path / "codes", model=model)
    assert int(codes.tokens) == 288
    start, reach = 250, model.decoder.reach
    answer = model(text[:, start:], codes=codes, start=start)
    torch.testing.assert_close(answer[:, reach:], model(text)[:, start + reach :], rtol=0, atol=1e-5)
    assert (answer - model(text[:, start:], codes="hidden"))[:, reach:].abs().max() > 1e-3


def saved(folder, model=None):
    torch.manual_seed(0)
    model = model or zoo.language_model()
    path = folder / "codes.safetensors"
    save_codes(path, model.encode(torch.randint(256, (1, 40))), model)
    return path, model


def test_codes_of_another_model_are_refused_by_name_and_hash(tmp_path):
    path, model = saved(tmp_path)
    load_codes(path)
    with pytest.raises(ValueError, match=r"made by a wavecomp\.networks\..*ChunkReduceLM, the model is a torch\.nn"):
        load_codes(path, torch.nn.Linear(2, 2))
    mine = fingerprint(model)
    with torch.no_grad():
        next(model.head.parameters())[0, 0] += 1e-6
    with pytest.raises(ValueError, match=f"its fingerprint is {mine[:12]}, this one's {fingerprint(model)[:12]}"):
        load_codes(path, model)


def test_a_fingerprint_knows_functions():
    def model(activation):
        torch.manual_seed(0)
        model = zoo.language_model()
        model.body.chunk_networks[0].encoder = torch.nn.TransformerEncoderLayer(
            zoo.DIM, 2, 32, activation=activation, batch_first=True
        )
        return model

    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.cache, self.names = torch.Tensor.relu, {}, {"b", "a"}

    foreign = Foreign()
    before = fingerprint(foreign)
    foreign.cache[3] = torch.ones(1)
    assert fingerprint(foreign) == before
    silu, tanh = torch.nn.functional.silu, torch.nn.functional.tanh
    assert fingerprint(model(silu)) == fingerprint(model(silu)) != fingerprint(model(tanh))


def test_a_fingerprint_is_of_weights_and_settings(tmp_path):
    def prints(wavelet="haar", **more):
        torch.manual_seed(0)
        return fingerprint(zoo.language_model(zoo.wavelet_compressor(wavelet=wavelet), **more))

    assert prints() == prints()
    others = prints(reduce_window=4), prints(window=9), prints(second=4), prints("db2")
    assert len({prints(), *others}) == 5
    one, other = zoo.language_model(), zoo.language_model()
    other.load_state_dict(one.state_dict())
    other.eval().decoder.backend = "flex"
    other.decoder.activation_checkpointing = other.body.reduce_network.activation_checkpointing = True
    assert fingerprint(one) == fingerprint(other)
    other.save_pretrained(tmp_path)
    assert fingerprint(wc.load(tmp_path)) == fingerprint(one)
    for name, make in zoo.causal_compressors():
        model = zoo.language_model(make())
        before = fingerprint(model)
        model.eval()(torch.randint(256, (1, 40))).sum().backward()
        assert fingerprint(model) == before, name


def test_every_damaged_byte_is_noticed(tmp_path):
    path, _ = saved(tmp_path, zoo.language_model(chunk=8))
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"codes\.safetensors (are damaged: .+|holds no codes|has format version)"):
            load_codes(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda whole: b"", "are damaged: shorter or longer than .*header too small"),
        (lambda whole: whole[:-1], "are damaged: .*incomplete metadata, file not fully covered"),
        (lambda whole: whole[: len(whole) // 2], "are damaged"),
        (lambda whole: whole + b"x", "are damaged"),
        (lambda whole: b"once upon a time", "are damaged"),
        (lambda whole: reheaded(whole, version="1"), "has format version 1; allowed: 3"),
        (lambda whole: reheaded(whole, format="other"), "holds no codes: its header names the format 'other'"),
        (lambda whole: reheaded(whole, tokens="9"), "are damaged: its header is not what was written"),
        (lambda whole: reheaded(whole, codes="9", sealed=True), r"are damaged: end has shape \[10\] and type I64"),
        (lambda whole: whole[:-1] + b"x", "are damaged: level is not what was written"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(change, message, tmp_path):
    path, model = saved(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_codes(path, model)


def reheaded(whole, sealed=False, **changes):
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"] |= changes
    if sealed:
        rest = sorted((name, value) for name, value in header["__metadata__"].items() if name != "crc32")
        header["__metadata__"]["crc32"] = str(zlib.crc32(json.dumps(rest).encode()))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + size :]


def test_a_file_of_other_tensors_is_no_codes(tmp_path):
    save_file({"values": torch.zeros(2, 2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="holds no codes: its header names the format None"):
        load_codes(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="codes .* are a folder; allowed: a file that compress wrote"):
        wc.load_codes(tmp_path)
    with pytest.raises(FileNotFoundError, match="codes .*nowhere do not exist"):
        load_codes(tmp_path / "nowhere")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_half_written_is_left(error, tmp_path):
    model = zoo.language_model()
    codes = model.encode(torch.randint(256, (1, 40)))
    (tmp_path / "codes").write_text("of before")
    with pytest.raises(error), CodesWriter(tmp_path / "codes", model) as writer:
        writer.add(codes)
        assert len(list(tmp_path.iterdir())) == 2
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]
    assert (tmp_path / "codes").read_text() == "of before"


def test_what_cannot_be_written_is_named(tmp_path):
    model = zoo.language_model()
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist"):
        CodesWriter(tmp_path / "nowhere" / "codes", model)
    with pytest.raises(IsADirectoryError, match="is a folder; give a file"):
        CodesWriter(tmp_path, model)
    with pytest.raises(ValueError, match="codes have 2 rows; allowed: 1"):
        save_codes(tmp_path / "codes", model.encode(torch.randint(256, (2, 40))), model)
    with pytest.raises(ValueError, match="no codes were added"), CodesWriter(tmp_path / "codes", model):
        pass
    assert not list(tmp_path.iterdir())
    codes = model.encode(torch.randint(256, (1, 40)))
    other = "values are BF16, 16 wide, those before were F32, 16 wide; allowed: the same"
    with pytest.raises(ValueError, match=other), CodesWriter(tmp_path / "codes", model) as writer:
        writer.add(codes)
        writer.add(codes.to(torch.bfloat16))
    assert not list(tmp_path.iterdir())


def test_the_longest_name_of_a_file_is_written(tmp_path):
    path = tmp_path / ("x" * 255)
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"
    saved(tmp_path)[0].rename(path)
    save_codes(path, load_codes(path), torch.nn.Identity())
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_write_that_fails_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    path, model = saved(tmp_path)
    codes = load_codes(path, model)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def busy(source, target):
        raise OSError(16, "Device or resource busy", str(source), None, str(target))

    for name, write in (
        ("write_bytes", lambda: write_whole(path, b"content")),
        ("open", lambda: save_codes(path, codes, model)),
    ):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as told:
            patch.setattr(Path, name, full)
            write()
        assert told.value.filename == str(path)
    monkeypatch.setattr("os.replace", busy)
    with pytest.raises(OSError, match="busy") as told:
        write_whole(path, b"content")
    assert told.value.filename == str(path) and told.value.filename2 is None
    with pytest.raises(OSError, match="unheard of") as told, CodesWriter(path, model) as writer:
        writer.add(codes)
        raise OSError(5, "unheard of")  # of what the codes are made from
    assert told.value.filename is None
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=f"folder {tmp_path} cannot be written to; codes is to go there"):
        CodesWriter(tmp_path / "codes", torch.nn.Identity())


def test_codes_of_a_short_last_chunk_stay_out_of_sight(tmp_path):
    path, model = saved(tmp_path)
    codes = load_codes(path, model)
    assert (codes.end == NEVER).sum() > 0 and not codes.visible(torch.tensor([10**9]))[0, 0, -1]
    assert CodesFile(path).metadata["ratio"] == f"{float(codes.ratio):.6g}"


def test_numbers_of_numpy_are_numbers():
    def model(count):
        torch.manual_seed(0)
        return zoo.language_model(wc.MeanPoolCompressor(count=count))

    assert fingerprint(model(np.int64(2))) == fingerprint(model(2)) != fingerprint(model(np.int64(4)))


@pytest.mark.parametrize("content", [b"", b"model: tiny", b"PK\x03\x04 cut short", bytes(range(256))])
def test_what_is_no_checkpoint_is_said_without_bad_advice(content, tmp_path):
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or no checkpoint of tensors: it is no whole zip file$"):
        read_checkpoint(path)


def test_a_checkpoint_of_more_than_tensors_names_what_it_holds(tmp_path):
    torch.save({"state_dict": {}, "model": torch.nn.Linear(1, 1)}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"no checkpoint of tensors: .*torch\.nn\.modules\.linear\.Linear") as told:
        read_checkpoint(tmp_path / "last.ckpt")
    assert "weights_only" not in str(told.value)
