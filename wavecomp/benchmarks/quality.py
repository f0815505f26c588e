"""``quality``: every compressor at equal kept codes and equal steps, where codes matter.

Each member of the grid (task, ratio, seed, compressor) trains one small model; the tasks are those of
:mod:`wavecomp.benchmarks.tasks`. Three members are another model altogether, the last two floors to stand on:

stacked      on ``text`` and ``text-16k``, the same in rows of 16,384 bytes: two stages, and all blocks in the decoder.
window       beside it, with as many parameters: no codes, but a Transformer that looks back as far per block as the
             decoder of the others. Trained for as many steps, and anew for as many as take as long as stacked.
map-reduce   each chunk is encoded alone and pooled to as many codes; no code reads another. Its blocks are as many as
             those of the compressors.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

import wavecomp as wc
from wavecomp.benchmarks import grid, makers, measure, pictures, tasks
from wavecomp.benchmarks.makers import Maker
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.models import WindowModel, random_bytes, step_of
from wavecomp.benchmarks.tables import bits_by_task, markdown, mean_and_spread, span
from wavecomp.benchmarks.targets import Target, lead, paired, where
from wavecomp.benchmarks.tasks import CHUNK, DIM, HEADS
from wavecomp.report.figure import Drawing
from wavecomp.training.data.samples import SampleDataModule

SEEDS = 3
STEPS = {"copy": 800, "recall": 1600, "rate": 300, "uneven": 300, "text": 400, "text-16k": 200}
ALIKE = (8, 16)  # ratios of uneven that all chunks can have
BETWEEN = 12.8  # 1 code for a chunk of the sentence leaves one of prose the 4 that it has at ratio 8
RATIOS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("copy", "recall", "rate"), (4, 8, 16)),
    **{"uneven": (ALIKE[0], BETWEEN, ALIKE[1]), "text": (4, 8), "text-16k": (8,)},
}
OURS, STACKED, MAP_REDUCE, WINDOW = "lowpass+channel", "stacked", "map-reduce", "window"
CLAIMED = "partial+channel"  # what is put forward, beside the baselines that it is to be ahead of
DIRECT = "partial-direct+channel"  # the same where training does not begin with more codes
PREDICTED = "partial-predicted+channel"  # the same by what a predictor missed, with levels down to one code
ADAPTING = (CLAIMED, PREDICTED)  # where half of the text needs next to nothing
BESIDE_WINDOW = (OURS, STACKED, WINDOW)  # of long rows, and of text at other ratios than the one that all are tried at
LEADING = (OURS, "lowpass", CLAIMED, "mean", "strided", "wide-strided", "dct", "random-k+channel")
BASELINES = (
    *("lowpass", "mean", "max", "strided", "wide-strided", "latents"),
    *("dct", "measurements", "surprisal", "random-k+channel"),
)
EVERYTHING_AT = 8  # the ratio that all are tried at; at the others those that lead, or are claimed to be behind
PAIRS = 9  # of steps that are timed by turns


def members(options: Options) -> dict[str, grid.Member]:
    """By task, ratio, seed and compressor."""
    found: dict[str, grid.Member] = {}
    for task, ratio, seed, name in _grid(options.small):
        member = _window if name == WINDOW else _member
        steps = 3 if options.small else STEPS[task]
        found[f"{task}-{ratio}-{seed}-{name}"] = functools.partial(
            member, task, name, ratio, seed, steps, options.source
        )
    return found


def table(runs: Sequence[Run]) -> str:
    """Per ratio: bits of what is asked for, by compressor and task, with the gain on text and the ratio reached."""
    runs = [*runs, *map(_at_equal_time, (entry for entry in runs if "equal_time" in entry))]
    parts = [
        "Bits per symbol of copy (chance 4.00), per digit of recall (chance 3.32), per byte of rate and uneven (an "
        "autoencoder's reconstruction) and of text (a language model's); the mean over seeds ± the furthest of them. "
        "Gain: what text costs more with the codes hidden. Partial is `PartialSynthesis`, whose training begins with "
        "more codes, but for `direct`, and whose levels go by how loud a chunk is, or, `predicted`, by what a "
        "`DetailPredictor` missed of it; leaves are `DyadicLeaves`; uneven is rate where one sentence stands in every "
        f"other {2 * CHUNK} bytes; codes of a chunk are the fewest and the most of any, uneven left out; "
        f"with a channel, details travel under each code. Models are {DIM} wide, chunks {CHUNK} long; "
        + ", ".join(f"{task} {steps}" for task, steps in STEPS.items())
        + f" steps of {tasks.ROWS} rows, text-16k of one of {tasks.LONG_TEXT:,} bytes. Stacked is a model of two "
        "stages, at that ratio in the first; all that it makes are a quarter more codes, and those that coarser ones "
        "stand in for are seen no more. The window has as many parameters as that, and at equal time as long to train."
    ]
    for ratio in sorted({entry["asked"] for entry in runs}):
        mine = [entry for entry in runs if entry["asked"] == ratio]
        present = [task for task in STEPS if any(entry["task"] == task for entry in mine)]
        counted = any(map(_told_of_chunks, mine))
        rows = []
        for name, own, figures in bits_by_task(mine, "compressor", present, SEEDS):
            gains = [entry["gain"] for entry in own if entry["task"] == "text"]
            reached = [entry["ratio"] for entry in own if entry["ratio"] is not None]
            of_chunks = [span([count for entry in own for count in _told_of_chunks(entry)], "d")] if counted else []
            sizes = span([entry["parameters"] / 1000 for entry in own], ".0f")
            gain = [mean_and_spread(gains, SEEDS)] if "text" in present else []
            rows.append([name, *figures, *gain, span(reached), *of_chunks, sizes])
        gain = ["gain on text"] if "text" in present else []
        of_chunks = ["codes of a chunk"] if counted else []
        header = ["compressor", *present, *gain, "ratio reached", *of_chunks, "parameters, thousands"]
        parts += [f"Ratio {ratio}:", markdown(header, rows)]
    return "\n\n".join(parts)


def _told_of_chunks(entry: Run) -> Sequence[int]:
    """How many codes chunks have, but where a text is of two kinds."""
    return () if entry["task"] == "uneven" else entry.get("codes_of_chunks", ())


def figure(runs: Sequence[Run]) -> Drawing:
    """Bits by compressor, task by task."""
    return pictures.bits_by_task(runs, "compressor")


def targets() -> list[Target]:
    """The adaptive wavelet beside the baselines, and the model of two stages beside the window."""
    found = [
        Target(
            f"{task}, ratio {ratio}: lead of PartialSynthesis over the best baseline, less the spread of seeds, bits",
            0.0,
            functools.partial(_lead, task, ratio),
            form=".3f",
        )
        for task in ("copy", "rate", "recall", "text")
        for ratio in (RATIOS[task] if task != "text" else (EVERYTHING_AT,))
    ]
    for fixed in ALIKE:
        what = f"half one sentence, ratio {fixed}: lead of PartialSynthesis with a DetailPredictor over {OURS}, less "
        led = functools.partial(_lead, "uneven", fixed, claimed=PREDICTED, peers=(OURS,))
        found.append(Target(f"{what}the spread of seeds, bits", 0.0, led, form=".3f"))
    what = f"half one sentence, ratio {BETWEEN}: lead of PartialSynthesis with a DetailPredictor over the line between "
    found.append(
        Target(f"{what}{OURS} at {ALIKE[0]} and {ALIKE[1]}, less the spread, bits", 0.0, _under_line, form=".3f")
    )
    for ratio in RATIOS["text"]:
        what = f"text, {ratio} bytes for each code of the first stage: bits of {STACKED} beyond the window's"
        beyond = functools.partial(_beyond_window, "text", ratio, False)
        found.append(Target(what, 0.02, beyond, at_most=True, seeds=SEEDS, form=".1%"))
    for ratio in RATIOS["text-16k"]:
        what = f"text in rows of 16,384 bytes, {ratio} for each code, equal time: bits of {STACKED} beyond the window's"
        beyond = functools.partial(_beyond_window, "text-16k", ratio, True)
        found.append(Target(what, 0.0, beyond, at_most=True, seeds=SEEDS, form=".1%"))
    return found


def _lead(
    task: str, ratio: float, runs: Sequence[Run], *, claimed: str = CLAIMED, peers: Sequence[str] = BASELINES
) -> list[float]:
    """Over the peer of the least bits, of those with all seeds, less the spread of whichever spreads more."""
    bits = {
        name: [entry["bits"] for entry in where(runs, task=task, asked=ratio, compressor=name)]
        for name in (claimed, *peers)
    }
    complete = {name: values for name, values in bits.items() if len(values) == SEEDS}
    own = complete.pop(claimed, None)
    if own is None or not complete:
        return []
    return [lead(own, min(complete.values(), key=statistics.mean))]


def _under_line(runs: Sequence[Run]) -> list[float]:
    """Over what the best that does not adapt would reach by having some chunks at either ratio beside it."""
    more, fewer = (where(runs, task="uneven", asked=ratio, compressor=OURS) for ratio in ALIKE)
    most, least = (1 / ratio for ratio in ALIKE)
    share = (1 / BETWEEN - least) / (most - least)
    line = [share * one["bits"] + (1 - share) * other["bits"] for one, other in paired(more, fewer)]
    own = [entry["bits"] for entry in where(runs, task="uneven", asked=BETWEEN, compressor=PREDICTED)]
    return [lead(own, line)] if min(len(own), len(line)) == SEEDS else []


def _beyond_window(task: str, ratio: float, equal_time: bool, runs: Sequence[Run]) -> list[float]:
    """The share by which a seed's bits are more than those of the window."""
    own, window = (where(runs, task=task, asked=ratio, compressor=name) for name in (STACKED, WINDOW))
    return [one["bits"] / (peer["equal_time"] if equal_time else peer)["bits"] - 1 for one, peer in paired(own, window)]


