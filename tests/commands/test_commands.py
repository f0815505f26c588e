"""The commands that work on a trained model: generate, compress, inspect."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
import zoo

import wavecomp as wc
from wavecomp import cli
from wavecomp.commands import compress, generate, inspect
from wavecomp.files import CodesWriter, build

TINY = zoo.TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run: a checkpoint that nobody trained, and its config."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(TINY.read_text())
    torch.manual_seed(0)
    checkpoint(folder, zoo.perturb(build(TINY), std=0.3))
    return folder


def checkpoint(folder, model):
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "last.ckpt")


def out_of(capsys, *args):
    cli.main([str(arg) for arg in args])
    return capsys.readouterr().out


def fails(capsys, *args):
    """Run a command that must end with one line of error and exit code 2; return that line."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(arg) for arg in args])
    assert stop.value.code == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1 and error.startswith("wavecomp: error: ") and not out, error
    return error


def test_generate_writes_what_the_model_says(run, capsys):
    out = out_of(
        capsys, "generate", "--checkpoint", run, "--prompt", "Zwölf", "--max-new-tokens", 30, "--temperature", 0
    )
    model, prompt = wc.load(run), torch.tensor([list("Zwölf".encode())])
    new = model.generate(prompt, max_new_tokens=30, temperature=0)[0, prompt.shape[1] :]
    assert out == bytes(new.tolist()).decode("utf-8", "replace") + "\n"


def test_a_prompt_may_come_from_a_file_and_a_seed_repeats(run, tmp_path, capsys):
    (tmp_path / "prompt").write_bytes(b"\xff raw bytes")
    ask = ["generate", "--checkpoint", run, "--prompt-file", tmp_path / "prompt", "--max-new-tokens", 20]
    outs = [out_of(capsys, *ask, "--seed", seed) for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]
    assert out_of(capsys, *ask) != out_of(capsys, *ask)
    model = wc.load(run)
    prompt = torch.tensor([list(b"\xff raw bytes")])
    sampled = dict(temperature=0.5, top_k=9, top_p=0.7, generator=torch.Generator().manual_seed(5))
    new = model.generate(prompt, max_new_tokens=20, **sampled)[0, prompt.shape[1] :]
    out = out_of(capsys, *ask, "--seed", 5, "--temperature", 0.5, "--top-k", 9, "--top-p", 0.7)
    assert out == bytes(new.tolist()).decode("utf-8", "replace") + "\n"


def test_characters_are_written_once_they_are_whole():
    tokens = [torch.tensor([byte]) for byte in "aé€".encode() + b"\xff" + "é".encode()[:1]]
    assert list(generate.decoded(tokens)) == ["a", "", "é", "", "", "€", "\ufffd", "", "\ufffd"]


def test_compress_writes_the_codes_of_all_files_as_one_text(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compress, "PIECE", 50)
    text = bytes(torch.randint(256, (300,)).tolist())
    (tmp_path / "a").write_bytes(text[:130])
    (tmp_path / "b").write_bytes(text[130:])
    out = out_of(
        capsys, "compress", tmp_path / "a", tmp_path / "b", "--checkpoint", run, "--output", tmp_path / "codes"
    )
    assert out.startswith("300 bytes (the last 12 fill no chunk and have no code), 72 codes, ratio 4.00, ")
    assert out.endswith(f" bytes/s: {tmp_path / 'codes'}\n") and out.count("\n") == 1
    model = wc.load(run)
    codes = wc.load_codes(tmp_path / "codes", model)
    whole = model.encode(torch.tensor([list(text[:288])]))
    torch.testing.assert_close(codes.values, whole.values, rtol=0, atol=1e-5)
    assert torch.equal(codes.end, whole.end) and sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "codes"]


