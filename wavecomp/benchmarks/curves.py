"""Rate and distortion of one model at several ratios: the part of ``ratio`` that trains autoencoders.

The models and the text are those of ``rate`` in :mod:`wavecomp.benchmarks.quality`. Each is trained once. What adapts
is trained at one ratio and calibrated to each that is asked for; its peer keeps as many codes of every chunk, at ratios
that were drawn anew at each step. And again where half of the text is one sentence: what adapting is worth where there
is something to adapt to.
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
CURVE, UNEVEN = "curve", "uneven"
TASKS = {CURVE: "rate", UNEVEN: "uneven"}
"""By what a run is of, the task of :mod:`wavecomp.benchmarks.tasks`."""


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
    """By text, seed and compressor."""
    steps = 3 if small else STEPS
    return {
        f"{what}-{seed}-{name.replace(' ', '-')}": functools.partial(_curve, what, name, seed, steps, source)
        for what, seed, name in itertools.product(TASKS, range(1 if small else SEEDS), COMPRESSORS)
    }


def table(runs: Sequence[Run]) -> str:
    """Bits by compressor and ratio, a table for each text; nothing where there are no runs."""
    if not runs:
        return ""
    note = (
        "Rate and distortion, adaptive against fixed: bits per byte of an autoencoder's reconstruction at each ratio, "
        f"one model for all of them. What adapts is trained at {TRAINED_AT:.3g} and calibrated to each; `{FIXED}` "
        f"keeps equally many codes of every chunk, trained at ratios between. {STEPS} steps; mean over seeds ± the "
        "furthest of them; off by: the worst of all ratios reached."
    )
    parts = [note, _table(where(runs, what=CURVE))]
    if uneven := where(runs, what=UNEVEN):
        parts += ["The same where one sentence stands in every other 64 bytes:", _table(uneven)]
    return "\n\n".join(parts)


def _table(runs: Sequence[Run]) -> str:
    rows = []
    for name in dict.fromkeys(entry["compressor"] for entry in runs):
        mine = [point for entry in runs if entry["compressor"] == name for point in entry["points"]]
        at = [[point for point in mine if point["asked"] == ratio] for ratio in RATIOS]
        bits = [mean_and_spread([point["bits"] for point in each], SEEDS) for each in at]
        off = max(abs(point["ratio"] / point["asked"] - 1) for point in mine)
        rows.append([name, *bits, f"{off:.2%}"])
    return markdown(["compressor", *(f"ratio {ratio:.3g}" for ratio in RATIOS), "off by"], rows)


def targets() -> list[Target]:
    """What adapts beside what does not."""
    return [
        Target(
            f"rate and distortion{told}, {name}: least lead over as many codes of every chunk, less the spread, bits",
            0.0,
            functools.partial(_lead, what, name),
            form=".3f",
        )
        for (what, told), name in itertools.product(((CURVE, ""), (UNEVEN, ", half one sentence")), COMPRESSORS)
        if name != FIXED
    ]


def _lead(what: str, name: str, runs: Sequence[Run]) -> list[float]:
    own, fixed = (where(runs, what=what, compressor=one) for one in (name, FIXED))
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
        for entry in where(runs, what=CURVE)
        for point in entry["points"]
    ]


def _curve(what: str, name: str, seed: int, steps: int, source: str | None) -> Run:
    seed_everything(seed)
    data = tasks.data_of(TASKS[what], seed, source)
    model = tasks.autoencoder(COMPRESSORS[name](TRAINED_AT))
    module = tasks.module_of(TASKS[what], model, steps=steps)
    train(module, data, steps=steps)
    batches = [batch["tokens"].to(device()) for batch in data.val_dataloader()]
    reached = []
    for ratio in RATIOS:
        _set_ratio(model.eval().to(device()), name, ratio, batches)  # Lightning leaves it on the CPU each time
        found = validate(module, data)
        reached.append({"asked": ratio, "ratio": found["val/compression_ratio"], "bits": found["val/bits_per_byte"]})
    return {
        "what": what,
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
