"""Every recipe runs, in its smoke form."""

import sys

import pytest

import wavecomp as wc
from wavecomp import cli

NAMES = [path.stem for path in cli.recipes()]
OVERLAYS = {name for name in NAMES if cli.headline(cli.recipe_path(name)).startswith("Overlay")}
OVERLAID = {"copy-mean-pool": "copy", "copy-top-k": "copy"}
PARALLEL = {"chunk-parallel", "ddp", "fsdp"}  # start processes: tests/training/test_parallel.py runs them
SMALL = {
    "quickstart": ["--data.init_args.batch_size", "2"],
    "text": ["--data.init_args.batch_size", "1", "--data.init_args.length", "512", "--trainer.accelerator", "cpu",
             "--data.init_args.num_workers", "0"],
}  # fmt: skip


def test_the_list_is_what_it_should_be():
    assert {"quickstart", "copy", "recall", "text", "smoke"} <= set(NAMES)
    assert OVERLAYS == {"smoke", "gpu", *OVERLAID, *PARALLEL}


def test_every_recipe_opens_with_what_it_shows_and_how_long_it_takes():
    for name in NAMES:
        first, second = cli.recipe_path(name).read_text().splitlines()[:2]
        assert first.startswith("# ") and second.startswith("# ") and len(first) < 130


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"smoke", "gpu"} - PARALLEL))
def test_recipe_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wavecomp"])
    configs = ["--config", OVERLAID[name], "--config", name] if name in OVERLAID else ["--config", name]
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.enable_progress_bar", "false"]
    cli.main(["fit", *configs, "--config", "smoke", *root, *SMALL.get(name, [])])
    assert "Trained 4 steps." in capsys.readouterr().out
    model = wc.load(tmp_path / "version_0")
    kinds = {"copy-mean-pool": wc.MeanPoolCompressor}
    compressor = model.body.chunk_networks[0].compressor
    assert isinstance(compressor, kinds.get(name, wc.WaveletCompressor))
