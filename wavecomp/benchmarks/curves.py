"""Rate and distortion of one model at several ratios: the part of ``ratio`` that trains autoencoders.

The models and the text are those of ``rate`` in :mod:`wavecomp.benchmarks.quality`. Each is trained once. What adapts
is trained at one ratio and calibrated to each that is asked for; its peer keeps as many codes of every chunk, at ratios
that were drawn anew at each step.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

from torch import Tensor

import wavecomp as wc
from wavecomp.benchmarks import grid, makers, tasks
from wavecomp.benchmarks.measure import Run, device
from wavecomp.benchmarks.tables import markdown, mean_and_spread
from wavecomp.benchmarks.targets import Target, lead, where
from wavecomp.benchmarks.tasks import CHUNK, DIM
from wavecomp.training.brief import seed_everything, train, validate

STEPS, SEEDS = 300, 3
RATIOS = tuple(CHUNK / count for count in (8, 6, 4))  # an approximation that always stays is at most a quarter
TRAINED_AT = RATIOS[1]
LEVEL, WIDTH = 5, DIM // 4
FIXED = "same for all"


def _elastic(ratio: float) -> wc.Compressor:
    pruner = wc.ElasticRatio(least=RATIOS[0], most=RATIOS[-1])
    return makers.wavelet(wc.DWT1d("haar", level=LEVEL), pruner, dim=DIM, width=WIDTH)


COMPRESSORS: dict[str, Callable[[float], wc.Compressor]] = {
    FIXED: _elastic,
    "Shrinkage": functools.partial(makers.shrinkage, dim=DIM, level=LEVEL, width=WIDTH),
    "DyadicLeaves": functools.partial(makers.leaves, dim=DIM, level=LEVEL, width=WIDTH),
    "PartialSynthesis": functools.partial(makers.partial_synthesis, dim=DIM, level=LEVEL - 1, width=WIDTH),
}


def members(small: bool, source: str | None) -> dict[str, grid.Member]:
    """By seed and compressor."""
    steps = 3 if small else STEPS
    return {
        f"curve-{seed}-{name.replace(' ', '-')}": functools.partial(_curve, name, seed, steps, source)
        for seed, name in itertools.product(range(1 if small else SEEDS), COMPRESSORS)
    }


def table(runs: Sequence[Run]) -> str:
    """Bits by compressor and ratio; nothing where there are no runs."""
    if not runs:
        return ""
    rows = []
    for name in dict.fromkeys(entry["compressor"] for entry in runs):
        mine = [point for entry in runs if entry["compressor"] == name for point in entry["points"]]
        at = [[point for point in mine if point["asked"] == ratio] for ratio in RATIOS]
        bits = [mean_and_spread([point["bits"] for point in each], SEEDS) for each in at]
        off = max(abs(point["ratio"] / point["asked"] - 1) for point in mine)
        rows.append([name, *bits, f"{off:.2%}"])
    note = (
        "Rate and distortion, adaptive against fixed: bits per byte of an autoencoder's reconstruction at each ratio, "
        f"one model for all of them. What adapts is trained at {TRAINED_AT:.3g} and calibrated to each; `{FIXED}` "
        f"keeps equally many codes of every chunk, trained at ratios between. {STEPS} steps; mean over seeds ± the "
        "furthest of them; off by: the worst of all ratios reached."
    )
    return f"{note}\n\n{markdown(['compressor', *(f'ratio {ratio:.3g}' for ratio in RATIOS), 'off by'], rows)}"


def targets() -> list[Target]:
    """What adapts beside what does not."""
    return [
        Target(
            f"rate and distortion, {name}: least lead over as many codes of every chunk, less the spread, bits",
            0.0,
            functools.partial(_lead, name),
            form=".3f",
        )
        for name in COMPRESSORS
        if name != FIXED
    ]


def _lead(name: str, runs: Sequence[Run]) -> list[float]:
    own, fixed = (where(runs, what="curve", compressor=one) for one in (name, FIXED))
    if min(len(own), len(fixed)) < SEEDS:
        return []
    leads = []
    for ratio in RATIOS:
        mine, theirs = (
            [point["bits"] for entry in entries for point in entry["points"] if point["asked"] == ratio]
            for entries in (own, fixed)
        )
        leads.append(lead(mine, theirs))
    return [min(leads)]


def points(runs: Sequence[Run]) -> list[Run]:
    """A record of each point, for a picture."""
    return [
        {
            "compressor": entry["compressor"],
            "seed": entry["seed"],
            "asked": point["asked"],
            "codes_per_byte": 1 / point["ratio"],
            "bits_per_byte": point["bits"],
        }
        for entry in runs
        for point in entry["points"]
    ]


def _curve(name: str, seed: int, steps: int, source: str | None) -> Run:
    seed_everything(seed)
    data = tasks.data_of("rate", seed, source)
    model = tasks.autoencoder(COMPRESSORS[name](TRAINED_AT))
    module = tasks.module_of("rate", model, steps=steps)
    train(module, data, steps=steps)
    batches = [batch["tokens"].to(device()) for batch in data.val_dataloader()]
    reached = []
    for ratio in RATIOS:
        _set_ratio(model.eval().to(device()), name, ratio, batches)  # Lightning leaves it on the CPU each time
        found = validate(module, data)
        reached.append({"asked": ratio, "ratio": found["val/compression_ratio"], "bits": found["val/bits_per_byte"]})
    return {
        "what": "curve",
        "compressor": name,
        "seed": seed,
        "steps": steps,
        "parameters": tasks.parameters(model),
        "points": reached,
    }


def _set_ratio(model: wc.ChunkReduceAutoencoder, name: str, ratio: float, batches: Sequence[Tensor]) -> None:
    if name != FIXED:
        wc.calibrate(model, batches, ratio)
        return
    for module in model.modules():
        if isinstance(module, wc.ElasticRatio):
            module.ratio = ratio
