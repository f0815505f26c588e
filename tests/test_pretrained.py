"""Models that are saved whole: what they were built with comes back, and a stranger's config runs nothing."""

import importlib.util
import os
import sys

import numpy as np
import pytest
import pywt
import torch
import yaml
import zoo
from safetensors.torch import load_file, save_file
from torch import nn

import wavecomp as wc
from wavecomp.files import build, describe, fingerprint
from wavecomp.files.hub import Pretrained, _example


class Doubled(wc.Module):
    """An encoder as a user writes one: what it keeps is not what it was built with."""

    def __init__(self, width, *layers, factor=2, **more):
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)
        self.parts = nn.ModuleList(layers)
        self.settings = len(layers) * factor + sum(more.values())

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return self.gru(x)[0]


class Forgetful(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)


def classifier(compressor=None, encoder=None, head=None):
    """Of any compressor, causal or not."""
    network = wc.ChunkNetwork(
        chunk_length=zoo.CHUNK, encoder=encoder, compressor=compressor or wc.MeanPoolCompressor(count=2)
    )
    return wc.ChunkReduceClassifier(
        embedding=nn.Embedding(256, zoo.DIM),
        body=wc.ChunkReduce(
            chunk_networks=[network],
            reduce_network=wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False),
        ),
        head=head or nn.Linear(zoo.DIM, 3),
    )


def autoencoder():
    body = classifier().body
    decoder = wc.ChunkDecoder(chunk_length=zoo.CHUNK, network=nn.GELU(), head=nn.Linear(zoo.DIM, 256))
    return wc.ChunkReduceAutoencoder(embedding=nn.Embedding(256, zoo.DIM), body=body, decoder=decoder)


def banked(bank):
    return classifier(wc.WaveletCompressor(transform=wc.DWT1d(bank, level=2), pruner=wc.KeepLowpass(4)))


def tied():
    model = zoo.language_model()
    model.head.weight = model.embedding.weight
    return model


TAPS = wc.FilterTaps.of("db2")
MODELS = {
    "language-model": lambda: zoo.language_model(zoo.leaves(), second=8, pooled=True),
    "autoencoder": autoencoder,
    "tied": tied,
    "double": lambda: zoo.language_model().double(),
    "half": lambda: classifier().bfloat16(),
    "pywt": lambda: banked(pywt.Wavelet("db3")),
    "taps": lambda: banked([wc.WaveletFilterBank(TAPS), TAPS]),
    "sequential": lambda: classifier(
        encoder=nn.Sequential(nn.LayerNorm(zoo.DIM), nn.Linear(zoo.DIM, zoo.DIM, bias=False))
    ),
    **{
        f"encoder-{kind.__name__}": lambda kind=kind, more=more: classifier(
            encoder=wc.SequenceAdapter(kind(zoo.DIM, zoo.DIM, batch_first=True, **more))
        )
        for kind, more in ((nn.GRU, {"bias": False}), (nn.LSTM, {"num_layers": 2}), (nn.RNN, {"nonlinearity": "relu"}))
    },
    "identity": lambda: classifier(encoder=nn.Identity()),
    **{f"compressor-{name}": lambda make=make: classifier(make()) for name, make in zoo.every_compressor()},
    **{f"bank-{name}": lambda make=make: banked(make()) for name, make in zoo.every_bank() if "Neural" not in name},
}


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_models_come_back_as_they_were(name, tmp_path):
    model = zoo.perturb(MODELS[name]()).eval()
    before = torch.get_rng_state()
    model.save_pretrained(tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["config.yaml", "model.safetensors"]
    for read in (type(model).from_pretrained, wc.load):
        other = read(tmp_path / "new" / "folder")
        assert type(other) is type(model) and not other.training and fingerprint(other) == fingerprint(model)
        tokens = torch.randint(256, (2, 40))
        assert torch.equal(other(tokens), model(tokens))


def test_tied_tensors_stay_tied(tmp_path):
    tied().save_pretrained(tmp_path)
    assert "head.weight" not in load_file(tmp_path / "model.safetensors")
    model = wc.load(tmp_path)
    assert model.head.weight is model.embedding.weight


def test_the_config_is_for_people(tmp_path):
    classifier().save_pretrained(tmp_path)
    head = yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["init_args"]["head"]
    assert head == {
        "class_path": "torch.nn.Linear",
        "init_args": {"in_features": zoo.DIM, "out_features": 3, "bias": True},
    }


def test_a_model_of_a_run_can_be_shared(tmp_path):
    config = {"class_path": "torch.nn.MultiheadAttention", "init_args": {"embed_dim": 8, "num_heads": 2}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"model": config}}}))
    described = describe(build(tmp_path / "config.yaml"))
    # it does not keep whether it has a bias; what built it knows
    assert described["class_path"] == config["class_path"] and described["init_args"]["bias"] is True
    assert described["init_args"].items() >= config["init_args"].items()
    with pytest.raises(ValueError, match="folder .* is that of a run"):
        classifier().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_parts_of_ones_own_remember_what_they_were_built_with(tmp_path):
    model = classifier(encoder=Doubled(zoo.DIM, nn.ReLU(), nn.Tanh(), factor=3, more=1)).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="class_path test_pretrained.Doubled is not trusted; allowed: what lies in wave"
    ):
        wc.load(tmp_path)
    other = wc.load(tmp_path, trusted=["test_pretrained"])
    assert fingerprint(other) == fingerprint(model) and other.body.chunk_networks[0].encoder.settings == 7


