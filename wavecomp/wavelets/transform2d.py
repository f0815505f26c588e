"""Multilevel transforms over two axes together, tokens and channels, with pywt's numbers.

Each level runs :func:`dwt` along one axis and then along the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor

from wavecomp.records import check_count
from wavecomp.wavelets.extension import check_mode
from wavecomp.wavelets.taps import FilterTaps, Wavelet
from wavecomp.wavelets.transform import check_data, dwt, dwt_max_level, idwt, level_lengths

Details2d: TypeAlias = tuple[Tensor, Tensor, Tensor]


def wavedec2(
    data: Tensor,
    wavelet: Wavelet,
    *,
    mode: str = "symmetric",
    level: int | None = None,
    axes: tuple[int, int] = (-2, -1),
) -> list[Tensor | Details2d]:
    """Multilevel analysis over two axes.

    Args:
        data: ``(..., length, ..., dim, ...)``, floating point.
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        mode: how the signal goes on beyond its ends, as in :func:`dwt`.
        level: levels of analysis; the most that :func:`dwt_max_level` allows on both axes unless given. A deeper one
            warns.
        axes: the two transformed axes.

    Returns:
        ``[cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]``, coarse to fine: cH is the detail along the first axis,
        cV along the second, cD along both.

    Raises:
        ValueError: axes that are equal or do not exist, a negative level, and whatever :func:`dwt` refuses.
        TypeError: data that is not floating point.

    Example:
        >>> cA, (cH, cV, cD) = wavedec2(torch.randn(2, 64, 16), "haar", level=1)
        >>> cA.shape, cD.shape
        (torch.Size([2, 32, 8]), torch.Size([2, 32, 8]))
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    first, second = _check_axes(data, axes)
    most = min(dwt_max_level(data.shape[axis], taps) for axis in (first, second))
    if level is None:
        level = most
    check_count("level", level, least=0)
    if level > most:
        warnings.warn(
            f"level={level} is above the {most} that these lengths and filter allow without boundary effects",
            stacklevel=2,
        )
    details: list[Tensor | Details2d] = []
    for _ in range(level):
        low, high = dwt(data, taps, mode=mode, axis=first)
        data, cV = dwt(low, taps, mode=mode, axis=second)
        cH, cD = dwt(high, taps, mode=mode, axis=second)
        details.append((cH, cV, cD))
    return [data, *reversed(details)]


def waverec2(
    coeffs: Sequence[Any],
    wavelet: Wavelet,
    *,
    mode: str = "symmetric",
    axes: tuple[int, int] = (-2, -1),
    shape: tuple[int, int] | None = None,
) -> Tensor:
    """Multilevel synthesis over two axes: the inverse of :func:`wavedec2`.

    Args:
        coeffs: ``[cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]``; a band that is ``None`` counts as zeros.
        mode, axes: of the analysis.
        shape: of the signal along the two axes; an odd one comes back one longer unless this is given.

    Returns:
        ``(..., length, ..., dim, ...)``.

    Raises:
        ValueError: no coefficients, details that are not three, bands that do not fit together, a shape that they do
            not have, axes that are equal or do not exist.

    Example:
        >>> x = torch.randn(2, 33, 7)
        >>> torch.allclose(waverec2(wavedec2(x, "haar"), "haar", shape=(33, 7)), x, atol=1e-5)
        True
    """
    if not len(coeffs):
        raise ValueError("waverec2: coeffs is empty; give at least the approximation")
    if shape is not None and len(shape) != 2:
        raise ValueError(f"waverec2: shape={shape} needs two lengths, one for each of axes={axes}")
    data, *details = coeffs
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    for step, bands in enumerate(details):
        if not isinstance(bands, tuple | list) or len(bands) != 3:
            raise ValueError(f"waverec2: coeffs[{step + 1}] is not a triple (cH, cV, cD)")
    sides = [level_lengths(side, len(details), taps, mode) for side in shape or (None, None)]
    for step, bands in enumerate(details):
        known = [band for band in bands if band is not None]
        if data is not None and known:
            data = _trimmed(data, known[0], _check_axes(data, axes))
        if data is None and not known:
            continue
        # where the next details do not say how long an approximation is, the shape of the signal does
        unknown = step == len(details) - 1 or all(band is None for band in details[step + 1])
        length, dim = (side[step] if unknown else None for side in sides)
        data = _joined((data, *bands), taps, mode, axes, length, dim)
    if data is None:
        raise ValueError("waverec2: coeffs holds None only; give at least one band")
    if not details and shape is not None:
        first, second = _check_axes(data, axes)
        if (data.shape[first], data.shape[second]) != tuple(shape):
            raise ValueError(f"waverec2: shape={shape} does not go with an approximation of {tuple(data.shape)}")
    return data


def _joined(
    bands: Sequence[Tensor | None],
    taps: FilterTaps,
    mode: str,
    axes: tuple[int, int],
    length: int | None,
    dim: int | None,
) -> Tensor:
    """One level of synthesis, from ``(cA, cH, cV, cD)``."""
    known = [band for band in bands if band is not None]
    if not known:
        raise ValueError("waverec2: all bands of a level are None; give at least one")
    first, second = _check_axes(known[0], axes)
    if len({band.shape for band in known}) > 1:
        raise ValueError(f"waverec2: bands of a level have shapes {[tuple(b.shape) for b in known]}; they must agree")
    cA, cH, cV, cD = bands

    def along_second(low: Tensor | None, high: Tensor | None) -> Tensor | None:
        return None if low is None and high is None else idwt(low, high, taps, mode=mode, axis=second, length=dim)

    return idwt(along_second(cA, cV), along_second(cH, cD), taps, mode=mode, axis=first, length=length)


def _trimmed(approximation: Tensor, detail: Tensor, axes: tuple[int, int]) -> Tensor:
    """The approximation without the sample that the synthesis of an odd length adds."""
    for axis in axes:
        excess = approximation.shape[axis] - detail.shape[axis]
        if excess not in (0, 1):
            raise ValueError(
                f"waverec2: an approximation of shape {tuple(approximation.shape)} does not go with details of shape "
                f"{tuple(detail.shape)}; along each axis it may be the same or one longer"
            )
        approximation = approximation.narrow(axis, 0, detail.shape[axis])
    return approximation


def _check_axes(data: Tensor, axes: tuple[int, int]) -> tuple[int, int]:
    if len(axes) != 2:
        raise ValueError(f"axes={axes} does not name two axes")
    first, second = (check_data(data, axis) for axis in axes)
    if first == second:
        raise ValueError(f"axes={axes} names one axis of data of shape {tuple(data.shape)} twice; allowed: two axes")
    return first, second