def compressors(ratio: float) -> dict[str, Maker]:
    """Name to maker, at ``CHUNK / ratio`` codes per chunk, on average where they adapt."""
    count, fixed, deep = int(CHUNK / ratio), int(math.log2(ratio)), int(math.log2(CHUNK))
    narrow = DIM // 4  # for about as many parameters under deep trees as under those of one code

    def wavelet(pruner: wc.Pruner, *, level: int = fixed, **more: Any) -> Maker:
        return lambda: makers.wavelet(wc.DWT1d("haar", level=level), pruner, dim=DIM, **more)

    def marked(kind: type, **more: int) -> Maker:
        return lambda: kind(**more, encoding=wc.PositionFrequencyEncoding(DIM))

    found: dict[str, Maker] = {
        OURS: wavelet(wc.KeepLowpass(count)),
        "lowpass": wavelet(wc.KeepLowpass(count), channel=False),
        # once more coarse than on average, and anything finer
        CLAIMED: lambda: makers.partial_synthesis(ratio, dim=DIM, level=fixed + 1),
        DIRECT: lambda: makers.partial_synthesis(ratio, dim=DIM, level=fixed + 1, start=1.0),
        # as coarse as one code for a chunk
        PREDICTED: lambda: makers.partial_synthesis(ratio, dim=DIM, level=deep, predicted=True),
        "mean": marked(wc.MeanPoolCompressor, count=count),
        "max": marked(wc.MaxPoolCompressor, count=count),
        "strided": marked(wc.StridedConvCompressor, dim=DIM, count=count, chunk_length=CHUNK),
        # as many parameters as partial+channel has; the one before as many as ours
        "wide-strided": marked(
            wc.StridedConvCompressor, dim=DIM, count=count, chunk_length=CHUNK, kernel=2 * CHUNK // count
        ),
        "latents": marked(wc.LatentQueriesCompressor, dim=DIM, heads=HEADS, count=count),
        "dct": marked(wc.DCTCompressor, count=count),
        # what an encoding had marked would be no measurements
        "measurements": lambda: wc.RandomMeasurementCompressor(
            count=count, recovery=wc.SparseRecovery(transform=wc.DWT1d("haar", level=fixed))
        ),
        "surprisal": marked(wc.SurprisalDropCompressor, dim=DIM, count=count),
        "none": lambda: wc.NoCodes(),
        "all": marked(wc.NoCompression),
    }
    if count >= 4:  # the approximation, always kept, is at most a quarter
        found["leaves+channel"] = lambda: makers.leaves(ratio, dim=DIM, level=deep, width=narrow)
        found["shrinkage+channel"] = lambda: makers.shrinkage(ratio, dim=DIM, level=deep, width=narrow)
        found["top-k+channel"] = wavelet(wc.TopK(count), level=deep, width=narrow)
        found["random-k+channel"] = wavelet(wc.RandomK(count), level=deep, width=narrow)
    return found


