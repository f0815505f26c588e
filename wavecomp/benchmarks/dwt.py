"""``dwt``: multilevel transforms beside ptwt, pywt and a plain copy, in chunks and in one piece.

Where pytorch_wavelets is installed (``pip install pytorch_wavelets 'setuptools<81'``) it is a peer too, with fixed
filters, and with samples along its own last axis.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ptwt
import pywt
import torch
from ptwt.wavelets_learnable import ProductFilter
from torch import Tensor

import wavecomp as wc
from wavecomp.allocator import keep_freed_memory
from wavecomp.benchmarks import measure
from wavecomp.benchmarks.measure import Options, Run
from wavecomp.benchmarks.tables import markdown
from wavecomp.benchmarks.targets import Target, where

LEVEL = 4
PEERS = ("ptwt", "pywt", "pytorch_wavelets", "copy")
BOTH_WAYS = ("ptwt", "pytorch_wavelets")  # the peers that have gradients
KEPT = ", freed memory kept"
PASSES = {"forward": "forward", "both": "forward and backward"}
Step = Callable[[], object]


def run(options: Options) -> list[Run]:
    """Everything, as one record per measured function and size; no text is read.

    A learnable db4 lattice against ptwt's learnable db4; gradients come from outside and reach input and filters.
    """
    repeats, small = options.repeats, options.small
    device = measure.device()
    keep_freed_memory(False)  # a peak is of what is held at once; once memory was kept, it is no more
    runs = [_memory(_long(small, device)), *_peaks("one piece", _long(small, device), ("banded",))]
    for x in _chunks(small, device, torch.float32):
        runs += _peaks("chunks", x, _forms(device))
    keep_freed_memory()
    if device.type == "cuda":
        runs += _beside_peers("", small, repeats)
    else:
        runs += measure.in_fresh_process(_beside_peers, "", small, repeats)  # where glibc was told nothing
        runs += _beside_peers(KEPT, small, repeats)
    x = _noise((1, 2048, 16) if small else (8, 4096, 256), torch.float32, device)
    for chunk in (256, 512, 1024, 2048):  # where "auto" changes over
        runs += _measured("forms", x.unflatten(1, (-1, chunk)), ("matrix", "banded"), min(repeats, 5), peers=False)
    sizes = [2**10, 2**12] if small else [2**14, 2**16, 2**18, 2**20]
    runs += list(_growth(sizes, device, min(repeats, 5)))
    runs.append(_build(device, max(repeats, 30)))
    return runs


def table(runs: Sequence[Run]) -> str:
    """A row per input and form: milliseconds of both passes, and how many times as fast as each peer they are."""
    timed = {(*_input(entry), entry["form"], entry["pass"]): entry["seconds"] for entry in runs if "seconds" in entry}
    rows = []
    for *key, form in dict.fromkeys(place[:-1] for place in timed):
        if form in PEERS:
            continue
        what, size, dtype = key
        row = [f"{what}, {' x '.join(map(str, size))}", str(dtype), form]
        for step, peers in (("forward", PEERS), ("both", BOTH_WAYS)):
            own = timed.get((*key, form, step))
            row.append("" if own is None else f"{1e3 * statistics.median(own):,.2f}")
            for peer in peers:
                other = timed.get((*key, peer, step))
                row.append("" if own is None or other is None else f"{measure.ratio(other, own):.2f}")
        rows.append(row)
    times = [[f"x {peer}" for peer in peers] for peers in (PEERS, BOTH_WAYS)]
    header = ["input", "dtype", "form", "forward, ms", *times[0], "with backward, ms", *times[1]]
    note = (
        f"A learnable db4 lattice over {LEVEL} levels; x: how many times as fast as ptwt's learnable filters, as pywt, "
        "as pytorch_wavelets with fixed ones, and as a plain copy of the input, medians of pairwise ratios. ptwt wraps "
        "around as ours does (mode periodic) and makes up to a filter's length of coefficients more at each level. "
        f"{KEPT.strip(', ').capitalize()}: glibc was told so (`wavecomp.allocator`), for all alike; the peers, which "
        "take more of it, gain most."
    )
    values = [f"{entry['what']}: {entry['value']:.3g} {entry['unit']}" for entry in runs if "value" in entry]
    parts = [note, markdown(header, rows), *_memory_table(runs), *(f"{'; '.join(values)}." for _ in values[:1])]
    return "\n\n".join(parts)


def targets() -> list[Target]:
    """Speed beside ptwt's and a copy's, and what else a transform may take."""
    found = []
    for how in ("", KEPT):
        for chunk, forward, both in ((64, 8.0, 6.0), (128, 8.0, 4.5), (256, 6.0, 3.0)):
            for step, bound in (("forward", forward), ("both", both)):
                speed = functools.partial(_speed, f"chunks{how}", [chunk], step, "matrix", "ptwt", "float32")
                found.append(Target(f"chunks of {chunk}{how}, {PASSES[step]}: speed, x ptwt", bound, speed))
        for step, bound in (("forward", 4.0), ("both", 3.0)):
            speed = functools.partial(_speed, f"one piece{how}", [2**20], step, "banded", "ptwt", "float32")
            found.append(Target(f"one piece of 1,048,576{how}, {PASSES[step]}: speed, x ptwt", bound, speed))
    for name, what, bound in (
        ("time exponent", "forward and backward: power of the length that time grows with, up to 1,048,576", 1.1),
        ("training memory", "training's memory beyond tensors and gradients, x the input", 1.5),
        ("matrix of 128, with backward", "the matrix of chunks of 128, forward and backward, ms", 5.0),
    ):
        found.append(Target(what, bound, functools.partial(_value, name), at_most=True))
    for dtype, peer, step, bound in (
        ("bfloat16", "copy", "forward", 0.6),
        ("float32", "copy", "forward", 0.5),
        ("float32", "ptwt", "both", 10.0),
    ):
        speed = functools.partial(_speed, "chunks", [64, 128, 256], step, "triton", peer, dtype)
        what = f"GPU, chunks of up to 256, {dtype}, {PASSES[step]}: least speed, x {peer}"
        found.append(Target(what, bound, speed, gpu=True))
    return found


def _speed(
    what: str, sizes: Sequence[int], step: str, form: str, peer: str, dtype: str, runs: Sequence[Run]
) -> list[float]:
    """In that of a peer, the least of some lengths of what is transformed."""
    timed = where(runs, what=what, dtype=dtype, **{"pass": step})
    seconds = {(entry["size"][-2], entry["form"]): entry["seconds"] for entry in timed}
    found = [
        measure.ratio(seconds[size, peer], seconds[size, form])
        for size in sizes
        if (size, peer) in seconds and (size, form) in seconds
    ]
    return [min(found)] if len(found) == len(sizes) else []


def _value(what: str, runs: Sequence[Run]) -> list[float]:
    return [entry["value"] for entry in where(runs, what=what)]


def _memory_table(runs: Sequence[Run]) -> list[str]:
    """A row per input and form: the peak of a step, and that of its peers."""
    peaks = {(*_input(entry), entry["form"]): entry["memory"] for entry in runs if "memory" in entry}
    rows = []
    for *key, form in peaks:
        if form not in PEERS:
            what, size, dtype = key
            found = [peaks.get((*key, name)) for name in (form, *BOTH_WAYS)]
            told = ["" if peak is None else f"{peak:.2f}" for peak in found]
            rows.append([f"{what}, {' x '.join(map(str, size))}", str(dtype), form, *told])
    note = (
        "The peak of a forward and a backward pass beyond what was held before, in sizes of the input; coefficients "
        "and the input's gradient, which are made within, are two of them."
    )
    return [note, markdown(["input", "dtype", "form", "peak", *BOTH_WAYS], rows)] if rows else []


def _beside_peers(suffix: str, small: bool, repeats: int) -> list[Run]:
    """Chunks and one piece, by turns with peers; a suffix is said of what they are."""
    device = measure.device()
    runs: list[Run] = []
    for dtype in (torch.float32, torch.bfloat16):
        for x in _chunks(small, device, dtype):
            runs += _measured(f"chunks{suffix}", x, _forms(device), repeats)
        runs += _measured(f"one piece{suffix}", _long(small, device, dtype), ("banded",), min(repeats, 5))
    return runs


def _forms(device: torch.device) -> tuple[str, ...]:
    return ("matrix", "cascade", *(("triton",) if device.type == "cuda" else ()))


def _chunks(small: bool, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    x = _noise((1, 512, 64) if small else (8, 4096, 256), dtype, device)
    return [x.unflatten(1, (-1, chunk)) for chunk in (64, 128, 256)]


def _long(small: bool, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return _noise((1, 2**12 if small else 2**20, 64), dtype, device)


def _input(entry: Run) -> tuple[object, ...]:
    return entry["what"], tuple(entry["size"]), entry["dtype"]


def _measured(what: str, x: Tensor, forms: Sequence[str], repeats: int, *, peers: bool = True) -> Iterator[Run]:
    for name, functions in zip(("forward", "both"), _passes(x, forms, peers)):
        for form, seconds in measure.interleaved(functions, repeats).items():
            yield _entry(what, x, form) | {"pass": name, "seconds": seconds}


def _peaks(what: str, x: Tensor, forms: Sequence[str]) -> Iterator[Run]:
    """The peak of a forward and a backward pass beyond what was held before, in inputs."""
    for form, step in _passes(x, forms, peers=True)[1].items():
        step()
        yield _entry(what, x, form) | {"memory": measure.peak_memory(step) / (x.numel() * x.element_size())}


def _passes(x: Tensor, forms: Sequence[str], peers: bool) -> tuple[dict[str, Step], dict[str, Step]]:
    """Forward passes, and such with backward, of our forms and of the peers."""
    warnings.filterwarnings("ignore", message=".*evel.*")
    grad = torch.randn_like(x)
    forward: dict[str, Step] = {"copy": lambda: x.clone()}
    both: dict[str, Step] = {}
    for form in forms:
        transform = _transform(form, x)
        forward[form] = _forward(transform, x)
        both[form] = _both(_values(transform), [grad], x)
    if peers and x.dtype == torch.float32:  # ptwt and pywt refuse half precision
        rows = x.flatten(0, -3)
        learned = ProductFilter(*(torch.tensor(f, device=x.device) for f in pywt.Wavelet("db4").filter_bank))
        peer: Callable[[Tensor], Sequence[Any]] = lambda y: ptwt.wavedec(  # noqa: E731
            y.flatten(0, -3),
            learned,  # type: ignore[arg-type]
            mode="periodic",
            level=LEVEL,
            axis=-2,
        )
        forward["ptwt"] = _forward(peer, x)
        both["ptwt"] = _both(peer, [torch.randn_like(c) for c in peer(x)], x)
        if importlib.util.find_spec("pytorch_wavelets") is not None:
            fixed, channels_first = _fixed(x.device), rows.mT.contiguous()
            forward["pytorch_wavelets"] = _forward(fixed, channels_first)
            both["pytorch_wavelets"] = _both(
                fixed, [torch.randn_like(c) for c in fixed(channels_first)], channels_first
            )
        if not x.is_cuda:
            array = rows.numpy()
            forward["pywt"] = lambda: pywt.wavedec(array, "db4", mode="periodization", level=LEVEL, axis=-2)
    return forward, both


def _fixed(device: torch.device) -> Callable[[Tensor], Sequence[Tensor]]:
    """The transform of pytorch_wavelets: the approximation and the details, finest first."""
    from pytorch_wavelets import DWT1DForward

    transform = DWT1DForward(J=LEVEL, wave="db4", mode="periodization").to(device)

    def coefficients(x: Tensor) -> Sequence[Tensor]:
        approximation, details = transform(x)
        return [approximation, *details]

    return coefficients


def _growth(sizes: Sequence[int], device: torch.device, repeats: int) -> Iterator[Run]:
    """Pieces of all sizes by turns, and the power of the length that time grows with between the first and the last."""
    pieces = {str(length): _noise((1, length, 64), torch.float32, device) for length in sizes}
    steps = {name: _both(_values(_transform("banded", x)), [torch.randn_like(x)], x) for name, x in pieces.items()}
    seconds = measure.interleaved(steps, repeats, warm=True)
    for name, x in pieces.items():
        yield _entry("growth", x, "banded") | {"pass": "both", "seconds": seconds[name]}
    value = measure.exponent(sizes, [statistics.median(each) for each in seconds.values()])
    yield {"what": "time exponent", "value": value, "unit": f"from {sizes}", "seed": 0}


def _memory(x: Tensor) -> Run:
    """A training step's peak beyond the input, the coefficients and the gradients of both, in inputs."""
    step = _both(_values(_transform("banded", x)), [torch.randn_like(x)], x)
    step()
    size = x.numel() * x.element_size()
    beyond = measure.peak_memory(step) / size - 2  # the coefficients and the input's gradient are made within
    return {"what": "training memory", "value": beyond, "unit": "inputs beyond tensors and gradients", "seed": 0}


