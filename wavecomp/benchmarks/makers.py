"""Compressors that several benchmarks measure: wavelets with their detail channel, fixed and adaptive."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

import wavecomp as wc

Maker = Callable[[], wc.Compressor]


def wavelet(
    transform: wc.ChunkTransform,
    pruner: wc.Pruner,
    *,
    dim: int,
    width: int | None = None,
    channel: bool = True,
    encoding: nn.Module | None = None,
) -> wc.WaveletCompressor:
    """Coefficients that a pruner keeps, marked with position and frequency.

    Args:
        dim, width: of the detail channel.
        channel: whether there is one.
        encoding: the additive one unless given.
    """
    return wc.WaveletCompressor(
        transform=transform,
        pruner=pruner,
        detail_channel=wc.DetailChannel(dim=dim, level=transform.level, width=width) if channel else None,
        encoding=wc.PositionFrequencyEncoding(dim) if encoding is None else encoding,
    )


def shrinkage(
    ratio: float, *, dim: int, level: int, width: int | None = None, price: float = 0.0, spread: float = 0.5
) -> wc.Compressor:
    """See :func:`wavelet`; price and spread are the pruner's."""
    pruner = wc.Shrinkage(target_ratio=ratio, price=price, spread=spread)
    return wavelet(wc.DWT1d("haar", level=level), pruner, dim=dim, width=width)


def leaves(ratio: float, *, dim: int, **size: Any) -> wc.Compressor:
    """See :func:`wavelet`."""
    return _at_learned_levels(functools.partial(wc.DyadicLeaves, dim=dim), ratio, dim=dim, **size)


def partial_synthesis(ratio: float, *, predicted: bool = False, **size: Any) -> wc.Compressor:
    """See :func:`wavelet`.

    Args:
        predicted: whether levels go by what a predictor missed.
    """
    more: dict[str, Any] = {"predictor": wc.DetailPredictor(dim=size["dim"], level=size["level"])} if predicted else {}
    return _at_learned_levels(wc.PartialSynthesis, ratio, **size, **more)


def _at_learned_levels(
    kind: Callable[..., wc.Compressor], ratio: float, *, dim: int, level: int, width: int | None = None, **more: Any
) -> wc.Compressor:
    return kind(
        transform=wc.DWT1d("haar", level=level),
        target_ratio=ratio,
        **more,
        detail_channel=wc.DetailChannel(dim=dim, level=level, width=width),
        encoding=wc.PositionFrequencyEncoding(dim),
    )