def model_of(task: str, name: str, ratio: float) -> nn.Module:
    """The model of a task around a compressor, the one for long texts, or the floor without a second network."""
    if name == STACKED:
        return tasks.stacked(compressors(ratio)[OURS]())
    if name != MAP_REDUCE:
        return tasks.model_of(task, compressors(ratio)[name])
    return tasks.model_of(task, compressors(ratio)["mean"], before=sum(tasks.around(task).values()), after=0)


def window_model(ratio: float) -> WindowModel:
    """As many parameters as :data:`STACKED` has at a ratio, and as far a look back per block as its decoder."""
    make = functools.partial(WindowModel, dim=DIM, heads=HEADS, layers=9, window=CHUNK)
    with torch.device("meta"):  # nothing is drawn
        wanted = tasks.parameters(model_of("text", STACKED, ratio))
        least, next_one = (tasks.parameters(make(hidden=hidden)) for hidden in (1, 2))
    return make(hidden=1 + round((wanted - least) / (next_one - least)))


def _grid(small: bool) -> Iterator[tuple[str, float, int, str]]:
    for task, seed in itertools.product(STEPS, range(1 if small else SEEDS)):
        for ratio in (EVERYTHING_AT,) if small else RATIOS[task]:
            everything = list(compressors(ratio))
            if task == "uneven":  # no other has a number of codes in between; at the rest that which leads on rate
                names = [*ADAPTING, *([OURS] if ratio in ALIKE else [])]
            elif task == "text-16k" or (task == "text" and ratio != EVERYTHING_AT):
                names = [*BESIDE_WINDOW]
            elif ratio == EVERYTHING_AT:
                everything = [name for name in everything if name != PREDICTED or task in tasks.READ_BACK]
                names = [*everything, MAP_REDUCE, *([STACKED, WINDOW] if task == "text" else [])]
            else:
                names = [name for name in everything if name in LEADING]
            for name in names:
                yield task, ratio, seed, name


