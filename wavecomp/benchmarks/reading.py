"""What it costs to go on after a long context, and to read without end: the part of ``long`` that needs no training."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

import wavecomp as wc
from wavecomp.benchmarks import grid, measure
from wavecomp.benchmarks.measure import Run
from wavecomp.benchmarks.models import quickstart, random_bytes, two_stages
from wavecomp.benchmarks.tables import markdown
from wavecomp.benchmarks.targets import Target, where
from wavecomp.networks import StreamingEncoder
from wavecomp.networks.generation import Reader, reader

MODELS: Mapping[str, Callable[[], wc.ChunkReduceLM]] = {"quickstart": quickstart, "two stages": two_stages}
BLOCK = 2048  # tokens that are read at once
PIECE = 8 * BLOCK
CONTEXTS = (10_000, 100_000, 1_000_000)  # bytes
STREAMS = (500_000, 5_000_000)


def members(small: bool, repeats: int) -> dict[str, grid.Member]:
    """Generation by model, the stream by length."""
    contexts = (1_000, 4_000) if small else CONTEXTS
    streams = (4 * PIECE, 8 * PIECE) if small else STREAMS
    return {
        **{f"generation-{name}": functools.partial(generation, name, contexts, repeats) for name in MODELS},
        **{f"stream-{length}": functools.partial(stream, length) for length in streams},
    }


@torch.no_grad()
def generation(name: str, contexts: Sequence[int], repeats: int) -> Run:
    """Seconds per new byte after each context, the mean over a chunk of the last stage, all contexts by turns.

    A new byte is the likeliest one, read on in turn. The chunk holds as many edges, where codes are made, wherever it
    begins. Weights are random: what they are costs nothing.
    """
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(measure.device())
    readers = [reader(model) for _ in contexts]
    further = [_next(one, random_bytes(1, context, measure.device())) for one, context in zip(readers, contexts)]
    seconds: list[list[float]] = [[] for _ in contexts]
    for _ in range(repeats + 1):  # the first for warmth
        spent = [0.0] * len(contexts)
        for _ in range(model.body.spans[-1]):
            for place, one in enumerate(readers):
                start = time.perf_counter()
                further[place] = _next(one, further[place])
                measure.finish()
                spent[place] += time.perf_counter() - start
        for place, total in enumerate(spent):
            seconds[place].append(total / model.body.spans[-1])
    return {
        "what": "generation",
        "model": name,
        "contexts": list(contexts),
        "codes": [int(one.memory.until.length) for one in readers],  # type: ignore[attr-defined]
        "seconds": [each[1:] for each in seconds],
        "seed": 0,
    }


def _next(one: Reader, tokens: Tensor) -> Tensor:
    return one.read(tokens).argmax(-1)[:, None]


def stream(length: int) -> Run:
    """Bytes through a :class:`StreamingEncoder` in a process of its own, for its peak of memory."""
    return measure.in_fresh_process(_stream, length)


@torch.no_grad()
def _stream(length: int) -> Run:
    """The stream and, piece by piece by turns, its peer: the same blocks through ``encode``, each by itself."""
    torch.manual_seed(0)
    model = quickstart().eval().to(measure.device())
    seconds: dict[str, list[float]] = {"stream": [], "encode": []}
    codes = 0

    def read(pieces: Sequence[int]) -> None:
        nonlocal codes
        encoder = StreamingEncoder(model, block=BLOCK)
        for piece in pieces:
            tokens = random_bytes(1, piece, measure.device())
            start = time.perf_counter()
            codes += encoder.feed(tokens).values.shape[1]
            measure.finish()
            middle = time.perf_counter()
            for block in tokens.split(BLOCK, dim=1):
                model.encode(block)
            measure.finish()
            seconds["stream"].append(middle - start)
            seconds["encode"].append(time.perf_counter() - middle)

    read([PIECE] * 2)
    codes = 0
    for each in seconds.values():
        each.clear()
    pieces = [PIECE] * (length // PIECE) + [length % PIECE] * (length % PIECE > 0)
    memory = measure.peak_memory(lambda: read(pieces))
    return {"what": "stream", "length": length, "codes": codes, "memory": memory, "seconds": seconds, "seed": 0}


def targets() -> list[Target]:
    """What grows with the context, and what must not."""
    new_byte = f"a new byte after {CONTEXTS[-1]:,}: time, x that after {CONTEXTS[0]:,}"
    read = f"a stream of {STREAMS[-1]:,} bytes"
    return [
        Target(new_byte, 10.0, _growth, at_most=True),
        Target(f"GPU, {new_byte}", 2.0, _growth, at_most=True, gpu=True),
        Target(f"{read}: bytes per second", 40_000, _speed, form=",.0f"),
        Target(f"{read}: memory beyond one of {STREAMS[0]:,}, MB", 150.0, _more_memory, at_most=True, form=".1f"),
    ]


def _growth(runs: Sequence[Run]) -> list[float]:
    """Of the model that grows more."""
    made = where(runs, what="generation", contexts=list(CONTEXTS))
    found = [measure.ratio(entry["seconds"][-1], entry["seconds"][0]) for entry in made]
    return [max(found)] if found else []


def _speed(runs: Sequence[Run]) -> list[float]:
    far = where(runs, what="stream", length=STREAMS[-1])
    return [entry["length"] / sum(entry["seconds"]["stream"]) for entry in far]


def _more_memory(runs: Sequence[Run]) -> list[float]:
    near, far = (where(runs, what="stream", length=length) for length in STREAMS)
    return [(b["memory"] - a["memory"]) / 1e6 for a, b in zip(near, far)]


def table(runs: Sequence[Run]) -> str:
    """A table of each of the two that is there."""
    parts = []
    made = [entry for entry in runs if entry["what"] == "generation"]
    if made:
        note = (
            "A new byte after a context, greedily, the mean over one chunk of the last stage; relative to the first "
            "context, the median of pairwise ratios. All contexts by turns in one process."
        )
        rows = [
            [
                entry["model"],
                f"{context:,}",
                f"{codes:,}",
                f"{1e3 * statistics.median(seconds):.2f}",
                f"{measure.ratio(seconds, entry['seconds'][0]):.2f}",
            ]
            for entry in made
            for context, codes, seconds in zip(entry["contexts"], entry["codes"], entry["seconds"])
        ]
        header = ["model", "bytes of context", "codes at hand", "ms per byte", "x the first"]
        parts += [note, markdown(header, rows)]
    streams = [entry for entry in runs if entry["what"] == "stream"]
    if streams:
        note = (
            f"The quickstart's model reads a stream, {PIECE:,} bytes at a time. Memory: the peak beyond what the "
            f"process held before. The peer, by turns in one process: `encode` of the same {BLOCK:,} bytes at once, "
            "with nothing remembered."
        )
        rows = []
        for entry in sorted(streams, key=lambda entry: entry["length"]):
            speed, peer = (entry["length"] / sum(entry["seconds"][name]) for name in ("stream", "encode"))
            ratio = measure.ratio(entry["seconds"]["encode"], entry["seconds"]["stream"])
            memory = f"{entry['memory'] / 2**20:.1f}"
            rows.append([f"{entry['length']:,}", f"{speed:,.0f}", f"{peer:,.0f}", f"{ratio:.2f}", memory])
        parts += [note, markdown(["bytes", "bytes per second", "of the peer", "x the peer", "peak, MiB"], rows)]
    return "\n\n".join(parts)