def test_a_text_is_continued_from_its_codes(run, tmp_path, capsys):
    (tmp_path / "text").write_bytes(bytes(torch.randint(256, (320,)).tolist()))
    out_of(capsys, "compress", tmp_path / "text", "--checkpoint", run, "--output", tmp_path / "codes")
    asked = ["generate", "--checkpoint", run, "--prompt", "and", "--max-new-tokens", 40, "--temperature", 0]
    out = out_of(capsys, *asked, "--codes", tmp_path / "codes")
    model = wc.load(run)
    codes, prompt = wc.load_codes(tmp_path / "codes", model), torch.tensor([list(b"and")])
    new = model.generate(prompt, max_new_tokens=40, temperature=0, codes=codes)[0, 3:]
    assert out == bytes(new.tolist()).decode("utf-8", "replace") + "\n" != out_of(capsys, *asked)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(TINY.read_text())
    checkpoint(other, zoo.perturb(build(TINY), std=0.1))
    asked[2] = other
    assert "made by a model with other weights" in fails(capsys, *asked, "--codes", tmp_path / "codes")


def test_compress_says_which_stage_had_nothing_to_read(tmp_path, capsys, monkeypatch):
    model = zoo.language_model(zoo.wavelet_compressor(), second=16).eval()
    monkeypatch.setattr(compress, "language_model", lambda checkpoint: model)
    (tmp_path / "text").write_bytes(b"x" * 63)
    asked = ["compress", tmp_path / "text", "--checkpoint", "any", "--output", tmp_path / "codes"]
    first, second = out_of(capsys, *asked).splitlines()
    assert first.startswith("63 bytes") and second == "chunk_networks[1] reads chunks of 64 bytes: it made no codes"
    (tmp_path / "text").write_bytes(b"x" * 64)
    assert out_of(capsys, *asked).count("\n") == 1


def test_inspect_says_what_is_in_a_file(run, tmp_path, capsys):
    (tmp_path / "text").write_bytes(b"x" * 1600)
    out_of(capsys, "compress", tmp_path / "text", "--checkpoint", run, "--output", tmp_path / "codes")
    first, model, values, chunks = out_of(capsys, "inspect", tmp_path / "codes").splitlines()
    assert first == f"{tmp_path / 'codes'}: 400 codes for 1,600 tokens, ratio 4.00"
    assert "ChunkReduceLM, fingerprint " in model and values == "  values  16 wide, F32"
    assert chunks == "  100 chunks of 16 tokens, codes in each: 4"


def test_inspect_reads_all_of_a_file_and_names_what_is_damaged(run, tmp_path, capsys):
    path = tmp_path / "codes"
    (tmp_path / "text").write_bytes(b"x" * 320)
    out_of(capsys, "compress", tmp_path / "text", "--checkpoint", run, "--output", path)
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    offsets = json.loads(content[8:start])["values"]["data_offsets"]
    content[start + offsets[0] + 5] ^= 1
    path.write_bytes(content)
    assert "are damaged: values is not what was written" in fails(capsys, "inspect", path)