def _member(task: str, name: str, ratio: float, seed: int, steps: int, source: str | None) -> Run:
    make = functools.partial(model_of, task, name, ratio)
    found = tasks.trained(task, make, seed=seed, steps=steps, source=source, besides=_codes_of_chunks)
    return {"task": task, "compressor": name, "asked": ratio, "seed": seed, "steps": steps} | found


@torch.no_grad()
def _codes_of_chunks(model: nn.Module, data: SampleDataModule) -> Run:
    """The least and the most codes that a whole chunk of the first batch of validation has."""
    batch: Any = next(iter(data.val_dataloader()))
    told = model.encode(batch["tokens"], batch.get("lengths")).statistics  # type: ignore[operator]
    places, kept = (told[f"chunk_networks.0.{name}"] for name in ("places", "kept"))
    kept = kept[places == CHUNK]
    return {"codes_of_chunks": [int(kept.min()), int(kept.max())]}


def _window(task: str, name: str, ratio: float, seed: int, steps: int, source: str | None) -> Run:
    """The window beside stacked: steps of both are timed by turns, then it is trained for as many and for as long."""
    stacked = functools.partial(model_of, task, STACKED, ratio)
    device = measure.device()
    rows, length = (1, tasks.LONG_TEXT) if task == "text-16k" else (tasks.ROWS, tasks.TEXT_LENGTH)
    tokens = random_bytes(rows, length, device)
    window = functools.partial(window_model, ratio)
    models = {STACKED: stacked().to(device), name: window().to(device)}
    calls = {key: functools.partial(step_of(model), tokens) for key, model in models.items()}
    seconds = measure.interleaved(calls, PAIRS)
    as_long = max(1, round(steps * measure.ratio(seconds[STACKED], seconds[name])))
    train = functools.partial(tasks.trained, task, seed=seed, source=source)
    return {
        "task": task,
        "compressor": name,
        "asked": ratio,
        "seed": seed,
        "steps": steps,
        **train(window, steps=steps),
        "equal_time": {"steps": as_long, "bits": train(window, steps=as_long)["bits"]},
        "step_seconds": seconds,
    }


def _at_equal_time(entry: Run) -> Run:
    return entry | entry["equal_time"] | {"compressor": f"{entry['compressor']}, equal time"}