def changed_target():
    model = classifier(zoo.leaves())
    next(iter(model.body.controllers().values())).target_ratio = 6.0
    return model


def exchanged_bank():
    model = banked("haar")
    model.body.chunk_networks[0].compressor.transform = wc.DWT1d("db2", level=2)
    return model


def one_part_twice():
    encoder = nn.Linear(zoo.DIM, zoo.DIM)
    return classifier(encoder=nn.Sequential(encoder, encoder))


def local_class():
    class Local(wc.Module):
        def forward(self, x):
            return x

    return classifier(encoder=Local())


@pytest.mark.parametrize(
    "make, message",
    [
        (changed_target, r"controller was changed after it was built: target_ratio=6.0, built again it has 4.0"),
        (one_part_twice, "ChunkReduceClassifier.body.chunk_networks.0.encoder.1 is in the model under another name"),
        (local_class, "class .*Local of test_pretrained cannot be imported by its name"),
        (
            lambda: classifier(encoder=Forgetful(zoo.DIM)),
            r"^body.chunk_networks\[0\].encoder: Forgetful does not keep the 'width' .* inherits from wavecomp.Module",
        ),
        (
            lambda: classifier(
                encoder=nn.TransformerEncoder(nn.TransformerEncoderLayer(zoo.DIM, 2, batch_first=True), 1)
            ),
            "encoder: TransformerEncoder does not keep the 'encoder_layer' that it was built with",
        ),
        (lambda: classifier(encoder=Doubled(zoo.DIM, more=torch.ones(1))), "has type Tensor, which no config holds"),
    ],
)
def test_what_would_not_come_back_is_not_saved(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make().save_pretrained(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_an_exchanged_part_is_the_one_that_is_saved(tmp_path):
    model = exchanged_bank()
    model.save_pretrained(tmp_path)
    assert fingerprint(wc.load(tmp_path)) == fingerprint(model)


HARM = "raise SystemExit('a config ran this')"


@pytest.mark.parametrize(
    "path, message",
    [
        ("harm.Encoder", "class_path harm.Encoder is not trusted; allowed: what lies in wavecomp, torch.nn"),
        ("os.system", "class_path os.system is not trusted"),
        ("wavecompany.Encoder", "class_path wavecompany.Encoder is not trusted"),
        ("torch.hub.load", "class_path torch.hub.load is not trusted"),
        ("wavecomp.files.hub.tempfile.mkdtemp", "cannot be imported"),
        ("wavecomp.files.shared.save_shared", "is no module; allowed: subclasses of torch.nn.Module"),
        ("wavecomp.files.CodesWriter", "is no module"),
        ("wavecomp.training.language_model.Metric", "Metric is not trusted"),
        ("Linear", "class_path Linear is not trusted"),
    ],
)
def test_a_strangers_config_imports_nothing_else(path, message, tmp_path, monkeypatch):
    (tmp_path / "harm.py").write_text(HARM)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("harm")
    folder = tmp_path / "model"
    classifier(encoder=nn.ReLU()).save_pretrained(folder)
    text = (folder / "config.yaml").read_text()
    assert text.count("torch.nn.ReLU") == 1
    (folder / "config.yaml").write_text(text.replace("torch.nn.ReLU", path))
    with pytest.raises(ValueError, match=message):
        wc.load(folder)
    assert "harm" not in sys.modules


def test_strings_of_a_config_stay_strings(tmp_path):
    """Where a parser goes by types, a string may name a function or hold a config of its own."""
    layer = {"class_path": "torch.nn.TransformerEncoderLayer", "init_args": {"d_model": 8, "nhead": 2}}
    for activation in ("os.system", "{class_path: harm.Encoder}"):
        layer["init_args"]["activation"] = activation
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": layer}))
        with pytest.raises(ValueError, match="activation should be relu/gelu, not"):
            build(tmp_path / "config.yaml", trusted=())


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a ChunkReduceClassifier; allowed: ChunkReduceLM"):
        wc.ChunkReduceLM.from_pretrained(tmp_path)
    weights, whole = tmp_path / "model.safetensors", (tmp_path / "model.safetensors").read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        wc.load(tmp_path)
    save_file({"head.bias": torch.zeros(3)}, weights)
    with pytest.raises(ValueError, match=r"(?s)model.safetensors does not fit the model in .*: .*Missing key"):
        wc.load(tmp_path)
    weights.unlink()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match="it holds neither best.ckpt nor last.ckpt, nor model.safetensors of"):
        wc.ChunkReduceClassifier.from_pretrained(tmp_path)


def test_saving_over_a_model_leaves_nothing_of_it(tmp_path):
    for make in (zoo.language_model, tied, classifier):
        make().save_pretrained(tmp_path)
        assert type(wc.load(tmp_path)) is type(make())
    assert len(list(tmp_path.iterdir())) == 2


def test_without_the_hub_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"someone/model is no folder here; .* pip install 'wavecomp\[hub\]'"):
        wc.ChunkReduceLM.from_pretrained("someone/model")
    with pytest.raises(ImportError, match=r"pip install 'wavecomp\[hub\]'"):
        classifier().push_to_hub("someone/model")
    classifier().save_pretrained(tmp_path)
    wc.ChunkReduceClassifier.from_pretrained(tmp_path)