def test_inspect_shows_how_codes_spread_over_chunks_of_each_stage(tmp_path, capsys):
    model = zoo.language_model(zoo.leaves(), second=16).eval()
    quiet = torch.where(torch.arange(640) // 16 % 4 == 1, 7, torch.randint(256, (1, 640)))
    codes = wc.StreamingEncoder(model).feed(quiet)  # chunks of 16 and of 32 tokens
    with CodesWriter(tmp_path / "codes", model) as writer:
        writer.add(codes)
    lines = out_of(capsys, "inspect", tmp_path / "codes").splitlines()
    kept = codes.statistics["chunk_networks.0.kept"]
    spread = f"{kept.min()} to {kept.max()}, {kept.double().mean():.2f} in the mean"
    assert f"  40 chunks of 16 tokens, codes in each: {spread}" in lines
    assert sum("chunks of" in line for line in lines) == 2
    shares = [float(line.split()[-1].rstrip("%")) for line in lines if line.endswith("%")]
    assert len(shares) >= 2 and abs(sum(shares) - 100) < 0.5


def test_inspect_makes_no_chunks_of_what_pooled_the_codes(tmp_path, capsys):
    model = zoo.language_model(pooled=True).eval()
    codes = wc.StreamingEncoder(model).feed(torch.randint(256, (1, 160)))
    with CodesWriter(tmp_path / "codes", model) as writer:
        writer.add(codes)
    assert out_of(capsys, "inspect", tmp_path / "codes").splitlines()[3:] == [
        f"  10 times that codes came to exist, how many each: {codes.values.shape[1] // 10}"
    ]


def test_bars_take_in_every_count():
    lines = list(inspect.bars(torch.tensor([0, 1, 1, 9, 20])))
    assert [line.split()[0] for line in lines] == ["0-2", "3-5", "6-8", "9-11", "12-14", "15-17", "18-20"]
    assert [line.split()[-1] for line in lines] == ["60.0%", "0.0%", "0.0%", "20.0%", "0.0%", "0.0%", "20.0%"]
    assert not list(inspect.bars(torch.tensor([4, 4])))


@pytest.mark.parametrize(
    "args, message",
    [
        (["generate"], "the following arguments are required: --checkpoint; `wavecomp generate --help`"),
        (["generate", "--checkpoint", "nowhere"], "checkpoint nowhere does not exist"),
        (["generate", "--checkpoint", "RUN", "--max-new-tokens", "x"], "argument --max-new-tokens: invalid int value"),
        (["generate", "--checkpoint", "RUN", "--max-new-tokens", "-1"], "max_new_tokens=-1 is negative"),
        (["generate", "--checkpoint", "RUN", "--top-p", "2"], "top_p=2.0 is out of range"),
        (["generate", "--checkpoint", "RUN", "--prompt", "a", "--prompt-file", "b"], "not allowed with argument"),
        (["generate", "--checkpoint", "RUN", "--prompt-file", "nowhere"], "nowhere"),
        (["compress", "--checkpoint", "RUN", "--output", "c"], "the following arguments are required: FILE"),
        (["compress", "nowhere", "--checkpoint", "RUN", "--output", "c"], "file nowhere does not exist"),
        (["compress", "SHORT", "--checkpoint", "RUN", "--output", "c"], "the files hold 9 bytes; allowed: 16"),
        (["compress", "SHORT", "--checkpoint", "RUN", "--output", "SHORT"], "is one of the files to read"),
        (["compress", "SHORT", "--checkpoint", "RUN", "--output", "nowhere/c"], "folder nowhere does not exist"),
        (["compress", "SHORT", "--checkpoint", "RUN", "--output", "CHECKPOINT"], "exists and holds no codes; give"),
        (["generate", "--checkpoint", "RUN", "--seed", str(2**64)], "--seed 18446744073709551616 is out of range"),
        (["generate", "--checkpoint", "RUN", "--codes", ""], "codes  do not exist"),
        (["inspect"], "the following arguments are required: CODES"),
        (["inspect", "nowhere"], "codes nowhere do not exist"),
        (["inspect", "SHORT"], "are damaged: "),
    ],
)
def test_errors_are_a_line_and_exit_with_2(args, message, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("SHORT").write_bytes(b"too short")
    before = (run / "last.ckpt").read_bytes()
    named = {"RUN": run, "CHECKPOINT": run / "last.ckpt"}
    assert message in fails(capsys, *(named.get(arg, arg) for arg in args))
    assert (run / "last.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["SHORT"]
    assert Path("SHORT").read_bytes() == b"too short"


@pytest.mark.parametrize("name", ["text.html", "link.html"])
def test_no_command_writes_over_what_it_reads(name, run, tmp_path, capsys):
    text = tmp_path / "text.html"
    text.write_bytes(b"a page " * 20)
    (tmp_path / "link.html").symlink_to(text)
    for command in (["report"], ["plot", "energy"], ["plot", "rate"], ["compress"]):
        model = [] if command[-1] == "rate" else ["--checkpoint", run / "nowhere"]  # it is not loaded before
        error = fails(capsys, *command, text, *model, "--output", tmp_path / name)
        assert f"output {tmp_path / name} is one of the files to read; give another" in error
    assert text.read_bytes() == b"a page " * 20 and (tmp_path / "link.html").is_symlink()


def test_models_that_do_not_read_bytes_are_refused(run, tmp_path, capsys):
    config = yaml.safe_load(TINY.read_text())
    model = config["model"]["init_args"]["model"]
    model["init_args"]["embedding"]["init_args"]["num_embeddings"] = 20
    for settings, message in (
        (model, "holds a model of 20 tokens; allowed: 256"),
        (model["init_args"]["head"], "holds a Linear; allowed: ChunkReduceLM"),
    ):
        config["model"]["init_args"]["model"] = settings
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        checkpoint(tmp_path, build(tmp_path / "config.yaml"))
        assert message in fails(capsys, "generate", "--checkpoint", tmp_path)


def test_ctrl_c_leaves_no_partial_file(run, tmp_path, monkeypatch):
    (tmp_path / "text").write_bytes(b"x" * 1600)
    monkeypatch.setattr(compress, "PIECE", 100)
    add, seen = CodesWriter.add, []

    def interrupted(self, codes):
        add(self, codes)
        seen.append(len(list(tmp_path.iterdir())))
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(CodesWriter, "add", interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background begins without
    with pytest.raises(SystemExit) as stop:
        cli.main(["compress", str(tmp_path / "text"), "--checkpoint", str(run), "--output", str(tmp_path / "codes")])
    assert stop.value.code == 130 and seen == [2, 2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_compress_that_is_told_to_end_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    (tmp_path / "text").write_bytes(b"some text " * 5000)
    add = CodesWriter.add

    def told(self, codes):
        add(self, codes)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CodesWriter, "add", told)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        cli.main(["compress", str(tmp_path / "text"), "--checkpoint", str(run), "--output", str(tmp_path / "codes")])
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_generate_takes_any_bytes_and_writes_to_any_terminal_and_pipe(run):
    command = [sys.executable, "-m", "wavecomp", "generate", "--checkpoint", run, "--max-new-tokens", "200"]
    seeded = [*command, "--seed", "1", "--prompt", b"caf\xc3"]
    done = subprocess.run(seeded, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0 and not done.stderr and len(done.stdout) > 100
    words = " ".join(shlex.quote(str(word)) for word in [*command, "--prompt", "a"])
    shell = f"{words} | head -c 5; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True)
    assert done.returncode == 0 and not done.stderr and len(done.stdout) == 5


@pytest.mark.parametrize("words", [["ls"], ["ls", "--help"], [], ["fit", "--help"]])
def test_output_that_nobody_reads_ends_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "wavecomp", *words], stdout=writer, stderr=subprocess.PIPE, env=environment, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
@pytest.mark.parametrize("words", [["ls"], []])
def test_output_that_cannot_be_written_is_told_in_a_line(words):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wavecomp", *words], stdout=full, stderr=subprocess.PIPE, env=environment, text=True
        )
    assert (done.returncode, done.stderr) == (2, "wavecomp: error: [Errno 28] No space left on device\n")


def test_a_pipe_that_breaks_elsewhere_is_an_error(capfd, monkeypatch):
    def broken(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("wavecomp.commands.ls.run", broken)
    with pytest.raises(SystemExit) as stop:
        cli.main(["ls"])
    assert stop.value.code == 2 and capfd.readouterr().err == "wavecomp: error: [Errno 32] Broken pipe\n"


def test_help_and_usage_name_the_commands(capsys):
    cli.main([])
    usage = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"  {command} " in usage
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0 and f"usage: wavecomp {command}" in capsys.readouterr().out


def test_compress_reads_pipes_and_replaces_files_alone(run, tmp_path, capsys):
    text = tmp_path / os.fsdecode(b"caf\xe9.txt")
    text.write_bytes(b"some text " * 50)
    (tmp_path / "there").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.remove(tmp_path / "there")
    out_of(capsys, "compress", text, "--checkpoint", run, "--output", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").stat().st_size > 1000
    words = [sys.executable, "-m", "wavecomp", "compress", "/dev/stdin", "--checkpoint", run, "--output", "piped"]
    subprocess.run(words, input=text.read_bytes(), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "piped").read_bytes() == (tmp_path / "there").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    error = fails(capsys, "compress", text, "--checkpoint", run, "--output", tmp_path / "pipe")
    assert "is a device or a pipe, which would be replaced; give a file" in error
    assert "is a folder; give files" in fails(capsys, "compress", tmp_path, "--checkpoint", run, "--output", "x")
    out_of(capsys, "report", text, "--checkpoint", run, "--output", tmp_path / "page.html")
    assert "caf\ufffd.txt" in (tmp_path / "page.html").read_text()
