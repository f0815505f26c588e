"""``texts``: one model for texts of several kinds: how many codes each kind is given, and what comes back of it.

Each file of ``--source`` is a text. A model is trained on all of them by turns and validated on the last tenth of each.
Autoencoders, those of ``rate`` in :mod:`wavecomp.benchmarks.quality`, say what adapting to the text is worth; a
language model, that of ``text``, where codes are of use; and xz how much there is in a text at all.
"""

from __future__ import annotations

import functools
import itertools
import lzma
import statistics
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import ConcatDataset, Dataset

from wavecomp.benchmarks import grid, quality, tasks
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.tables import markdown, mean_and_spread
from wavecomp.benchmarks.targets import Target, lead, where
from wavecomp.training.brief import seed_everything, train, validate
from wavecomp.training.data.samples import Sample, SampleDataModule
from wavecomp.training.data.text import PYTHON_STDLIB, find_files

RATIO, SEEDS = 8, 3
STEPS = {"rate": 600, "text": 400}
ALIKE = (quality.OURS, "wide-strided")
"""Those that keep as many codes of every chunk."""
COMPRESSORS = {"rate": (quality.CLAIMED, "leaves+channel", *ALIKE), "text": (quality.OURS,)}
FIGURES = {
    "rate": {"bits": ("bits", ".3f"), "ratio": ("tokens per code", ".2f")},
    "text": {"bits": ("bits of the next byte", ".3f"), "gain": ("gain", ".3f")},
    "xz": {"bits": ("bits", ".3f")},
}
"""By task what is told of each text: the name of its row, and the form of its numbers."""


class ByTurns(SampleDataModule):
    """Rows of several texts by turns; validation is on all of them.

    Args:
        texts: of one batch size.
    """

    def __init__(self, texts: Sequence[SampleDataModule]) -> None:
        super().__init__(batch_size=texts[0].batch_size, seed=texts[0].seed)
        self.texts = texts

    def train_sample(self, index: int) -> Sample:
        return self.texts[index % len(self.texts)].train_sample(index)

    def validation_set(self) -> Dataset[Sample]:
        return ConcatDataset([text.validation_set() for text in self.texts])


def members(options: Options) -> dict[str, grid.Member]:
    """By task, seed and compressor, and what xz makes of it."""
    seeds = range(1 if options.small else SEEDS)
    found: dict[str, grid.Member] = {}
    for seed, task in itertools.product(seeds, COMPRESSORS):
        steps = 3 if options.small else STEPS[task]
        for name in COMPRESSORS[task]:
            found[f"{task}-{seed}-{name}"] = functools.partial(_member, task, name, seed, steps, options.source)
    return found | {"xz": functools.partial(_xz, options.source)}


def table(runs: Sequence[Run]) -> str:
    """A column for each text; bits, and beside them how many tokens a code stands for or what codes are worth."""
    texts = list(dict.fromkeys(text for entry in runs for text in entry["texts"]))
    rows = []
    for task, name in dict.fromkeys((entry["task"], entry["compressor"]) for entry in runs):
        own = where(runs, task=task, compressor=name)
        for key, (told, form) in FIGURES[task].items():
            values = [[entry["texts"][text][key] for entry in own if text in entry["texts"]] for text in texts]
            seeds = 1 if task == "xz" else SEEDS
            rows.append([name, told, *(mean_and_spread(each, seeds, form) for each in values)])
    note = (
        f"Bits per byte of an autoencoder's reconstruction after {STEPS['rate']} steps, at ratio {RATIO} over all "
        f"texts together, and the ratio of each; bits per byte of a language model after {STEPS['text']} steps, and "
        "what they are more with the codes hidden; of xz -9e those of the whole text. Models are as in `quality`; rows "
        "of all texts come by turns; the last tenth of each is validated on. Mean over seeds ± the furthest of them."
    )
    return f"{note}\n\n{markdown(['compressor', 'figure', *texts], rows)}"


def targets() -> list[Target]:
    """What adapting to the text is worth."""
    what = "lead of PartialSynthesis over the best that does not adapt, less the spread of seeds, bits"
    return [Target(f"mean over texts: {what}", 0.0, _lead, form=".3f")]


def _lead(runs: Sequence[Run]) -> list[float]:
    bits = {
        name: [
            statistics.mean(text["bits"] for text in entry["texts"].values())
            for entry in where(runs, task="rate", compressor=name)
        ]
        for name in (quality.CLAIMED, *ALIKE)
    }
    if min(map(len, bits.values())) < SEEDS:
        return []
    return [lead(bits.pop(quality.CLAIMED), min(bits.values(), key=statistics.mean))]


def sources(source: str | None) -> list[str]:
    """The files of a source; of the sources of Python's library, which are one text, the name."""
    return [PYTHON_STDLIB] if source in (None, PYTHON_STDLIB) else [str(path) for path in find_files(source)]


def _member(task: str, name: str, seed: int, steps: int, source: str | None) -> Run:
    seed_everything(seed)
    texts = {Path(each).name: tasks.data_of(task, seed, each) for each in sources(source)}
    module = tasks.module_of(task, quality.model_of(task, name, RATIO), steps=steps)
    train(module, ByTurns(list(texts.values())), steps=steps)
    found = {text: validate(module, data) for text, data in texts.items()}
    return {
        "task": task,
        "compressor": name,
        "seed": seed,
        "steps": steps,
        "parameters": tasks.parameters(module.model),
        "texts": {
            text: {
                "bits": figures["val/bits_per_byte"],
                "gain": figures.get("val/context_gain"),
                "ratio": figures["val/compression_ratio"],
            }
            for text, figures in found.items()
        },
    }


def _xz(source: str | None) -> Run:
    found: dict[str, Run] = {}
    for each in sources(source):
        content = b"".join(path.read_bytes() for path in find_files(each))
        size = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
        found[Path(each).name] = {"bits": 8 * size / len(content), "bytes": len(content)}
    return {"task": "xz", "compressor": "xz", "seed": 0, "texts": found}
