"""``ratio``: the ratio that is asked for against the one that is delivered, while training and after calibration.

A small language model is trained on text with an adaptive compressor. Given are the ratio during the last tenth of
training on the batches that are trained on, which is what the controller holds, and its mean on validation text, that
after calibration on this text, and that of every other batch of it after calibration on those between, which says how
much texts differ.
What a ratio costs is in :mod:`wavecomp.benchmarks.curves`.
With ``--source`` prose and noise are mixed too: every other chunk holds the same sentence, and given is how many codes
a chunk of prose has for each of a chunk of the sentence.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import wavecomp as wc
from wavecomp.benchmarks import curves, grid, makers, pictures
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.mixed import MixedTextDataModule
from wavecomp.benchmarks.models import byte_model
from wavecomp.benchmarks.tables import markdown, mean_and_spread
from wavecomp.benchmarks.targets import Target, where
from wavecomp.report.figure import Drawing
from wavecomp.training import LanguageModelModule, TextDataModule
from wavecomp.training.brief import seed_everything, train
from wavecomp.training.data.text import PYTHON_STDLIB

DIM, CHUNK, LEVEL, LENGTH, BATCH = 64, 128, 7, 256, 32  # many short rows: a few long ones differ more from the next
ASKED = (4.0, 8.0, 16.0)
SEEDS = 3
EXTREMES = (2.0, 32.0)  # for one compressor
VALIDATION = 1280  # rows: all of the validation share of a few megabytes, since the ratio of single rows differs much
LOUDEST = "Shrinkage-loudest"  # one threshold for all
PRICED = "Shrinkage-price"  # the same where half of the text says nothing
PREDICTED = "PartialSynthesis-predicted"  # levels go by what a predictor missed
SIZE: dict[str, Any] = {"dim": DIM, "level": LEVEL, "width": DIM // 8}
COMPRESSORS: dict[str, Callable[[float], wc.Compressor]] = {
    "Shrinkage": functools.partial(makers.shrinkage, **SIZE),
    LOUDEST: functools.partial(makers.shrinkage, spread=0.0, **SIZE),
    PRICED: functools.partial(makers.shrinkage, price=0.05, spread=0.0, **SIZE),
    "DyadicLeaves": functools.partial(makers.leaves, **SIZE),
    "PartialSynthesis": functools.partial(makers.partial_synthesis, **SIZE),
    PREDICTED: functools.partial(makers.partial_synthesis, predicted=True, **SIZE),
}


def members(options: Options) -> dict[str, grid.Member]:
    """By compressor, target and seed, on text; on text with a sentence in between as well where a source is given."""
    steps, seeds, targets = (20, 1, (8.0,)) if options.small else (400, SEEDS, ASKED)
    text: dict[str, Any] = {"source": options.source, "steps": steps, "validation": 64 if options.small else VALIDATION}
    found: dict[str, grid.Member] = {}
    for seed, name in itertools.product(range(seeds), COMPRESSORS):
        more = EXTREMES if name == "Shrinkage" and not options.small else ()
        for target in (*targets, *more) if name != PRICED else ():
            found[f"text-{target:g}-{seed}-{name}"] = functools.partial(_text, name, target, seed, **text)
        if options.source is not None:
            found[f"mixed-8-{seed}-{name}"] = functools.partial(_mixed, name, 8.0, seed, **text)
    return found | curves.members(options.small, options.source)


def table(runs: Sequence[Run]) -> str:
    """What was asked for and what was reached, and the curves of rate and distortion."""
    others, of_curves = _parts(runs)
    return "\n\n".join(filter(None, (_table(others) if others else "", curves.table(of_curves))))


def _table(runs: Sequence[Run]) -> str:
    """Mean over seeds, and how far the worst of them is off."""
    rows = []
    for what, name, asked in dict.fromkeys((r["what"], r["compressor"], r["asked"]) for r in runs):
        mine = [r for r in runs if (r["what"], r["compressor"], r["asked"]) == (what, name, asked)]
        row = [what, name, f"{asked:g}"]
        for key in ("held", "trained", "calibrated"):
            ratios = [r[key] for r in mine if key in r]
            worst = max((abs(ratio / asked - 1) for ratio in ratios), default=None)
            row += [mean_and_spread(ratios, SEEDS), "" if worst is None else f"{worst:.2%}"]
        row.append(mean_and_spread([r["unseen"] for r in mine if "unseen" in r], SEEDS))
        row.append(mean_and_spread([r["prose"] / r["sentence"] for r in mine if what == "mixed"], SEEDS, ".2f"))
        rows.append(row)
    note = (
        "Asked is the ratio that a controller was given, held the one of the batches of the last tenth of training, "
        "trained the one on validation text meanwhile, calibrated that after calibration on this text, unseen that of "
        "every other batch of it after calibration on those between; mean over seeds ± the furthest of them. Mixed: "
        "every other chunk is one sentence; codes of a chunk of prose for each of such a chunk. Predicted: by what a "
        "`DetailPredictor` missed of a chunk."
    )
    ratios = [word for key in ("held", "trained", "calibrated") for word in (key, "worst")]
    header = ["what", "compressor", "asked", *ratios, "unseen", "prose : sentence"]
    return f"{note}\n\n{markdown(header, rows)}"


def targets() -> list[Target]:
    """How far the ratio is off at worst, what notices noise, and what adapting is worth."""
    found = [
        Target(
            f"{name} {told}: ratio off by, the worst of {', '.join(f'{ratio:g}' for ratio in ASKED)}",
            bound,
            functools.partial(_off, name, key),
            at_most=True,
            form=".2%",
        )
        for key, told, bound in (
            ("trained", "in training, on validation text", 0.02),
            ("calibrated", "calibrated", 0.005),
        )
        for name in ("PartialSynthesis", PREDICTED, "Shrinkage", "DyadicLeaves")
    ]
    for name in (PRICED, PREDICTED):
        what = f"{name}, half of the text one sentence: codes of prose for each of that"
        found.append(Target(what, 3.0, functools.partial(_contrast, name), seeds=SEEDS, form=".1f"))
    return [*found, *curves.targets()]


def _off(name: str, key: str, runs: Sequence[Run]) -> list[float]:
    asked = [entry for entry in where(runs, what="text", compressor=name) if entry["asked"] in ASKED]
    return [max(abs(entry[key] / entry["asked"] - 1) for entry in asked)] if asked else []


def _contrast(name: str, runs: Sequence[Run]) -> list[float]:
    return [entry["prose"] / entry["sentence"] for entry in where(runs, what="mixed", compressor=name)]


def figure(runs: Sequence[Run]) -> Drawing:
    """How far each ratio is off, and what it costs."""
    others, of_curves = _parts(runs)
    return pictures.ratios(others, curves.points(of_curves))


def _parts(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """What was asked for and reached, and the curves."""
    return [e for e in runs if e["what"] not in curves.TASKS], [e for e in runs if e["what"] in curves.TASKS]


def _text(name: str, target: float, seed: int, *, source: str | None, steps: int, validation: int) -> Run:
    data = TextDataModule(**_settings(seed, source, validation))
    model, batches, held, seen = _trained(name, target, seed, steps, data)
    calibrated = wc.calibrate(model, batches)
    wc.calibrate(model, batches[::2])
    return {
        "what": "text",
        "compressor": name,
        "asked": target,
        "seed": seed,
        "steps": steps,
        "held": held,
        "trained": statistics.mean(seen),
        "calibrated": calibrated,
        "unseen": _ratio(model, batches[1::2]),
    }


def _mixed(name: str, target: float, seed: int, *, source: str | None, steps: int, validation: int) -> Run:
    data = MixedTextDataModule(chunk=CHUNK, **_settings(seed, source, validation))
    model, batches, held, seen = _trained(name, target, seed, steps, data)
    reached = wc.calibrate(model, batches)
    with torch.no_grad():
        kept = torch.cat([model.encode(tokens).statistics["chunk_networks.0.kept"] for tokens in batches]).double()
    return {
        "what": "mixed",
        "compressor": name,
        "asked": target,
        "seed": seed,
        "steps": steps,
        "held": held,
        "trained": statistics.mean(seen),
        "calibrated": reached,
        "sentence": float(kept[:, 0::2].mean()),
        "prose": float(kept[:, 1::2].mean()),
    }


def _settings(seed: int, source: str | None, validation: int) -> dict[str, Any]:
    size = {"length": LENGTH, "batch_size": BATCH, "validation_samples": validation}
    return {"source": source or PYTHON_STDLIB, "seed": seed, **size}


def _trained(
    name: str,
    target: float,
    seed: int,
    steps: int,
    data: TextDataModule,
) -> tuple[wc.ChunkReduceLM, list[Tensor], float, list[float]]:
    """A model and the batches it is validated on; of the last tenth of training the ratio of the batches that are
    trained on, and five times that of those."""
    seed_everything(seed)
    batches = [batch["tokens"] for batch in data.val_dataloader() if batch["tokens"].shape[1] == LENGTH]
    model = byte_model(COMPRESSORS[name](target), dim=DIM, heads=2, chunk=CHUNK, before=1, after=1, layers=2)
    module = LanguageModelModule(model=model, learning_rate=2e-3, warmup_steps=steps // 10)
    held: list[float] = []
    seen: list[float] = []

    def measure(step: int) -> None:
        left = steps - step
        if left < steps / 10:
            held.append(float(module.trainer.callback_metrics["train/compression_ratio"]))
            if left % max(steps // 50, 1) == 0:
                seen.append(_ratio(module.model, batches))

    train(module, data, steps=steps, after_step=measure)
    # batches are of as many tokens: all of them over all codes
    return module.model.eval(), batches, statistics.harmonic_mean(held), seen


def _ratio(model: wc.ChunkReduceLM, batches: Sequence[Tensor]) -> float:
    device = next(model.parameters()).device  # a GPU, in training on one
    with torch.no_grad():
        codes = [model.encode(tokens.to(device)) for tokens in batches]
    return sum(float(c.tokens.sum()) for c in codes) / sum(float(c.mask.sum()) for c in codes)
