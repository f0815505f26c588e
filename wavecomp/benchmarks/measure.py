"""How benchmarks measure: interleaved repetitions in one process, and peaks of memory."""

from __future__ import annotations

import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

PACKAGES = ("torch", "ptwt", "pywavelets", "numpy", "wavecomp")
Run = dict[str, Any]


class Options(NamedTuple):
    """What a benchmark is told; each uses what it has a use for.

    Args:
        repeats: interleaved repetitions of each measurement.
        small: tiny sizes, to see that it runs.
        jobs: members of a grid that run at once.
        source: text to train on; the sources of Python's standard library unless given.
        only: beginnings of the names of the members of a grid that run; all unless given.
    """

    repeats: int = 9
    small: bool = False
    jobs: int = 1
    source: str | None = None
    only: tuple[str, ...] = ()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def interleaved(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each repetition, all functions by turns, after one call of each for warmth."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            _finish()
            start = time.perf_counter()
            function()
            _finish()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of pairwise ratios: how often ``fast`` fits into ``slow``."""
    return statistics.median(s / f for s, f in zip(slow, fast))


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes at the peak of a call beyond those held before it."""
    if torch.cuda.is_available():
        _finish()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The power of its size that time grows with, between the first and the last."""
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


def result(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Every single run, and what it ran on."""
    return {
        "benchmark": name,
        "versions": {package: metadata.version(package) for package in PACKAGES}
        | {"python": platform.python_version()},
        "device": _device_name(),
        "commit": _commit(),
        "seeds": sorted({run["seed"] for run in runs}),
        "runs": list(runs),
    }


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = model[0].split(":")[1].strip() if model else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


def _commit() -> str:
    root = Path(__file__).parents[2]
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
