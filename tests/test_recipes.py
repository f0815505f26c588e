"""Every recipe runs, in its smoke form."""

import re
import sys

import pytest
import torch

import wavecomp as wc
from wavecomp import cli
from wavecomp.files.recipes import headline, recipe_path, recipes
from wavecomp.training.optimisation import CompressionModule

NAMES = [path.stem for path in recipes()]
OVERLAYS = {name for name in NAMES if headline(recipe_path(name)).startswith("Overlay")}
OVERLAID = {
    "copy-mean-pool": "copy",
    "copy-top-k": "copy",
    "checkpointing": "quickstart",
    "needle": "passkey",
    "ruler": "passkey",
}
PARALLEL = {"chunk-parallel", "ddp", "fsdp"}  # start processes: tests/training/test_parallel.py runs them
SHORT = ["--data.init_args.length", "256"]
SMALL = {
    **dict.fromkeys(["quickstart", "lattice", "neural-lifting", "checkpointing"], SHORT),
    "stacked": ["--data.init_args.length", "1024"],
    "passkey": ["--data.init_args.length", "512", "--data.init_args.validation_samples", "8"],
    "needle": ["--data.init_args.length", "600", "--data.init_args.validation_samples", "8"],
    "ruler": ["--data.init_args.length", "700", "--data.init_args.validation_samples", "8"],
    "text": ["--data.init_args.batch_size", "1", "--data.init_args.length", "256", "--trainer.accelerator", "cpu",
             "--data.init_args.num_workers", "0", "--trainer.val_check_interval", "4"],
}  # fmt: skip


def smoke(name, root):
    """Run a recipe in its smoke form; the model that it leaves."""
    configs = ["--config", OVERLAID[name], "--config", name] if name in OVERLAID else ["--config", name]
    where = ["--trainer.default_root_dir", str(root), "--trainer.enable_progress_bar", "false"]
    small = ["--data.init_args.batch_size", "2", *SMALL.get(name, [])]
    cli.main(["fit", *configs, "--config", "smoke", *where, *small])
    return wc.load(root / "version_0")


def modules(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def checkpointed(model):
    kinds = (wc.TransformerEncoder, wc.ReduceNetwork, wc.LocalDecoder)
    able = [part for kind in kinds for part in modules(model, kind)]
    return {type(part).__name__ for part in able if part.activation_checkpointing}


@pytest.fixture(autouse=True)
def own_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wavecomp"])


def test_the_list_is_what_it_should_be():
    assert {"quickstart", "copy", "recall", "sort", "text", "smoke"} <= set(NAMES)
    assert OVERLAYS == {"smoke", "gpu", *OVERLAID, *PARALLEL}


# an id that is "gpu" alone would be taken for the mark
@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{name}.yaml")
def test_a_recipe_opens_with_what_it_shows_and_how_long_it_takes(name):
    first, second = recipe_path(name).read_text().splitlines()[:2]
    assert first.startswith("# ") and first.endswith(".") and len(first) < 130
    if name in OVERLAYS:
        over = re.fullmatch(rf"# fit --config ([\w-]+) --config {name}", second)
        assert over and over[1] in NAMES
    else:
        assert re.match(r"# (About [\d.]+ minutes|Hours) ", second) and "GPU" in second


def test_ls_shows_what_each_recipe_shows_side_by_side(capsys):
    cli.main(["ls"])
    lines = capsys.readouterr().out.splitlines()
    width = max(map(len, NAMES)) + 2
    assert {line[:width].strip(): line[width:] for line in lines} == {
        name: headline(recipe_path(name)) for name in NAMES
    }
    overlays = [line.split()[0] in OVERLAYS for line in lines]
    assert overlays == sorted(overlays)


@pytest.mark.parametrize("name", sorted(OVERLAYS), ids=lambda name: f"{name}.yaml")
def test_an_overlay_alone_says_what_it_lies_over(name, capsys):
    for configs in (["--config", name], [f"--config={name}", "--config", "quickstart"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["fit", *configs])
        assert stop.value.code == 2
        assert f"config '{name}' is an overlay and comes behind a recipe" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"smoke", "gpu"} - PARALLEL))
def test_recipe_runs(name, tmp_path, capsys, monkeypatch):
    recomputed = set()
    monkeypatch.setattr(CompressionModule, "on_train_end", lambda self: recomputed.update(checkpointed(self)))
    model = smoke(name, tmp_path)
    assert "Trained 4 steps." in capsys.readouterr().out
    kinds = {"copy-mean-pool": wc.MeanPoolCompressor, "adaptive": wc.PartialSynthesis}
    compressor = model.body.chunk_networks[0].compressor
    assert isinstance(compressor, kinds.get(name, wc.WaveletCompressor))
    banks = {"lattice": wc.OrthogonalFilterBank, "neural-lifting": wc.NeuralLiftingFilterBank}
    for special, bank in banks.items():
        assert bool(modules(model, bank)) == (name == special)
    assert len(model.body.chunk_networks) == (2 if name == "stacked" else 1)
    blocks = {"TransformerEncoder", "ReduceNetwork", "LocalDecoder"}
    assert recomputed == (blocks if name == "checkpointing" else set()) and not checkpointed(model)


@pytest.mark.slow
def test_the_ratio_of_elastic_is_chosen_in_use(tmp_path):
    model = smoke("elastic", tmp_path)
    tokens = torch.randint(256, (2, 256))
    for ratio in (2, 4, 16):
        model.body.chunk_networks[0].compressor.pruner.ratio = ratio
        assert float(model.encode(tokens).ratio) == ratio
