"""How benchmarks measure: interleaved repetitions in one process, and peaks of memory."""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

Run = dict[str, Any]
T = TypeVar("T")


class Options(NamedTuple):
    """What a benchmark is told; each uses what it has a use for.

    Args:
        repeats: interleaved repetitions of each measurement.
        small: tiny sizes, to see that it runs.
        jobs: members of a grid that run at once.
        source: text to train on; the sources of Python's standard library unless given.
        only: beginnings of the names of the members of a grid that run; all unless given.
        collect: run no member of a grid, take those that are done.
        checkpoint: folders of trained models.
    """

    repeats: int = 9
    small: bool = False
    jobs: int = 1
    source: str | None = None
    only: tuple[str, ...] = ()
    collect: bool = False
    checkpoint: tuple[str, ...] = ()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of each repetition, all functions by turns, after one call of each for warmth.

    Args:
        warm: whether each is called once more before each time: where they are of different sizes, the caches of a
            small one are those that a large one left.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            if warm:
                function()
            finish()
            start = time.perf_counter()
            function()
            finish()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of pairwise ratios: how often ``fast`` fits into ``slow``."""
    return statistics.median(s / f for s, f in zip(slow, fast))


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes at the peak of a call beyond those held before it."""
    if torch.cuda.is_available():
        finish()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # a block that was freed and kept would be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The power of its size that time grows with, between the first and the last."""
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


def finish() -> None:
    """Wait until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """What a function gives in a process of its own, on as many threads: nothing was held or set there before."""
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as pool:
        return pool.submit(function, *arguments).result()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
