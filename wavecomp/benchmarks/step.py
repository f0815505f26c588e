"""``step``: training steps (forward, backward, AdamW) of models with equally many parameters, context by context.

wavelet   the hierarchy: wavelet codes of chunks of 64 at ratio 8, one of the decoder's layers reads them
stacked   the same in two stages: a quarter of the codes for what lies further back than 256 bytes
mean      that of one stage with means in place of wavelets
window    a Transformer that looks back 64 bytes per layer
flat      a Transformer that looks back over everything

Random bytes, as many per step at all short contexts, one sequence per step at long ones. A step that would take too
long is not run, and one that takes minutes is run once.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import wavecomp as wc
from wavecomp.allocator import keep_freed_memory
from wavecomp.benchmarks import makers, measure
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.models import FlatModel, WindowModel, byte_model, random_bytes, step_of, with_second_stage
from wavecomp.benchmarks.tables import markdown, span
from wavecomp.benchmarks.targets import Target, where
from wavecomp.networks.flex import Backend
from wavecomp.networks.transformer import FeedForward

DIM, HEADS, CHUNK, COUNT, LEVEL = 128, 4, 64, 8, 3
OURS, STACKED = HIERARCHIES = ("wavelet", "stacked")
BASE = 4096  # the context that others are compared with
LIMIT, ONCE = 1800.0, 240.0  # seconds: what would take longer is not run, what takes longer is run once


def run(options: Options) -> list[Run]:
    """One record per model and context: seconds of each repetition and the peak of memory, or why it was not run."""
    device = measure.device()
    keep_freed_memory(False)
    lengths, bytes_per_step = ([256, 512], 512) if options.small else ([2**11, 2**12, 2**14, 2**16], 2**14)
    if device.type == "cuda" and not options.small:
        lengths += [2**18, 2**20]
    models = {name: make().to(device) for name, make in models_on(device).items()}
    steps = {name: step_of(model) for name, model in models.items()}
    runs: list[Run] = []
    calls: dict[str, Callable[[], None]] = {}
    for name, step in steps.items():
        step(random_bytes(1, 2 * CHUNK, device))  # the optimiser makes its state
        known: Run = {}
        for length in lengths:
            tokens = random_bytes(max(1, bytes_per_step // length), length, device)
            entry: Run = {"model": name, "length": length, "bytes": tokens.numel(), "seed": 0}
            entry["parameters"] = sum(p.numel() for p in models[name].parameters())
            call = _call(step, tokens)
            known = first_run(call, entry, known)
            if known is entry and entry["seconds"][0] <= ONCE:
                calls[str(len(runs))] = call
            runs.append(entry)
    keep_freed_memory()
    for index, seconds in measure.interleaved(calls, options.repeats).items():
        runs[int(index)]["seconds"] = seconds
    return runs


def first_run(call: Callable[[], None], entry: Run, known: Run) -> Run:
    """Run a step once, for its peak of memory, unless it would take too long.

    Args:
        entry: gets ``seconds`` and ``memory``, or ``not_run`` with the reason.
        known: the entry of the longest shorter context that was run; empty if none was.

    Returns:
        Whichever of the two was run last.
    """
    if known:
        # nothing here grows faster than the square of the context
        expected = known["seconds"][0] * (entry["length"] / known["length"]) * (entry["bytes"] / known["bytes"])
        if expected > LIMIT:
            entry["not_run"] = (
                f"up to {expected:.0f} s a step, by that of {known['length']}; the limit is {LIMIT:.0f} s"
            )
            return known
    try:
        if torch.cuda.is_available():
            call()  # what is compiled is compiled now
        start = time.perf_counter()
        entry["memory"] = measure.peak_memory(call)
    except torch.OutOfMemoryError as error:
        entry["not_run"] = str(error).splitlines()[0]
        return known
    entry["seconds"] = [time.perf_counter() - start]
    return entry


def table(runs: Sequence[Run]) -> str:
    """Bytes per second, the peak of memory, speed in flat Transformers, and time per byte in that of the base."""
    base = BASE if any(entry["length"] == BASE for entry in runs) else min(entry["length"] for entry in runs)
    found = {(entry["model"], entry["length"]): entry for entry in runs}
    rows, left_out = [], []
    for (name, length), entry in found.items():
        if "seconds" not in entry:
            left_out.append(f"Not run: {name} at {length:,}, {entry['not_run']}.")
            continue
        flat, first = found.get(("flat", length), {}), found[name, base]
        speed = entry["bytes"] / statistics.median(entry["seconds"])
        against = f"{measure.ratio(_per_byte(flat), _per_byte(entry)):.2f}" if "seconds" in flat else ""
        growth = f"{measure.ratio(_per_byte(entry), _per_byte(first)):.2f}"
        rows.append([name, f"{length:,}", f"{speed:,.0f}", f"{entry['memory'] / 2**20:,.0f}", against, growth])
    header = ["model", "context", "bytes per second", "peak, MiB", "x flat", f"time per byte, x {base:,}"]
    parameters = span([entry["parameters"] / 1e6 for entry in runs])
    note = (
        f"Models are {DIM} wide, of {parameters} million parameters; the hierarchies have {COUNT} codes for each "
        f"{CHUNK} bytes. Steps are of as many bytes at each context but the longest, where one row is more. x flat: "
        "bytes per second over those of the flat Transformer, the median of pairwise ratios; then the time that a byte "
        f"takes over that at {base:,}."
    )
    return "\n\n".join([note, markdown(header, rows), *left_out])


def targets() -> list[Target]:
    """The hierarchies' speed beside a flat Transformer's, and how their time grows with the context."""
    found = []
    for name in HIERARCHIES:
        against, longer = functools.partial(_against_flat, name), functools.partial(_growth, name)
        told = f"{name}, time per byte at {{:,}} bytes, x that at {BASE:,}"
        what = f"{name}, training at 16,384 bytes: speed, x a flat Transformer"
        found += [
            Target(what, 5.0, functools.partial(against, 2**14)),
            Target(told.format(2**14), 1.2, functools.partial(longer, 2**14), at_most=True),
            Target(told.format(2**16), 2.0, functools.partial(longer, 2**16), at_most=True),
        ]
    for name in HIERARCHIES:
        what = f"GPU, {name}, training at 65,536 bytes: speed, x a flat Transformer"
        found.append(Target(what, 10.0, functools.partial(_against_flat, name, 2**16), gpu=True))
    return found


def _against_flat(name: str, length: int, runs: Sequence[Run]) -> list[float]:
    own, other = (where(runs, model=each, length=length) for each in (name, "flat"))
    timed = [(a, b) for a, b in zip(own, other) if "seconds" in a and "seconds" in b]
    return [measure.ratio(_per_byte(b), _per_byte(a)) for a, b in timed]


def _growth(name: str, length: int, runs: Sequence[Run]) -> list[float]:
    far, near = (where(runs, model=name, length=each) for each in (length, BASE))
    return [measure.ratio(_per_byte(a), _per_byte(b)) for a, b in zip(far, near)]


def models_on(device: torch.device) -> dict[str, Callable[[], nn.Module]]:
    """Name to maker; on a GPU with FlexAttention where there are masks."""
    backend: Backend = "flex" if device.type == "cuda" else "sdpa"

    def lowpass() -> wc.Compressor:
        return makers.wavelet(wc.DWT1d("haar", level=LEVEL), wc.KeepLowpass(COUNT), dim=DIM)

    def stacked() -> nn.Module:
        model: Any = with_second_stage(_hierarchy(lowpass(), backend, after=1), blocks=1)
        for block in model.body.chunk_networks[1].encoder.blocks:  # as many parameters fewer as its channel has
            block.feed_forward = FeedForward(dim=DIM, hidden=144)
        return model

    def mean() -> nn.Module:
        compressor = wc.MeanPoolCompressor(count=COUNT, encoding=wc.PositionFrequencyEncoding(DIM))
        model: Any = _hierarchy(compressor, backend)
        for block in model.body.chunk_networks[0].encoder.blocks:  # as many parameters more as the channel has
            block.feed_forward = FeedForward(dim=DIM, hidden=504)
        return model

    return {
        OURS: lambda: _hierarchy(lowpass(), backend),
        STACKED: stacked,
        "mean": mean,
        "window": lambda: WindowModel(dim=DIM, heads=HEADS, layers=8, window=CHUNK, backend=backend),
        # as many blocks as the hierarchy has, a little wider: fewer than eight cost less at long contexts
        "flat": lambda: FlatModel(dim=DIM, heads=HEADS, layers=7, hidden=424),
    }


def _hierarchy(compressor: wc.Compressor, backend: Backend, *, after: int = 2) -> wc.ChunkReduceLM:
    # what reads the codes costs codes x length: one layer does
    size: dict[str, Any] = {"dim": DIM, "heads": HEADS, "chunk": CHUNK, "before": 2, "after": after, "layers": 3}
    return byte_model(compressor, **size, memory_layers=[1], backend=backend)


def _call(step: Callable[[Tensor], None], tokens: Tensor) -> Callable[[], None]:
    return lambda: step(tokens)


def _per_byte(entry: Run) -> list[float]:
    return [seconds / entry["bytes"] for seconds in entry["seconds"]]
