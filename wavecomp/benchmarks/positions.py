"""``positions``: how codes are told where they lie, in how many bits, and how far beyond the trained length it holds.

On text a language model with dyadic position codes of 2 bits beside one of full precision. On recall each encoding is
trained at one length and asked at 4 and 16 times that length, with as many keys in as much more noise. What else would
fail at another length is out of the way there, for all encodings alike: the decoder turns by angles that were all seen
in training, its scores grow with how many codes there are, and codes do not read one another.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import wavecomp as wc
from wavecomp.benchmarks import grid, makers, tasks
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.tables import markdown, mean_and_spread
from wavecomp.benchmarks.targets import Target, paired, where
from wavecomp.benchmarks.tasks import CHUNK, DIM
from wavecomp.training import RecallDataModule

RATIO, SEEDS, LEVEL = 4, 3, 2
STEPS = {"text": 400, "recall": 1600}
LONGER = (1, 4, 16)
ANY_LENGTH: dict[str, Any] = {
    "before": 4,
    "after": 0,
    "layers": 3,
    "memory_layers": None,
    "base": 100.0,
    "count_scale": True,
}
ROWS = 64  # of each length
FINE, COARSE = "dyadic, full precision", "dyadic, 2 bits"
ENCODINGS: dict[str, Callable[[], nn.Module]] = {
    FINE: lambda: wc.DyadicPositionCode(DIM, chunk_length=CHUNK, bits=None, depth=3),
    COARSE: lambda: wc.DyadicPositionCode(DIM, chunk_length=CHUNK, bits=2, depth=3),
    "additive": lambda: wc.PositionFrequencyEncoding(DIM),
    "rotary": lambda: wc.RotaryPositionFrequency(DIM),
}


def members(options: Options) -> dict[str, grid.Member]:
    """By task, seed and encoding."""
    steps = dict.fromkeys(STEPS, 3) if options.small else STEPS
    return {
        f"{task}-{seed}-{name.replace(', ', '-').replace(' ', '-')}": functools.partial(
            _member, task, name, seed, steps[task], options.source
        )
        for seed, task, name in itertools.product(range(1 if options.small else SEEDS), STEPS, ENCODINGS)
    }


def table(runs: Sequence[Run]) -> str:
    """Bits on text, and accuracy on recall by length."""
    rows = []
    for name in dict.fromkeys(entry["encoding"] for entry in runs):
        own = [entry for entry in runs if entry["encoding"] == name]
        recall = [entry["accuracy"] for entry in own if entry["task"] == "recall"]
        kept = "".join(f"{share:.1%}" for share in _kept(recall))
        rows.append(
            [
                name,
                mean_and_spread([entry["bits"] for entry in own if entry["task"] == "text"], SEEDS),
                *(mean_and_spread([accuracy[at] for accuracy in recall], SEEDS) for at in range(len(LONGER))),
                kept,
            ]
        )
    note = (
        f"Ratio {RATIO}; bits per byte of text after {STEPS['text']} steps; the share of digits recalled after "
        f"{STEPS['recall']} steps (chance 0.10), at the length of training and beyond; the mean over seeds ± the "
        "furthest of them. Kept: accuracy at the longest over that at the shortest."
    )
    header = ["encoding", "text", *(f"recall at {times}x" for times in LONGER), "kept"]
    return f"{note}\n\n{markdown(header, rows)}"


def targets() -> list[Target]:
    """What coarse marks cost on text, and how far beyond training they serve."""
    return [
        Target(f"{COARSE}: bits of text beyond full precision", 0.01, _dearer, at_most=True, seeds=SEEDS, form=".2%"),
        Target(f"{COARSE}: accuracy at {LONGER[-1]} times the length, of that at 1", 0.95, _longer, form=".1%"),
    ]


def _dearer(runs: Sequence[Run]) -> list[float]:
    """The share by which a seed's bits are more than in full precision."""
    coarse, fine = (where(runs, task="text", encoding=name) for name in (COARSE, FINE))
    return [a["bits"] / b["bits"] - 1 for a, b in paired(coarse, fine)]


def _longer(runs: Sequence[Run]) -> list[float]:
    return _kept([entry["accuracy"] for entry in where(runs, task="recall", encoding=COARSE)])


def _kept(accuracies: Sequence[Sequence[float]]) -> list[float]:
    """The accuracy at the longest over that at the shortest, of all seeds together; none where there is none."""
    near, far = (sum(accuracy[at] for accuracy in accuracies) for at in (0, -1))
    return [far / near] if near else []


def _member(task: str, name: str, seed: int, steps: int, source: str | None) -> Run:
    found = tasks.trained(
        task,
        functools.partial(
            tasks.model_of, task, functools.partial(_compressor, name), **(ANY_LENGTH if task == "recall" else {})
        ),
        seed=seed,
        steps=steps,
        source=source,
        besides=(lambda model, _: _accuracy(model)) if task == "recall" else None,
    )
    return {"task": task, "encoding": name, "seed": seed, "steps": steps} | found


def _compressor(name: str) -> wc.Compressor:
    return makers.wavelet(
        wc.DWT1d("haar", level=LEVEL), wc.KeepLowpass(CHUNK // RATIO), dim=DIM, encoding=ENCODINGS[name]()
    )


@torch.no_grad()
def _accuracy(model: nn.Module) -> Run:
    """The share of digits that are likeliest, by length."""
    shares = []
    for times in LONGER:
        right = asked = 0
        data = RecallDataModule(keys=tasks.KEYS, length=tasks.RECALL_LENGTH * times, validation_samples=ROWS)
        for batch in data.val_dataloader():
            hits = model(batch["tokens"]).argmax(-1) == batch["tokens"]
            right += int((hits & batch["answers"]).sum())
            asked += int(batch["answers"].sum())
        shares.append(right / asked)
    return {"accuracy": shares, "longer": LONGER}
