"""``wavecomp report``, ``doctor`` and ``bench``, and how commands end that cannot work."""

import json
import re
import sys
from importlib.metadata import metadata
from types import SimpleNamespace

import pytest
import torch
import zoo
from test_commands import TINY, checkpoint, fails, out_of

import wavecomp as wc
from wavecomp import cli
from wavecomp.commands import doctor, report
from wavecomp.files import build
from wavecomp.files.recipes import recipe_folder, recipes
from wavecomp.report import read, report_page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(TINY.read_text())
    checkpoint(folder, zoo.perturb(build(TINY), std=0.3))
    return folder


def test_report_writes_the_page_of_the_text_and_says_what_it_shows(run, tmp_path, capsys):
    text, page = tmp_path / "a<b>.txt", tmp_path / "page.html"
    text.write_bytes(bytes(range(256)))
    out = out_of(capsys, "report", text, "--checkpoint", run, "--output", page, "--bytes", 100)
    reading = read(wc.load(run), bytes(range(100)))
    title = "a<b>.txt, the first 100 of 256 bytes"
    assert page.read_text(encoding="utf-8") == report_page(reading, title=title)
    figures = f"ratio 4.00, {reading.bits:.3f} bits per byte, context gain {reading.gain:+.3f}"
    assert out == f"100 bytes in 7 chunks, 25 codes, {figures}: {page}\n"


def test_what_has_no_report_is_said_in_one_line(run, tmp_path, capsys):
    (tmp_path / "empty").touch()
    page = tmp_path / "page.html"
    for args, message in (
        ([TINY, "--checkpoint", run, "--output", tmp_path / "x.png"], "suffix '.png'; allowed: .html"),
        ([tmp_path / "empty", "--checkpoint", run, "--output", page], "is empty; give one with some text"),
        ([tmp_path / "x", "--checkpoint", run, "--output", page], "x does not exist"),
        (
            [TINY, "--checkpoint", tmp_path, "--output", page],
            "it holds neither best.ckpt nor last.ckpt, nor model.safetensors of",
        ),
    ):
        assert message in fails(capsys, "report", *args)
    assert not page.exists()


def test_doctor_tells_what_there_is(capsys, monkeypatch):
    out = out_of(capsys, "doctor")
    found = dict(re.findall(r"^  (\S+)\s+(.+)$", out, flags=re.M))
    assert found["wavecomp"].startswith(wc.__version__) and found["torch"] == torch.__version__.split("+")[0]
    assert {"python", "lightning", "ptwt", "cpu", "DWT1d", "triton", "attention", "bf16"} <= found.keys()
    assert "'matrix' for chunks of 64, 'banded' for chunks of 4096" in found["DWT1d"]
    assert f"{len(recipes())} " in out and str(recipe_folder()) in out
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr(doctor, "recipes", lambda: [])
    out = out_of(capsys, "doctor")
    assert "missing: pip install no-such-package" in out and "install wavecomp again" in out


def test_doctor_looks_for_what_the_project_needs():
    needs = [
        re.fullmatch(r"([\w-]+).*?(?:extra == ['\"](\w+)['\"])?", line).groups()
        for line in metadata("wavecomp").get_all("Requires-Dist")
    ]
    assert set(doctor.PACKAGES) == {name for name, extra in needs if extra is None}
    assert set(doctor.EXTRAS["hub"]) == {name.replace("_", "-") for name, extra in needs if extra == "hub"}


def test_bench_is_the_command_of_the_benchmarks(tmp_path, monkeypatch, capsys):
    quick = SimpleNamespace(
        run=lambda options: [{"seed": 0, "small": options.small, "repeats": options.repeats}],
        table=lambda runs: "a table",
    )
    monkeypatch.setattr(sys, "argv", ["wavecomp"])
    monkeypatch.setitem(sys.modules, "wavecomp.benchmarks.dwt", quick)
    path = tmp_path / "dwt.json"
    assert out_of(capsys, "bench", "dwt", "--small", "--repeats", 3, "--output", path) == "a table\n"
    assert json.loads(path.read_text())["runs"] == [{"seed": 0, "small": True, "repeats": 3}]
    assert "invalid choice: 'fft' (choose from 'cost', 'dwt', " in fails(capsys, "bench", "fft")


def test_the_version_is_told(capsys):
    assert out_of(capsys, "--version") == f"wavecomp {wc.__version__}\n"


def test_only_debug_shows_where_an_error_came_from(run, capsys, monkeypatch):
    args = ["report", "nowhere", "--checkpoint", "none", "--output", "x.html"]
    line = fails(capsys, *args)

    def debugged():
        with pytest.raises(SystemExit) as stop:
            cli.main(["--debug", *args])
        assert stop.value.code == 2
        return capsys.readouterr().err

    error = debugged()
    assert error.startswith(line) and "Traceback (most recent call last)" in error and "FileNotFoundError" in error
    monkeypatch.setattr(report, "read_text", lambda *_: 1 / 0)
    line = fails(capsys, *args)
    assert "ZeroDivisionError: division by zero; `wavecomp --debug report ...` shows where it came from" in line
    assert "read_text" in debugged()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_recipe_for_a_gpu_says_where_to_look_for_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wavecomp"])
    root = ["--trainer.default_root_dir", tmp_path]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(arg) for arg in ("fit", "--config", TINY, "--trainer.accelerator", "gpu", *root)])
    *_, error = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert error.startswith("wavecomp: error: trainer: ") and error.endswith(
        "`wavecomp doctor` tells what there is to train on"
    )


def test_an_error_in_training_ends_in_a_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wavecomp"])

    def broken(self, batch, batch_idx):
        raise ValueError("backend='flex' does not run here")

    monkeypatch.setattr(wc.training.LanguageModelModule, "training_step", broken)
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--config", str(TINY), "--trainer.default_root_dir", str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "wavecomp: error: backend='flex' does not run here"