def _build(device: torch.device, repeats: int) -> Run:
    transform = _transform("matrix", torch.empty(0, device=device))
    like = torch.empty(0, device=device)

    def step() -> None:
        transform.analysis_matrix(128, like).sum().backward()

    times = [1e3 * seconds for seconds in measure.interleaved({"build": step}, repeats)["build"]]
    told = {"what": "matrix of 128, with backward", "value": statistics.median(times), "unit": "ms", "seed": 0}
    return told | {"times": times}


def _transform(form: str, like: Tensor) -> wc.DWT1d:
    return wc.DWT1d(wc.OrthogonalFilterBank("db4"), level=LEVEL, backend=form).to(like.device)  # type: ignore[arg-type]


def _values(transform: wc.DWT1d) -> Callable[[Tensor], Sequence[Tensor]]:
    return lambda x: [transform(x).values]


def _forward(transform: Callable[[Tensor], object], x: Tensor) -> Step:
    def step() -> None:
        with torch.no_grad():
            transform(x)

    return step


def _both(transform: Callable[[Tensor], Sequence[Tensor]], grads: Sequence[Tensor], x: Tensor) -> Step:
    leaf = x.clone().requires_grad_()

    def step() -> None:
        torch.autograd.backward(list(transform(leaf)), list(grads))
        leaf.grad = None  # held by no step when the next one begins

    return step


def _entry(what: str, x: Tensor, form: str) -> Run:
    return {"what": what, "size": list(x.shape), "dtype": str(x.dtype).removeprefix("torch."), "form": form, "seed": 0}


def _noise(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
