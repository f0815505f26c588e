"""``recipes``: what the recipes reach, each trained as ``wavecomp fit`` trains it, with several seeds.

A member of the grid is one run; its checkpoint and ``metrics.csv`` stay in ``recipes-members/runs``.
"""

from __future__ import annotations

import csv
import functools
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from wavecomp.benchmarks import grid
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.tables import markdown, mean_and_spread, span
from wavecomp.benchmarks.targets import Target, where
from wavecomp.benchmarks.tasks import parameters
from wavecomp.files import load

LONGER = "quickstart, longer"
"""That which is trained on the text that is given; the others on what their recipes say."""
RECIPES: Mapping[str, Sequence[str]] = {
    "quickstart": (),
    # small batches: of as many bytes more steps, which is what counts in half an hour
    LONGER: (
        *("--trainer.max_steps", "3000", "--trainer.val_check_interval", "1000"),
        *("--data.init_args.batch_size", "4"),
    ),
    "copy": (),
    "copy + copy-mean-pool": (),
    "copy + copy-top-k": (),
    "recall": (),
}
"""Each with its overlays, and what is changed in it."""
SEEDS = 3
RUNS = Path("recipes-members/runs")
COLUMNS = {
    "bits": ("val/loss", ".4f"),
    "accuracy": ("val/answer_accuracy", ".3f"),
    "gain": ("val/context_gain", ".3f"),
    "ratio": ("val/compression_ratio", ".2f"),
    "bytes per second": ("train/bytes_per_second", ",.0f"),
}


def members(options: Options) -> dict[str, grid.Member]:
    """By recipe and seed."""
    seeds = range(1 if options.small else SEEDS)
    return {
        f"{_file_name(recipe)}-{seed}": functools.partial(fit, recipe, seed, options.small, options.source)
        for seed, recipe in itertools.product(seeds, RECIPES)
    }


def table(runs: Sequence[Run]) -> str:
    """What each recipe reached, the mean over seeds."""
    rows = []
    for recipe in dict.fromkeys(entry["recipe"] for entry in runs):
        mine = [entry for entry in runs if entry["recipe"] == recipe]
        figures = [
            mean_and_spread([entry["metrics"][key] for entry in mine if key in entry["metrics"]], SEEDS, form)
            for key, form in COLUMNS.values()
        ]
        minutes = mean_and_spread([entry["took"] / 60 for entry in mine if "took" in entry], form=".1f")
        cores = [re.search(r"(\d+) threads", entry["device"]) for entry in mine]
        threads = span([int(found[1]) for found in cores if found], "d")
        rows.append([recipe, f"{mine[0]['parameters']:,}", f"{mine[0]['steps']:,}", *figures, threads, minutes])
    note = (
        "On validation, after the last step: bits of what is asked for, per byte or answer; the share of the answers "
        "that is right; the context gain, in the same bits; tokens per code. Mean over seeds ± the furthest of them. "
        f"The text is that of `{LONGER}`; quickstart itself reads the sources of Python's standard library."
    )
    return f"{note}\n\n{markdown(['recipe', 'parameters', 'steps', *COLUMNS, 'threads', 'minutes'], rows)}"


def targets() -> list[Target]:
    """Bits of validation, and the minutes that they take."""
    found = []
    for recipe, bits, minutes in (("quickstart", 2.9, 5.0), (LONGER, 2.4, 30.0), ("copy", 0.1, 10.0)):
        for what, bound, values, form in (("bits", bits, _bits, ".3f"), ("minutes", minutes, _minutes, ".1f")):
            told = functools.partial(values, recipe)
            found.append(Target(f"{recipe}: {what}", bound, told, at_most=True, seeds=SEEDS, form=form))
    bits_on_gpu = functools.partial(_bits, LONGER)
    gpu = Target(f"GPU, {LONGER}: bits", 2.15, bits_on_gpu, at_most=True, seeds=SEEDS, form=".3f", gpu=True)
    return [*found, gpu]


def _bits(recipe: str, runs: Sequence[Run]) -> list[float]:
    return [entry["metrics"][COLUMNS["bits"][0]] for entry in where(runs, recipe=recipe)]


def _minutes(recipe: str, runs: Sequence[Run]) -> list[float]:
    return [entry["took"] / 60 for entry in where(runs, recipe=recipe)]


def fit(recipe: str, seed: int, small: bool, source: str | None = None) -> Run:
    """Train as the command line does.

    Args:
        source: text for :data:`LONGER`, instead of the recipe's.

    Raises:
        RuntimeError: what the command said, where it failed.
    """
    root = RUNS / ("small" if small else "full") / f"{_file_name(recipe)}-{seed}"
    shutil.rmtree(root, ignore_errors=True)  # of an attempt that was stopped
    words = ["fit"]
    on_gpu = torch.cuda.is_available() and not small
    for config in [*recipe.split(",")[0].split(" + "), *["gpu"] * on_gpu, *["smoke"] * small]:
        words += ["--config", config]
    words += [] if small else RECIPES[recipe]
    if source is not None and recipe == LONGER:
        words += ["--data.init_args.source", source]
    words += ["--seed_everything", str(seed), "--data.init_args.seed", str(seed)]
    words += ["--trainer.default_root_dir", str(root), "--trainer.enable_progress_bar", "false"]
    command = [sys.executable, "-c", "from wavecomp.cli import main; main()", *words]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        raise RuntimeError(f"wavecomp {' '.join(words)} failed:\n{done.stderr}")
    metrics = last_values(root / "version_0" / "metrics.csv")
    return {
        "recipe": recipe,
        "seed": seed,
        "steps": int(metrics.pop("step")) + 1,
        "parameters": parameters(load(root / "version_0")),
        "metrics": metrics,
    }


def _file_name(recipe: str) -> str:
    return recipe.replace(" ", "").replace(",", "-")


def last_values(path: Path) -> dict[str, float]:
    """The last value of each column of a ``metrics.csv``; those that are no numbers, such as infinity, are left out."""
    found: dict[str, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found |= {name: float(value) for name, value in row.items() if value}
    return {name: value for name, value in found.items() if math.isfinite(value)}