def test_push_and_pull_through_huggingface_hub(tmp_path, monkeypatch):
    """With its own functions, checked against their signatures, and a folder in place of the network."""
    hub = pytest.importorskip("huggingface_hub")
    from unittest import mock

    repository, uploaded = tmp_path / "repository", []
    repository.mkdir()

    def upload(self, *, repo_id, folder_path, commit_message, **more):
        uploaded.append((repo_id, commit_message, more))
        for path in importlib.import_module("pathlib").Path(folder_path).iterdir():
            (repository / path.name).write_bytes(path.read_bytes())
        return mock.Mock(commit_url="https://hub/commit/1")

    def patched(owner, name, function):
        monkeypatch.setattr(owner, name, mock.create_autospec(getattr(owner, name), side_effect=function))

    patched(hub.HfApi, "create_repo", lambda self, repo_id, **more: mock.Mock(repo_id=f"someone/{repo_id}"))
    patched(hub.HfApi, "file_exists", lambda self, repo_id, name, **more: (repository / name).exists())
    patched(hub.HfApi, "upload_folder", upload)
    patched(hub, "snapshot_download", lambda repo_id, **more: str(repository))
    model = classifier()
    assert model.push_to_hub("mine", private=True, branch="next") == "https://hub/commit/1"
    assert uploaded == [("someone/mine", "Push model using wavecomp.", {"revision": "next", "create_pr": None})]
    card = (repository / "README.md").read_text()
    assert "library_name: wavecomp" in card and 'wc.ChunkReduceClassifier.from_pretrained("someone/mine")' in card
    (repository / "README.md").write_text("my own words")
    model.push_to_hub("mine")
    assert (repository / "README.md").read_text() == "my own words"
    other = wc.ChunkReduceClassifier.from_pretrained("someone/mine", revision="next", local_files_only=True)
    assert fingerprint(other) == fingerprint(model)
    _, asked = hub.snapshot_download.call_args
    assert asked["revision"] == "next" and asked["allow_patterns"] == ["config.yaml", "model.safetensors"]


def test_tensors_that_are_not_those_that_were_saved_are_refused(tmp_path):
    zoo.language_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-3] ^= 4
    weights.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model.safetensors and .*config.yaml are not as they were saved"):
        wc.load(tmp_path)


def test_a_config_with_the_tensors_of_the_save_before_is_refused(tmp_path, monkeypatch):
    def save(ratio):
        pruner = wc.Shrinkage(target_ratio=ratio)
        classifier(wc.WaveletCompressor(transform=wc.DWT1d("haar", level=4), pruner=pruner)).save_pretrained(tmp_path)

    save(4)
    replace, done = os.replace, []

    def once(*names):
        if done:
            raise OSError("disk full")
        done.append(replace(*names))

    monkeypatch.setattr("os.replace", once)
    with pytest.raises(OSError, match="disk full"):
        save(2)
    with pytest.raises(ValueError, match="are not as they were saved"):
        wc.load(tmp_path)


def test_a_ratio_that_is_chosen_in_use_is_no_part_of_a_model(tmp_path):
    pruner = wc.ElasticRatio(least=2, most=4)
    model = classifier(wc.WaveletCompressor(transform=wc.DWT1d("haar", level=3), pruner=pruner))
    before = fingerprint(model)
    pruner.ratio = 4
    assert fingerprint(model) == before
    model.save_pretrained(tmp_path)
    found = [module for module in wc.load(tmp_path).modules() if isinstance(module, wc.ElasticRatio)]
    assert [pruner.ratio for pruner in found] == [2]


class Scaled(Pretrained):
    """A model with an argument that is named as that of what trains one."""

    def __init__(self, *, model, scale=2.0):
        super().__init__()
        self.model, self.scale = model, scale


def test_a_model_may_have_a_model(tmp_path):
    model = Scaled(model=zoo.language_model(), scale=np.float32(0.5)).eval()
    model.save_pretrained(tmp_path)
    other = Scaled.from_pretrained(tmp_path, trusted=["test_pretrained"])
    assert fingerprint(other) == fingerprint(model) and other.scale == 0.5


def test_the_card_of_ones_own_model_says_where_it_is_from_and_trusts_it():
    assert _example(Scaled, "me/it") == (
        "from test_pretrained import Scaled\n\n"
        'model = Scaled.from_pretrained("me/it", trusted=["test_pretrained"])'
    )  # fmt: skip
