"""``step``: training steps (forward, backward, AdamW) of four models with equally many parameters, context by context.

wavelet   the hierarchy: wavelet codes of chunks of 64 at ratio 8, one of the decoder's layers reads them
mean      the same with means in place of wavelets
window    a Transformer that looks back 64 bytes per layer
flat      a Transformer that looks back over everything

Random bytes, as many per step at all short contexts, one sequence per step at long ones. A step that would take too
long is not run, and one that takes minutes is run once.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.benchmarks import measure
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.networks.attention import head_angles, join_heads, split_heads
from wavecomp.networks.flex import Backend
from wavecomp.networks.transformer import FeedForward
from wavecomp.positions import Rotary, rotate

DIM, HEADS, CHUNK, COUNT, LEVEL = 128, 4, 64, 8, 3
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
        step(_bytes(1, 2 * CHUNK, device))  # the optimiser makes its state
        known: Run = {}
        for length in lengths:
            tokens = _bytes(max(1, bytes_per_step // length), length, device)
            entry: Run = {"model": name, "length": length, "bytes": tokens.numel(), "seed": 0}
            entry["parameters"] = sum(p.numel() for p in models[name].parameters())
            call = _call(step, tokens)
            known = first_run(call, entry, known)
            if known is entry and entry["seconds"][0] <= ONCE:
                calls[str(len(runs))] = call
            runs.append(entry)
    keep_freed_memory(True)
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
    lines = [f"{'model':<10}{'context':>9}{'bytes/s':>12}{'MiB':>9}{'x flat':>9}{f'time per byte x {base}':>22}"]
    for (name, length), entry in found.items():
        line = f"{name:<10}{length:>9}"
        if "seconds" not in entry:
            lines.append(f"{line}  not run: {entry['not_run']}")
            continue
        line += f"{entry['bytes'] / statistics.median(entry['seconds']):>12,.0f}{entry['memory'] / 2**20:>9,.0f}"
        flat, first = found.get(("flat", length), {}), found[name, base]
        line += f"{measure.ratio(_per_byte(flat), _per_byte(entry)):>9.2f}" if "seconds" in flat else f"{'':>9}"
        lines.append(f"{line}{measure.ratio(_per_byte(entry), _per_byte(first)):>22.2f}")
    return "\n".join(lines)


def models_on(device: torch.device) -> dict[str, Callable[[], nn.Module]]:
    """Name to maker; on a GPU with FlexAttention where there are masks."""
    backend: Backend = "flex" if device.type == "cuda" else "sdpa"

    def wavelet() -> nn.Module:
        compressor = wc.WaveletCompressor(
            transform=wc.DWT1d("haar", level=LEVEL),
            pruner=wc.KeepLowpass(COUNT),
            detail_channel=wc.DetailChannel(dim=DIM, level=LEVEL),
            encoding=wc.PositionFrequencyEncoding(DIM),
        )
        return _hierarchy(compressor, wc.TransformerEncoder(dim=DIM, heads=HEADS, layers=2), backend)

    def mean() -> nn.Module:
        compressor = wc.MeanPoolCompressor(count=COUNT, encoding=wc.PositionFrequencyEncoding(DIM))
        encoder = wc.TransformerEncoder(dim=DIM, heads=HEADS, layers=2)
        for block in encoder.blocks:  # as many parameters more as the detail channel has
            block.feed_forward = FeedForward(dim=DIM, hidden=504)
        return _hierarchy(compressor, encoder, backend)

    return {
        "wavelet": wavelet,
        "mean": mean,
        "window": lambda: WindowModel(layers=8, backend=backend),
        "flat": FlatModel,
    }


def _hierarchy(compressor: wc.Compressor, encoder: nn.Module, backend: Backend) -> wc.ChunkReduceLM:
    return wc.ChunkReduceLM(
        embedding=nn.Embedding(256, DIM),
        body=wc.ChunkReduce(
            chunk_networks=[wc.ChunkNetwork(chunk_length=CHUNK, encoder=encoder, compressor=compressor)],
            reduce_network=wc.ReduceNetwork(dim=DIM, heads=HEADS, layers=2, backend=backend),
        ),
        # what reads the codes costs codes x length: one layer does
        decoder=wc.LocalDecoder(
            dim=DIM, heads=HEADS, layers=3, window=CHUNK, period=CHUNK, memory_layers=[1], backend=backend
        ),
        head=nn.Linear(DIM, 256),
    )


class WindowModel(nn.Module):
    """The decoder without any codes: a Transformer with a sliding window."""

    def __init__(self, *, layers: int, backend: Backend) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, DIM)
        self.decoder = wc.LocalDecoder(
            dim=DIM, heads=HEADS, layers=layers, window=CHUNK, memory_layers=[], backend=backend
        )
        self.head = nn.Linear(DIM, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        return self.head(self.decoder(embedded, wc.Codes.from_tokens(embedded[:, :0])))


class FlatModel(nn.Module):
    """A causal Transformer of the library's parts; without a mask, so that it has the fastest kernel there is.

    Seven blocks, as many as the hierarchy has, a little wider: fewer than eight cost less at long contexts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, DIM)
        self.start = nn.Parameter(torch.randn(DIM) * 0.02)
        self.blocks = nn.ModuleList(FlatBlock(hidden=424) for _ in range(7))
        self.norm = nn.RMSNorm(DIM)
        self.head = nn.Linear(DIM, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        x = torch.cat([self.start.expand(batch, 1, -1), self.embedding(tokens)[:, :-1]], dim=1)
        rotary = head_angles(torch.arange(length, device=tokens.device), DIM, HEADS)
        for block in self.blocks:
            x = block(x, rotary)
        return self.head(self.norm(x))


class FlatBlock(nn.Module):
    """A Transformer block with attention to all places before."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(DIM)
        self.qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = nn.Linear(DIM, DIM, bias=False)
        self.feed_forward_norm = nn.RMSNorm(DIM)
        self.feed_forward = FeedForward(dim=DIM, hidden=hidden)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        q, k, v = split_heads(self.qkv(self.attention_norm(x)), 3 * HEADS).chunk(3, dim=1)
        read = F.scaled_dot_product_attention(rotate(q, rotary), rotate(k, rotary), v, is_causal=True)
        x = x + self.out(join_heads(read))
        return x + self.feed_forward(self.feed_forward_norm(x))


def step_of(model: nn.Module) -> Callable[[Tensor], None]:
    """A training step on tokens; on a GPU in bf16 where that is safe."""
    optimizer = torch.optim.AdamW(model.parameters())

    def step(tokens: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            logits = model(tokens)
        F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()).backward()
        optimizer.step()

    return step


def keep_freed_memory(keep: bool) -> None:
    """Have glibc keep all that is freed, as torch does on a GPU, or give back at once whatever is large.

    To give back makes the peak of memory what is held at once, but a block that is taken anew costs a fault per page:
    a third of the time of a step at 65,536 bytes. Unless told, glibc does so with blocks above 32 MiB.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        threshold, count, trim = -3, -4, -1  # M_MMAP_THRESHOLD, M_MMAP_MAX, M_TRIM_THRESHOLD
        libc.mallopt(threshold, 2**16)
        libc.mallopt(count, 0 if keep else 2**16)
        libc.mallopt(trim, -1 if keep else 2**17)


def _call(step: Callable[[Tensor], None], tokens: Tensor) -> Callable[[], None]:
    return lambda: step(tokens)


def _bytes(batch: int, length: int, device: torch.device) -> Tensor:
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(0)).to(device)


def _per_byte(entry: Run) -> list[float]:
    return [seconds / entry["bytes"] for seconds in entry["seconds"]]
