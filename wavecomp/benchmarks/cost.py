"""``cost``: the share of a training step that compression takes: transform, pruning, packing, forward and backward.

Measured in two ways, all by turns in one process: the compressor alone, forward and backward, beside the full step of
the quickstart's model; and the full step beside the same step with :class:`Stride` in the compressor's place, which
leaves all the same work to do, on as many codes, under the same marks. The second counts the optimiser's share and what
the compressor does to caches, too, but it is a small difference of large times: read it with its range.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import wavecomp as wc
from wavecomp.benchmarks import makers, measure
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.models import quickstart, random_bytes, step_of
from wavecomp.benchmarks.tables import markdown, span
from wavecomp.benchmarks.targets import Target
from wavecomp.networks.embedding import embed_tokens

ROWS, LENGTH = 12, 1024  # as the recipe has them
STRIDE = "stride"
PREDICTED = "PartialSynthesis, predicted"


def run(options: Options) -> list[Run]:
    """One record per compressor: seconds of each repetition of its step and of itself alone; and of the stride."""
    tokens = random_bytes(*((1, 256) if options.small else (ROWS, LENGTH)), measure.device())
    found = {name: model.to(tokens.device) for name, model in models().items()}
    calls: dict[str, Callable[[], object]] = {
        name: functools.partial(step_of(model), tokens) for name, model in found.items()
    }
    calls |= {f"{name}, alone": _alone(model, tokens) for name, model in found.items() if name != STRIDE}
    seconds = measure.interleaved(calls, options.repeats)
    return [
        {"compressor": name, "seconds": seconds[name], "alone": seconds.get(f"{name}, alone"), "seed": 0}
        for name in found
    ]


def table(runs: Sequence[Run]) -> str:
    """Milliseconds of a step and the share of it that the compressor takes, by both ways."""
    shares = _shares(runs)
    rows = []
    for entry in runs:
        step = f"{1e3 * statistics.median(entry['seconds']):,.1f}"
        rows.append([entry["compressor"], step, *map(_told, shares.get(entry["compressor"], ([], [])))])
    note = (
        "Training steps of the quickstart's model with each compressor, and with a stride in its place that does no "
        "more than hand on as many values. The share of a step that the compressor's own forward and backward pass "
        "takes, and by how much the step with the stride is shorter: the median and all of the repetitions' pairs."
    )
    return f"{note}\n\n{markdown(['compressor', 'step, ms', 'share, alone', 'share, by difference'], rows)}"


def targets() -> list[Target]:
    """The share of a step, by the way that finds the larger one."""
    return [
        Target(f"{name}: share of a training step", 0.15, functools.partial(_larger, name), at_most=True, form=".1%")
        for name in ("haar, as in quickstart", "PartialSynthesis", PREDICTED, "DyadicLeaves", "Shrinkage")
    ]


def _larger(name: str, runs: Sequence[Run]) -> list[float]:
    shares = _shares(runs)
    return [max(map(statistics.median, shares[name]))] if name in shares else []


def _shares(runs: Sequence[Run]) -> dict[str, tuple[list[float], list[float]]]:
    """Of each compressor but the stride: alone, and by difference, one of each repetition."""
    least = [seconds for entry in runs if entry["compressor"] == STRIDE for seconds in entry["seconds"]]
    return {
        entry["compressor"]: (
            [part / whole for part, whole in zip(entry["alone"], entry["seconds"])],
            [1 - stride / whole for stride, whole in zip(least, entry["seconds"])],
        )
        for entry in runs
        if entry["alone"] is not None
    }


def _told(shares: Sequence[float]) -> str:
    return f"{statistics.median(shares):.1%} ({span(shares, '.1%')})" if shares else ""


def models() -> dict[str, wc.ChunkReduceLM]:
    """The recipe's model; with the stride, next to it in turn; with a bank that is learned; with the plainest peer; and
    with what adapts, on average to as many codes."""
    found = {"haar, as in quickstart": quickstart(), STRIDE: quickstart()}
    plain: Any = found[STRIDE].body.chunk_networks[0]
    own, chunk_length = plain.compressor, plain.chunk_length
    plain.compressor = Stride(own)
    level, ratio = own.transform.level, chunk_length // own.pruner.count
    dim, deep = own.detail_channel.dim, chunk_length.bit_length() - 1
    lattice = wc.DWT1d(wc.OrthogonalFilterBank("db4"), level=level)
    others = {
        "learned db4 lattice": makers.wavelet(lattice, own.pruner, dim=dim),
        "mean pooling": wc.MeanPoolCompressor(count=own.pruner.count, encoding=own.encoding),
        "Shrinkage": makers.shrinkage(ratio, dim=dim, level=deep, width=dim // 4),
        "DyadicLeaves": makers.leaves(ratio, dim=dim, level=deep, width=dim // 4),
        "PartialSynthesis": makers.partial_synthesis(ratio, dim=dim, level=level + 1),
        PREDICTED: makers.partial_synthesis(ratio, dim=dim, level=level + 1, predicted=True),
    }
    for name, compressor in others.items():
        found[name] = quickstart()
        network: Any = found[name].body.chunk_networks[0]
        network.compressor = compressor
    return found


class Stride(wc.Compressor):
    """Every so many-th value of a chunk, under the marks that a compressor made of the first chunks that came.

    Args:
        compressor: whose capacity and marks these are; it runs once.
    """

    def __init__(self, compressor: wc.Compressor) -> None:
        super().__init__()
        self.compressor = compressor
        self.marks: wc.Codes | None = None

    def capacity(self, chunk_length: int) -> int:
        return self.compressor.capacity(chunk_length)

    def forward(self, chunks: wc.Chunks) -> wc.Codes:
        if self.marks is None:
            with torch.no_grad():
                self.marks = self.compressor(chunks)
        length = chunks.values.shape[-2]
        return self.marks.replace(values=chunks.values[..., :: length // self.capacity(length), :].flatten(1, 2))


def _alone(model: wc.ChunkReduceLM, tokens: Tensor) -> Callable[[], None]:
    """The compressor's forward and backward pass, that of what it owes too, on as many chunks as a step on these tokens
    has."""
    network: Any = model.body.chunk_networks[0]
    with torch.no_grad():
        chunks = embed_tokens(model.embedding, *model.before_last(tokens)).cut(network.chunk_length)
        grad = torch.randn_like(network.compressor(chunks).values)
    leaf = chunks.values.clone().requires_grad_()
    learned = list(network.compressor.parameters())

    def step() -> None:
        for tensor in (leaf, *learned):
            tensor.grad = None
        codes = network.compressor(chunks.replace(values=leaf))
        owed = list(codes.losses.values())
        torch.autograd.backward([codes.values, *owed], [grad, *map(torch.ones_like, owed)])

    return step
