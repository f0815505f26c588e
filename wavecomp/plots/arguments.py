"""What the plots are given: checked, and brought to numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from wavecomp.bands import Bands
from wavecomp.codes import Codes

T = TypeVar("T")


def check_number(name: str, value: int, count: int) -> None:
    """Raise ``ValueError`` unless ``value`` is one of 0 to ``count - 1``."""
    if not 0 <= value < count:
        raise ValueError(f"{name}={value} is out of range; allowed: {f'0 to {count - 1}' if count else 'none'}")


def check_runs(runs: Sequence[Mapping[str, Any]], needed: Sequence[str]) -> None:
    """Raise ``ValueError`` where there are no records, or one lacks a key."""
    if not runs:
        raise ValueError("runs=[] is empty; give at least one record")
    for place, run in enumerate(runs):
        missing = [key for key in needed if key not in run]
        if missing:
            raise ValueError(f"runs[{place}] lacks {missing}; allowed: records with {list(needed)}")


def all_of(name: str, given: Sequence[T] | None, own: list[T]) -> list[T]:
    """What has a colour each: that of several panels, where it is given and has all that the runs of this one have."""
    if given is None:
        return own
    if not {*own} <= {*given}:
        raise ValueError(f"{name}={list(given)} leaves out some of the runs; allowed: at least {own}")
    return list(given)


def array(tensor: Tensor) -> np.ndarray:
    """A tensor from any device; floating point as fp64."""
    tensor = tensor.detach().cpu()
    return tensor.to(torch.float64).numpy() if tensor.is_floating_point() else tensor.numpy()


def check_tokens(row: int, lengths: Tensor) -> None:
    """Raise ``ValueError`` where a row's chunks hold nothing."""
    if not lengths.any():
        raise ValueError(f"row={row} holds no tokens; allowed: a row with some")


def row_of(bands: Bands, row: int, values: Tensor) -> Tensor:
    """What ``values`` hold of a row's chunks, ``(chunks, ...)``; bands without a batch are chunks of one row."""
    if bands.values.ndim == 3:
        check_number("row", row, 1)
        return values
    check_number("row", row, len(bands.values))
    return values[row]


def statistic(codes: Codes, name: str, stage: int) -> Tensor:
    """A statistic of a stage, ``(batch, chunks, ...)``, whether or not the codes went through a ChunkReduce."""
    path = f"chunk_networks.{stage}.{name}"
    if path in codes.statistics:
        return codes.statistics[path]
    if stage == 0 and name in codes.statistics:
        return codes.statistics[name]
    found = sorted(key for key in codes.statistics if key.split(".")[-1] == name)
    raise ValueError(f"codes carry no {name!r} of stage={stage}; found: {', '.join(found) or 'none of any stage'}")
