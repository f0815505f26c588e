"""``quality``: every compressor at equal kept codes and equal steps, where codes matter.

Each member of the grid (task, compressor, ratio, seed) trains one small language model and is written to a file of
its own as soon as it is done, so a run that was stopped goes on where it stopped, and a member that fails loses no
other.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import nn

import wavecomp as wc
from wavecomp.benchmarks.measure import Run
from wavecomp.training import CopyDataModule, LanguageModelModule, TextDataModule
from wavecomp.training.brief import seed_everything, train
from wavecomp.training.data.samples import SampleDataModule

DIM, CHUNK, HEADS = 128, 32, 4
RATIOS, SEEDS = (4, 8, 16), 3
STEPS = {"copy": 600, "text": 600}
FOLDER = Path("quality-members")


def run(*, repeats: int, small: bool, source: str | None = None) -> list[Run]:
    """All members, those of earlier runs in the folder ``quality-members`` included; ``repeats`` is not used.

    Args:
        source: a text; with one the models are trained on it too, not on copying alone.
    """
    done = []
    for task, ratio, seed, name in _grid(small, source):
        path = FOLDER / f"{'small-' if small else ''}{task}-{ratio}-{seed}-{name}.json"
        if not path.exists():
            try:
                _keep(path, _member(task, name, ratio, seed, 3 if small else STEPS[task], source))
            except Exception:  # one member's failure is told and costs no other's result
                logging.getLogger(__name__).error("%s failed:\n%s", path.stem, traceback.format_exc())
                continue
        done.append(json.loads(path.read_text()))
    return done


def table(runs: Sequence[Run]) -> str:
    """Bits of what is asked for, mean and spread over seeds, with the ratio that was reached and the context gain."""
    lines = [
        f"{'task':<6}{'ratio':>6}  {'compressor':<20}{'bits':>9}{'spread':>9}{'gain':>8}{'reached':>9}{'seeds':>7}"
    ]
    groups: dict[tuple[str, int, str], list[Run]] = {}
    for entry in runs:
        groups.setdefault((entry["task"], entry["asked"], entry["compressor"]), []).append(entry)
    for (task, asked, name), mine in sorted(groups.items(), key=lambda item: (item[0][:2], _mean(item[1], "bits"))):
        bits, ratios = [entry["bits"] for entry in mine], [entry["ratio"] for entry in mine]
        lines.append(
            f"{task:<6}{asked:>6}  {name:<20}{statistics.mean(bits):>9.4f}{max(bits) - min(bits):>9.4f}"
            f"{_mean(mine, 'gain'):>8.3f}{'' if None in ratios else f'{statistics.mean(ratios):.2f}':>9}{len(mine):>7}"
        )
    return "\n".join(lines)


def compressors(ratio: int) -> dict[str, Callable[[], wc.Compressor]]:
    """Name to maker, at ``CHUNK / ratio`` codes per chunk, on average where they adapt."""
    count, fixed, deep = CHUNK // ratio, int(math.log2(ratio)), int(math.log2(CHUNK))

    def wavelet(level: int, pruner: wc.Pruner, *, channel: bool = True) -> wc.Compressor:
        return wc.WaveletCompressor(
            transform=wc.DWT1d("haar", level=level),
            pruner=pruner,
            detail_channel=wc.DetailChannel(dim=DIM, level=level) if channel else None,
            encoding=wc.PositionFrequencyEncoding(DIM),
        )

    def leaves() -> wc.Compressor:
        return wc.DyadicLeaves(
            transform=wc.DWT1d("haar", level=deep),
            target_ratio=ratio,
            dim=DIM,
            detail_channel=wc.DetailChannel(dim=DIM, level=deep),
            encoding=wc.PositionFrequencyEncoding(DIM),
        )

    def marked(kind: type, **more: int) -> Callable[[], wc.Compressor]:
        return lambda: kind(**more, encoding=wc.PositionFrequencyEncoding(DIM))

    makers: dict[str, Callable[[], wc.Compressor]] = {
        "lowpass+channel": lambda: wavelet(fixed, wc.KeepLowpass(count)),
        "lowpass": lambda: wavelet(fixed, wc.KeepLowpass(count), channel=False),
        "leaves+channel": leaves,
        "mean": marked(wc.MeanPoolCompressor, count=count),
        "max": marked(wc.MaxPoolCompressor, count=count),
        "strided": marked(wc.StridedConvCompressor, dim=DIM, count=count, chunk_length=CHUNK),
        "latents": marked(wc.LatentQueriesCompressor, dim=DIM, heads=HEADS, count=count),
        "dct": marked(wc.DCTCompressor, count=count),
        "surprisal": marked(wc.SurprisalDropCompressor, dim=DIM, count=count),
        "none": lambda: wc.NoCodes(),
        "all": marked(wc.NoCompression),
    }
    if count >= 4:  # the approximation, always kept, is at most a quarter
        makers["top-k+channel"] = lambda: wavelet(deep, wc.TopK(count))
        makers["random-k+channel"] = lambda: wavelet(deep, wc.RandomK(count))
        makers["shrinkage+channel"] = lambda: wavelet(deep, wc.Shrinkage(target_ratio=ratio))
    else:
        del makers["leaves+channel"]
    return makers


def _grid(small: bool, source: str | None) -> Iterator[tuple[str, int, int, str]]:
    tasks = ["copy", *(["text"] if source is not None else [])]
    ratios, seeds = ((8,), 1) if small else (RATIOS, SEEDS)
    for task, ratio, seed in itertools.product(tasks, ratios, range(seeds)):
        for name in compressors(ratio):
            yield task, ratio, seed, name


def _member(task: str, name: str, ratio: int, seed: int, steps: int, source: str | None) -> Run:
    seed_everything(seed)
    if task == "copy":
        data: SampleDataModule = CopyDataModule(seed=seed)
    else:
        data = TextDataModule(source=source or "", length=1024, batch_size=8, validation_samples=64, seed=seed)
    module = LanguageModelModule(model=_model(compressors(ratio)[name]()), warmup_steps=min(50, steps))
    found = train(module, data, steps=steps)
    return {
        "task": task,
        "compressor": name,
        "asked": ratio,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in module.model.parameters()),
        "bits": found["val/loss"],
        "gain": found["val/context_gain"],
        # without codes the ratio is infinite, which JSON has no word for
        "ratio": found["val/compression_ratio"] if math.isfinite(found["val/compression_ratio"]) else None,
    }


def _model(compressor: wc.Compressor) -> wc.ChunkReduceLM:
    encoder = wc.TransformerEncoder(dim=DIM, heads=HEADS, layers=2)
    return wc.ChunkReduceLM(
        embedding=nn.Embedding(256, DIM),
        body=wc.ChunkReduce(
            chunk_networks=[wc.ChunkNetwork(chunk_length=CHUNK, encoder=encoder, compressor=compressor)],
            reduce_network=wc.ReduceNetwork(dim=DIM, heads=HEADS, layers=2),
        ),
        decoder=wc.LocalDecoder(dim=DIM, heads=HEADS, layers=3, window=CHUNK, period=CHUNK),
        head=nn.Linear(DIM, 256),
    )


def _keep(path: Path, member: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(member))
    os.replace(partial, path)


def _mean(runs: Sequence[Run], key: str) -> float:
    return statistics.mean(entry[key] for entry in runs)
