"""``quality``: every compressor at equal kept codes and equal steps, where codes matter.

Each member of the grid (task, ratio, seed, compressor) trains one small model:

copy      16 random symbols, then the same again, in bits per symbol of the second half (chance 4.00)
uneven    the same, where half of the stretches are one repeated symbol
recall    keys with values, asked for by content, in bits per digit (chance 3.32)
rate      an autoencoder of text: bits per byte of the reconstruction
text      a language model of text: bits per byte
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import wavecomp as wc
from wavecomp.benchmarks import grid
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.training import (
    AutoencoderModule,
    CompressionModule,
    CopyDataModule,
    LanguageModelModule,
    RecallDataModule,
    SampleDataModule,
    TextDataModule,
)
from wavecomp.training.brief import seed_everything, train

DIM, CHUNK, HEADS = 64, 32, 4
RATIOS, SEEDS = (4, 8, 16), 3
STEPS = {"copy": 800, "uneven": 800, "recall": 1600, "rate": 300, "text": 400}
OF_TEXT = ("rate", "text")
FOLDER = Path("quality-members")


def run(options: Options) -> list[Run]:
    """All members, those of earlier runs in the folder ``quality-members`` included."""
    members = {
        f"{task}-{ratio}-{seed}-{name}": functools.partial(
            _member, task, name, ratio, seed, 3 if options.small else STEPS[task], options.source
        )
        for task, ratio, seed, name in _grid(options.small)
    }
    return grid.run(FOLDER, members, options)


def table(runs: Sequence[Run]) -> str:
    """Bits of what is asked for, mean and spread over seeds, with the ratio that was reached and the context gain."""
    lines = [
        f"{'task':<6}{'ratio':>6}  {'compressor':<20}{'bits':>9}{'spread':>9}{'gain':>8}{'reached':>9}{'seeds':>7}"
    ]
    groups: dict[tuple[str, int, str], list[Run]] = {}
    for entry in runs:
        groups.setdefault((entry["task"], entry["asked"], entry["compressor"]), []).append(entry)
    for (task, asked, name), mine in sorted(groups.items(), key=lambda item: (item[0][:2], _mean(item[1], "bits"))):
        bits = [entry["bits"] for entry in mine]
        gain, reached = ("" if mine[0][key] is None else f"{_mean(mine, key):.3f}" for key in ("gain", "ratio"))
        lines.append(
            f"{task:<6}{asked:>6}  {name:<20}{statistics.mean(bits):>9.4f}{max(bits) - min(bits):>9.4f}"
            f"{gain:>8}{reached:>9}{len(mine):>7}"
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

    def partial() -> wc.Compressor:
        return wc.PartialSynthesis(
            transform=wc.DWT1d("haar", level=deep),
            target_ratio=ratio,
            detail_channel=wc.DetailChannel(dim=DIM, level=deep),
            encoding=wc.PositionFrequencyEncoding(DIM),
        )

    def marked(kind: type, **more: int) -> Callable[[], wc.Compressor]:
        return lambda: kind(**more, encoding=wc.PositionFrequencyEncoding(DIM))

    makers: dict[str, Callable[[], wc.Compressor]] = {
        "lowpass+channel": lambda: wavelet(fixed, wc.KeepLowpass(count)),
        "lowpass": lambda: wavelet(fixed, wc.KeepLowpass(count), channel=False),
        "partial+channel": partial,
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


def _grid(small: bool) -> Iterator[tuple[str, int, int, str]]:
    ratios, seeds = ((8,), 1) if small else (RATIOS, SEEDS)
    for task, ratio, seed in itertools.product(STEPS, ratios, range(seeds)):
        for name in compressors(ratio):
            yield task, ratio, seed, name


def _member(task: str, name: str, ratio: int, seed: int, steps: int, source: str | None) -> Run:
    seed_everything(seed)
    data = _data(task, seed, source)
    settings: dict[str, Any] = {"warmup_steps": min(50, steps), "learning_rate": 2e-3 if task in OF_TEXT else 1e-3}
    compressor = compressors(ratio)[name]()
    module: CompressionModule
    if task == "rate":
        module = AutoencoderModule(model=_autoencoder(compressor), **settings)
    else:
        module = LanguageModelModule(model=_language_model(compressor), **settings)
    found = train(module, data, steps=steps)
    return {
        "task": task,
        "compressor": name,
        "asked": ratio,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in module.model.parameters()),
        "bits": found["val/loss"],
        "gain": found.get("val/context_gain"),
        # without codes the ratio is infinite, which JSON has no word for
        "ratio": found["val/compression_ratio"] if math.isfinite(found["val/compression_ratio"]) else None,
    }


def _data(task: str, seed: int, source: str | None) -> SampleDataModule:
    if task in ("copy", "uneven"):
        return CopyDataModule(seed=seed, quiet=0.5 if task == "uneven" else 0.0)
    if task == "recall":
        return RecallDataModule(keys=6, length=160, curriculum=9600, seed=seed)
    return TextDataModule(
        source=source or "python-stdlib", length=1024, batch_size=8, validation_samples=128, seed=seed
    )


def _body(compressor: wc.Compressor, *, causal: bool) -> wc.ChunkReduce:
    encoder = wc.TransformerEncoder(dim=DIM, heads=HEADS, layers=2)
    return wc.ChunkReduce(
        chunk_networks=[wc.ChunkNetwork(chunk_length=CHUNK, encoder=encoder, compressor=compressor)],
        reduce_network=wc.ReduceNetwork(dim=DIM, heads=HEADS, layers=2, window=512 if causal else None, causal=causal),
    )


def _language_model(compressor: wc.Compressor) -> wc.ChunkReduceLM:
    return wc.ChunkReduceLM(
        embedding=nn.Embedding(256, DIM),
        body=_body(compressor, causal=True),
        decoder=wc.LocalDecoder(dim=DIM, heads=HEADS, layers=3, window=CHUNK, period=CHUNK),
        head=nn.Linear(DIM, 256),
    )


def _autoencoder(compressor: wc.Compressor) -> wc.ChunkReduceAutoencoder:
    return wc.ChunkReduceAutoencoder(
        embedding=nn.Embedding(256, DIM),
        body=_body(compressor, causal=True),
        decoder=wc.ChunkDecoder(
            chunk_length=CHUNK,
            network=wc.TransformerEncoder(dim=DIM, heads=HEADS, layers=2),
            head=nn.Linear(DIM, 256),
            encoding=wc.PositionFrequencyEncoding(DIM),
        ),
    )


def _mean(runs: Sequence[Run], key: str) -> float:
    return statistics.mean(entry[key] for entry in runs)
