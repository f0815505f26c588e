"""``wavecomp doctor``: what is installed, what it runs on, and which backends it would take."""

from __future__ import annotations

import os
import platform
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

import wavecomp as wc
from wavecomp.files.recipes import recipe_folder, recipes
from wavecomp.wavelets import kernels

PACKAGES = (
    "torch", "pywavelets", "ptwt", "einops", "lightning", "torchmetrics", "jsonargparse", "safetensors", "matplotlib",
    "tqdm",
)  # fmt: skip
EXTRAS = {"hub": ("datasets", "tokenizers", "huggingface-hub")}
SIDE = 512  # of the matrices that tell how fast a type of numbers is


def add_arguments(parser: ArgumentParser) -> None:
    """Nothing can be set."""


def run(arguments: Namespace) -> None:
    """Write what was found, line by line."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sections = {"Versions": versions(), "Devices": devices(), "Backends": backends(device), "Recipes": known_recipes()}
    for title, lines in sections.items():
        sys.stdout.write(f"{title}\n" + "".join(f"  {name:<18}{found}\n" for name, found in lines))


def versions() -> Iterator[tuple[str, str]]:
    """Python, the library and what it is built on."""
    yield "wavecomp", f"{wc.__version__} in {Path(wc.__file__).parent}"
    yield "python", f"{platform.python_version()}, {platform.platform()}"
    for name in PACKAGES:
        yield name, version(name) or f"missing: pip install {name}"
    for extra, names in EXTRAS.items():
        for name in names:
            yield name, version(name) or f"not installed; for data from the Hub: pip install 'wavecomp[{extra}]'"


def devices() -> Iterator[tuple[str, str]]:
    """What there is to compute on."""
    asked = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()} threads" + (f" (OMP_NUM_THREADS={asked})" if asked else "")
    yield "cpu", f"{os.cpu_count()} cores, {threads}, {torch.backends.cpu.get_cpu_capability()}"
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", f"{found.name}, {found.total_memory / 2**30:.0f} GiB, sm_{found.major}{found.minor}"
    if not torch.cuda.is_available():
        yield "cuda", f"none; torch is built {f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'without it'}"
    if torch.backends.mps.is_available():
        yield "mps", "available"


def backends(device: torch.device) -> Iterator[tuple[str, str]]:
    """What would run on this device."""
    yield "device", str(device)
    transform = wc.DWT1d("haar", level=3)
    forms = {length: transform.form(torch.empty(1, 1, length, 1, device=device)) for length in (64, 4096)}
    yield "DWT1d", ", ".join(f"'{form}' for chunks of {length}" for length, form in forms.items()) + " (backend='auto')"
    if kernels.available(torch.empty(0, device=device)):
        yield "triton", f"{version('triton')}, backend='triton' runs"
    else:
        found = f"{version('triton')}, but no CUDA device" if kernels.TRITON else "not installed"
        yield "triton", f"{found}; backend='triton' cannot run"
    yield (
        "attention",
        "backend='sdpa'"
        + (" or 'flex'" if device.type == "cuda" else "; 'flex' without gradients only, training with it needs CUDA"),
    )
    whole, half = (product_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    yield "bf16", f"products {whole / half:.1f} times as fast as in fp32"


def known_recipes() -> Iterator[tuple[str, str]]:
    """Whether the recipes were installed too."""
    names = [path.stem for path in recipes()]
    yield str(len(names)), f"in {recipe_folder()}" if names else f"none in {recipe_folder()}: install wavecomp again"


def version(package: str) -> str | None:
    """The version of a package; ``None`` where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def product_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """The fastest of several products of two matrices."""
    matrix = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    found = []
    for _ in range(5):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        found.append(time.perf_counter() - start)
    return min(found)
