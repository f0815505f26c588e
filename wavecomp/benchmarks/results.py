"""What a file of results says: every single run, and all that it takes to run them again."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from wavecomp.benchmarks.measure import Options, Run
from wavecomp.training.data.text import find_files

PACKAGES = ("torch", "ptwt", "pywavelets", "pytorch_wavelets", "numpy", "wavecomp")
UNKNOWN = "unknown"
Result = dict[str, Any]


def result(name: str, runs: Sequence[Run], options: Options, *, members: int | None = None) -> Result:
    """Every single run, what it ran on, and the command.

    Args:
        members: how many runs there are in all, of a grid that may be there in part.
    """
    return {
        "benchmark": name,
        "command": command(name, options),
        "source": None if options.source is None else text(options.source),
        "versions": versions() if members is None else versions() | {"torch": _each(runs, "torch")},
        "device": device() if members is None else _each(runs, "device"),
        "commit": commit() if members is None else _each(runs, "commit"),
        "seeds": sorted({run["seed"] for run in runs}),
        "members": members,
        "runs": list(runs),
    }


def versions() -> dict[str, str]:
    """Of Python and of those packages that count and are installed."""
    installed = {(found.name or "").replace("-", "_").lower(): found.version for found in metadata.distributions()}
    found = {package: installed[package] for package in PACKAGES if package in installed}
    return found | {"python": platform.python_version()}


def runs_of(path: Path, name: str, options: Options) -> list[Run]:
    """The runs of a file that the same command made of the same text, none where there is no such file."""
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("command") != command(name, options):
        return []
    source = None if options.source is None else text(options.source)
    return found["runs"] if found["source"] == source else []


def command(name: str, options: Options) -> str:
    """The command that a benchmark was run by, without folders: those of another machine say nothing.

    Checkpoints are shown where the recipes leave them, under ``runs``.

    Example:
        >>> command("ratio", Options(source="/home/me/book.txt", repeats=5))
        'python -m wavecomp.benchmarks ratio --repeats 5 --source book.txt'
    """
    words = ["python", "-m", "wavecomp.benchmarks", name]
    words += ["--small"] * options.small
    if options.repeats != Options().repeats:
        words += ["--repeats", str(options.repeats)]
    if options.source is not None:
        words += ["--source", Path(options.source).name]
    if options.checkpoint:
        words += ["--checkpoint", *(f"runs/{run_name(checkpoint)}" for checkpoint in options.checkpoint)]
    return shlex.join(words)


def run_name(checkpoint: str) -> str:
    """A folder of a run by the end of its path: the recipe and the version.

    Example:
        >>> run_name("/home/me/runs/passkey/version_0")
        'passkey/version_0'
    """
    return Path(*Path(checkpoint).parts[-2:]).as_posix()


def text(source: str) -> dict[str, Any]:
    """Which text it was, wherever it lies: name, files, bytes, and the hash of all files one after another."""
    digest, size = hashlib.sha256(), 0
    files = find_files(source)
    for path in files:
        content = path.read_bytes()
        digest.update(content)
        size += len(content)
    return {"name": Path(source).name, "files": len(files), "bytes": size, "sha256": digest.hexdigest()}


def caption(found: Result, path: Path) -> str:
    """Markdown about a result: device, versions, how much of the grid, seeds, file and command.

    Args:
        found: what :func:`result` gave.
        path: of the file, as it is to be shown.
    """
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    runs, members = len(found["runs"]), found["members"]
    count = f"{runs:,} runs" if members is None else f"{runs:,} of {members:,} members of the grid"
    if all("took" in run for run in found["runs"]):
        count += f", {sum(run['took'] for run in found['runs']) / 3600:.1f} hours in all"
    seeds = ", ".join(map(str, found["seeds"]))
    parts = [found["device"], f"{versions}, commit {found['commit']}", count, f"seeds {seeds}"]
    source = found["source"]
    if source is not None:
        parts.append(f"text {source['name']} ({source['bytes']:,} bytes, sha256 {source['sha256'][:12]})")
    return f"{'; '.join(parts)}. Every run is in `{path.as_posix()}`, made by\n\n    {found['command']}"


@functools.lru_cache
def commit() -> str:
    """That of the checkout, as this process began; with what is not committed it is ``dirty``."""
    root = Path(__file__).parents[2]
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
    return found.stdout.strip() or UNKNOWN


def _each(runs: Sequence[Run], key: str) -> str:
    """Those of the members of a grid: some may be older than others, or of another machine."""
    return ", ".join(sorted({run.get(key, UNKNOWN) for run in runs})) or UNKNOWN


def device() -> str:
    """The GPU, or the processor and how many threads are used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = model[0].split(":")[1].strip() if model else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"
