"""``wavelets``: filter banks and transforms at equal kept codes and equal steps.

The models and tasks are those of ``quality``, at ratio 4. Of most transforms the approximation is kept, which is as
many codes for all; those that are dyadic come with a detail channel too, which hands on what is pruned. Of packets
the loudest are kept, and beside them those of the Haar wavelet.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import wavecomp as wc
from wavecomp.benchmarks import grid, makers, pictures, tasks
from wavecomp.benchmarks.makers import Maker
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.tables import bits_by_task, markdown
from wavecomp.benchmarks.tasks import CHUNK, DIM
from wavecomp.report.figure import Drawing

RATIO, SEEDS = 4, 3
COUNT, LEVEL, DEEP = CHUNK // RATIO, 2, 4
STEPS = {"copy": 600, "rate": 200}
BANKS: dict[str, Callable[[], wc.FilterBank]] = {
    "haar": lambda: wc.WaveletFilterBank("haar"),
    "db2": lambda: wc.WaveletFilterBank("db2"),
    "db4": lambda: wc.WaveletFilterBank("db4"),
    "5-3-lifting": lambda: wc.LiftingFilterBank("bior2.2").requires_grad_(False),
    "learned-lattice": lambda: wc.OrthogonalFilterBank("db4"),
    "learned-lifting": lambda: wc.LiftingFilterBank("bior2.2"),
    "neural-lifting": lambda: wc.NeuralLiftingFilterBank(dim=DIM),
}
"""Of two branches; those that are learned begin as the fixed ones of their kind, db4 and 5/3."""


def members(options: Options) -> dict[str, grid.Member]:
    """By task, seed and transform."""
    steps = dict.fromkeys(STEPS, 3) if options.small else STEPS
    return {
        f"{task}-{seed}-{name}": functools.partial(_member, task, name, seed, steps[task], options.source)
        for seed, task, name in itertools.product(range(1 if options.small else SEEDS), STEPS, compressors())
    }


def table(runs: Sequence[Run]) -> str:
    """Bits of both tasks by transform, the least bits of the first task on top."""
    present = [task for task in STEPS if any(entry["task"] == task for entry in runs)]
    rows = [
        [name, *figures, f"{own[0]['learned']:,}"]
        for name, own, figures in bits_by_task(runs, "transform", present, SEEDS)
    ]
    note = (
        f"Ratio {RATIO}; bits per symbol of copy (chance 4.00) after {STEPS['copy']} steps, per byte of rate (an "
        f"autoencoder's reconstruction) after {STEPS['rate']}; the mean over seeds ± the furthest of them."
    )
    header = ["transform", *present, "learned by the transform"]
    return f"{note}\n\n{markdown(header, rows)}"


def figure(runs: Sequence[Run]) -> Drawing:
    """Bits by transform, task by task."""
    return pictures.bits_by_task(runs, "transform")


def compressors() -> dict[str, Maker]:
    """Name to maker, at ``COUNT`` codes per chunk."""

    def wavelet(transform: Callable[[], wc.ChunkTransform], pruner: wc.Pruner, *, channel: bool = False) -> Maker:
        return lambda: makers.wavelet(transform(), pruner, dim=DIM, channel=channel)

    def lowpass(bank: Callable[[], wc.FilterBank], channel: bool) -> Maker:
        return wavelet(lambda: wc.DWT1d(bank(), level=LEVEL), wc.KeepLowpass(COUNT), channel=channel)

    def loudest(transform: type[wc.DWT1d]) -> Maker:
        return wavelet(lambda: transform("haar", level=DEEP), wc.TopK(COUNT))

    return {
        **{name: lowpass(bank, False) for name, bank in BANKS.items()},
        **{f"{name}+channel": lowpass(bank, True) for name, bank in BANKS.items()},
        "4-band": wavelet(lambda: wc.DWT1d(wc.MBandFilterBank(RATIO), level=1), wc.KeepLowpass(COUNT)),
        "haar-2d": wavelet(lambda: wc.DWT2d("haar", level=LEVEL), wc.KeepLowpass(COUNT)),
        "haar+top-k": loudest(wc.DWT1d),
        "packets+top-k": loudest(wc.WaveletPackets1d),
        "best-basis+top-k": loudest(wc.BestBasis1d),
    }


def _member(task: str, name: str, seed: int, steps: int, source: str | None) -> Run:
    make = compressors()[name]
    make_model = functools.partial(tasks.model_of, task, make)
    found = tasks.trained(task, make_model, seed=seed, steps=steps, source=source)
    compressor: Any = make()
    learned = sum(p.numel() for p in compressor.transform.parameters() if p.requires_grad)
    return {"task": task, "transform": name, "seed": seed, "steps": steps, "learned": learned} | found
