"""Discrete wavelet transforms along any axis, with pywt's numbers.

Notation used for tensor shapes: ``(..., length, ...)`` is the transformed axis, -2 unless said, so that
``(batch, length, dim)`` is transformed along its length.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from wavecomp.wavelets.taps import FilterTaps, Wavelet, check_mode


def dwt(data: Tensor, wavelet: Wavelet, *, mode: str = "periodization", axis: int = -2) -> tuple[Tensor, Tensor]:
    r"""One level of analysis.

    .. math:: cA[o] = \sum_j f[j]\, \tilde x[2o + F/2 - j]

    for a filter of F taps; an odd length repeats its last sample, then wraps.

    Args:
        data: ``(..., length, ...)``, floating point.
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        mode: how the signal goes on beyond its ends; ``"periodization"`` is critically sampled.
        axis: the transformed axis.

    Returns:
        ``(cA, cD)``, each ``ceil(length / 2)`` long on the axis.

    Raises:
        ValueError: unknown wavelet or mode, an axis that does not exist, an empty axis.
        TypeError: data that is not floating point.

    Example:
        >>> cA, cD = dwt(torch.ones(1, 6, 2), "haar")
        >>> cA.shape, float(cD.abs().max())
        (torch.Size([1, 3, 2]), 0.0)
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    axis = _check_data(data, axis)
    length = data.shape[axis]
    half = (length + 1) // 2
    reach = len(taps) // 2
    # sample i of the extended signal is data[(i - reach + 1) mod (2 * half)], the odd length's last sample repeated
    extended = torch.arange(1 - reach, 2 * half + reach - 1, device=data.device)
    samples = data.index_select(axis, extended.remainder(2 * half).clamp(max=length - 1))

    def filtered(dec: tuple[float, ...]) -> Tensor:
        return _sum(tap * _every_second(samples, axis, 2 * reach - 1 - j, half) for j, tap in enumerate(dec))

    return filtered(taps.dec_lo), filtered(taps.dec_hi)


def idwt(
    cA: Tensor | None, cD: Tensor | None, wavelet: Wavelet, *, mode: str = "periodization", axis: int = -2
) -> Tensor:
    """One level of synthesis: the inverse of :func:`dwt`, of even length.

    Args:
        cA, cD: ``(..., half, ...)``; either may be ``None`` and counts as zeros.

    Returns:
        ``(..., 2 * half, ...)``; an odd signal comes back with its repeated last sample.

    Raises:
        ValueError: shapes that differ, both missing, and whatever :func:`dwt` refuses.

    Example:
        >>> x = torch.randn(1, 6, 2)
        >>> torch.allclose(idwt(*dwt(x, "db2"), "db2"), x, atol=1e-6)
        True
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    given = [c for c in (cA, cD) if c is not None]
    if not given:
        raise ValueError("idwt: cA and cD are both None; give at least one")
    if len(given) == 2 and given[0].shape != given[1].shape:
        raise ValueError(f"idwt: cA has shape {tuple(given[0].shape)} and cD {tuple(given[1].shape)}; they must agree")
    axis = _check_data(given[0], axis)
    half = given[0].shape[axis]
    reach = len(taps) // 2
    # x[2q + p] = sum_i rec[2i + p + reach - 1] c[q - i]
    before = reach // 2
    extended = torch.arange(-before, half + before, device=given[0].device).remainder(half)

    def phase(p: int) -> Tensor:
        terms = []
        for c, rec in ((cA, taps.rec_lo), (cD, taps.rec_hi)):
            if c is None:
                continue
            wrapped = c.index_select(axis, extended)
            for i in range(-before, before + 1):
                if 0 <= (k := 2 * i + p + reach - 1) < len(rec):
                    terms.append(rec[k] * wrapped.narrow(axis, before - i, half))
        return _sum(terms)

    return torch.stack([phase(0), phase(1)], dim=axis + 1).flatten(axis, axis + 1)


def wavedec(
    data: Tensor, wavelet: Wavelet, *, mode: str = "periodization", level: int | None = None, axis: int = -2
) -> list[Tensor]:
    """Multilevel analysis.

    Args:
        data: ``(..., length, ...)``, floating point.
        level: levels of analysis; the most that :func:`dwt_max_level` allows unless given. A deeper one warns.

    Returns:
        ``[cA_n, cD_n, ..., cD_1]``, coarse to fine.

    Raises:
        ValueError: a negative level, and whatever :func:`dwt` refuses.

    Example:
        >>> [c.shape[-2] for c in wavedec(torch.randn(2, 64, 3), "db2", level=2)]
        [16, 16, 32]
    """
    taps = FilterTaps.of(wavelet)
    most = dwt_max_level(data.shape[_check_data(data, axis)], taps)
    if level is None:
        level = most
    if level < 0:
        raise ValueError(f"level={level} is negative; allowed: 0 and above")
    if level > most:
        warnings.warn(
            f"level={level} is above the {most} that this length and filter allow without boundary effects",
            stacklevel=2,
        )
    details = []
    for _ in range(level):
        data, detail = dwt(data, taps, mode=mode, axis=axis)
        details.append(detail)
    return [data, *reversed(details)]


def waverec(
    coeffs: Sequence[Tensor | None], wavelet: Wavelet, *, mode: str = "periodization", axis: int = -2
) -> Tensor:
    """Multilevel synthesis: the inverse of :func:`wavedec`.

    Args:
        coeffs: ``[cA_n, cD_n, ..., cD_1]``; a band that is ``None`` counts as zeros.

    Returns:
        ``(..., length, ...)``, one longer where the length was odd.

    Raises:
        ValueError: no coefficients, or bands whose lengths do not fit together.

    Example:
        >>> x = torch.randn(2, 64, 3)
        >>> torch.allclose(waverec(wavedec(x, "db2"), "db2"), x, atol=1e-5)
        True
    """
    if not len(coeffs):
        raise ValueError("waverec: coeffs is empty; give at least the approximation")
    data, *details = coeffs
    for detail in details:
        if data is not None and detail is not None:
            excess = data.shape[axis] - detail.shape[axis]
            if excess not in (0, 1):
                raise ValueError(
                    f"waverec: an approximation of length {data.shape[axis]} does not go with a detail of length "
                    f"{detail.shape[axis]}; it may be the same or one longer"
                )
            data = data.narrow(axis, 0, detail.shape[axis])
        data = idwt(data, detail, wavelet, mode=mode, axis=axis)
    if data is None:
        raise ValueError("waverec: coeffs=[None] holds no coefficients")
    return data


def dwt_max_level(data_len: int, wavelet: Wavelet) -> int:
    """The deepest level at which at least one coefficient is free of boundary effects, as in pywt.

    Example:
        >>> dwt_max_level(64, "db4")
        3
    """
    taps = len(FilterTaps.of(wavelet))
    if data_len < taps - 1:
        return 0
    return int(math.log2(data_len / (taps - 1)))


def _check_data(data: Tensor, axis: int) -> int:
    if not data.is_floating_point():
        raise TypeError(f"data has dtype {data.dtype}; allowed: floating point")
    if not -data.ndim <= axis < data.ndim:
        raise ValueError(f"axis={axis} does not exist in data of shape {tuple(data.shape)}")
    if not data.shape[axis]:
        raise ValueError(f"data of shape {tuple(data.shape)} is empty along axis={axis}")
    return axis % data.ndim


def _every_second(samples: Tensor, axis: int, start: int, count: int) -> Tensor:
    window = (slice(None),) * axis + (slice(start, start + 2 * count - 1, 2),)
    return samples[window]


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *rest = terms
    for term in rest:
        first = first + term
    return first
