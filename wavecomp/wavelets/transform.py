"""Discrete wavelet transforms along any axis, with pywt's numbers.

Notation used for tensor shapes: ``length`` is the transformed axis, the last unless said, as in pywt; the library's
own ``(batch, length, dim)`` needs ``axis=-2``, which its modules take by themselves.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from wavecomp.records import check_count
from wavecomp.wavelets.extension import check_mode, extend
from wavecomp.wavelets.taps import FilterTaps, Wavelet


def dwt(data: Tensor, wavelet: Wavelet, *, mode: str = "symmetric", axis: int = -1) -> tuple[Tensor, Tensor]:
    r"""One level of analysis.

    .. math:: cA[o] = \sum_j f[j]\, \tilde x[2o + 1 - j]

    for a filter f and the signal :math:`\tilde x` extended by the mode; periodization starts at F/2 instead of 1, with
    F the filter's length.

    Args:
        data: ``(..., length, ...)``, floating point.
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        mode: how the signal goes on beyond its ends, one of pywt's nine; ``"periodization"`` is critically sampled.
        axis: the transformed axis.

    Returns:
        ``(cA, cD)``, each :func:`dwt_coeff_len` long on the axis.

    Raises:
        ValueError: unknown wavelet or mode, an axis that does not exist, an empty axis, a single sample to reflect.
        TypeError: data that is not floating point.

    Example:
        >>> cA, cD = dwt(torch.ones(2, 6), "haar")
        >>> cA.shape, float(cD.abs().max())
        (torch.Size([2, 3]), 0.0)
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    axis = check_data(data, axis)
    length, last = data.shape[axis], len(taps) - 1
    if length == 1 and mode in ("reflect", "antireflect"):
        raise ValueError(f"data of length 1 has nothing to reflect in mode={mode!r}; allowed: 2 and above")
    count = dwt_coeff_len(length, len(taps), mode)
    start = len(taps) // 2 if mode == "periodization" else 1
    # tap j meets the sample at 2 o + start - j: those from start - last to 2 (count - 1) + start are needed
    counted = length + length % 2 if mode == "periodization" else length
    samples = extend(wide(data), last - start, max(2 * count - 1 + start - counted, 0), mode=mode, axis=axis)

    windows = [_every_second(samples, axis, last - j, count) for j in range(len(taps))]
    cA, cD = (total(zip(dec, windows)).to(data.dtype) for dec in (taps.dec_lo, taps.dec_hi))
    return cA, cD


def idwt(
    cA: Tensor | None,
    cD: Tensor | None,
    wavelet: Wavelet,
    *,
    mode: str = "symmetric",
    axis: int = -1,
    length: int | None = None,
) -> Tensor:
    """One level of synthesis: the inverse of :func:`dwt`.

    Args:
        cA, cD: ``(..., count, ...)``; either may be ``None`` and counts as zeros.
        mode: the mode of the analysis.
        length: of the signal; an odd signal comes back one longer unless this is given.

    Returns:
        ``(..., 2 * count - F + 2, ...)`` for filters of F taps, ``2 * count`` with periodization, or ``length``.

    Raises:
        ValueError: shapes that differ, both missing, a length that these coefficients do not have, and whatever
            :func:`dwt` refuses.

    Example:
        >>> x = torch.randn(2, 7)
        >>> torch.allclose(idwt(*dwt(x, "db2"), "db2", length=7), x, atol=1e-6)
        True
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    given = [c for c in (cA, cD) if c is not None]
    if not given:
        raise ValueError("idwt: cA and cD are both None; give at least one")
    if len(given) == 2 and given[0].shape != given[1].shape:
        raise ValueError(f"idwt: cA has shape {tuple(given[0].shape)} and cD {tuple(given[1].shape)}; they must agree")
    axis = check_data(given[0], axis)
    count = given[0].shape[axis]
    periodic = mode == "periodization"
    whole = 2 * count - (0 if periodic else len(taps) - 2)
    if whole < 1:
        raise ValueError(f"idwt: {count} coefficients are too few for a filter of {len(taps)} taps in mode={mode!r}")
    if length is not None and length not in (whole, whole - 1):
        raise ValueError(
            f"idwt: length={length} does not go with {count} coefficients; allowed: {whole - 1} or {whole}"
        )
    # x[2q + p] = sum_i rec[2i + p + shift] c[q - i]; without periodization the first F / 2 - 1 pairs lie before x
    shift = len(taps) // 2 - 1 if periodic else len(taps) - 2
    steps = [i for i in range(-len(taps), len(taps)) if 0 <= 2 * i + 1 + shift <= len(taps)]
    place = torch.arange(-max(steps), whole // 2 - min(steps), device=given[0].device)
    place = place.remainder(count) if periodic else place.clamp(0, count - 1)

    windows = []  # each band's filter with what each of its taps meets
    for c, rec in ((cA, taps.rec_lo), (cD, taps.rec_hi)):
        if c is not None:
            wrapped = wide(c).index_select(axis, place)
            windows += [(rec, 2 * i + shift, wrapped.narrow(axis, max(steps) - i, whole // 2)) for i in steps]

    def phase(p: int) -> Tensor:
        return total((rec[k + p], window) for rec, k, window in windows if 0 <= k + p < len(rec))

    pairs = torch.stack([phase(0), phase(1)], dim=axis + 1).flatten(axis, axis + 1).to(given[0].dtype)
    return pairs if length is None else pairs.narrow(axis, 0, length)


def wavedec(
    data: Tensor, wavelet: Wavelet, *, mode: str = "symmetric", level: int | None = None, axis: int = -1
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
        >>> [c.shape[-2] for c in wavedec(torch.randn(2, 64, 3), "db2", level=2, axis=-2)]
        [18, 18, 33]
    """
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    axis = check_data(data, axis)
    most = dwt_max_level(data.shape[axis], taps)
    if level is None:
        level = most
    check_count("level", level, least=0)
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
    coeffs: Sequence[Tensor | None],
    wavelet: Wavelet,
    *,
    mode: str = "symmetric",
    axis: int = -1,
    length: int | None = None,
) -> Tensor:
    """Multilevel synthesis: the inverse of :func:`wavedec`.

    Args:
        coeffs: ``[cA_n, cD_n, ..., cD_1]``; a band that is ``None`` counts as zeros.
        length: of the signal; an odd signal comes back one longer unless this is given.

    Returns:
        ``(..., length, ...)``.

    Raises:
        ValueError: no coefficients, bands whose lengths do not fit together, or a length that they do not have.
        TypeError: a band that is not in floating point.

    Example:
        >>> x = torch.randn(2, 65)
        >>> torch.allclose(waverec(wavedec(x, "db2"), "db2", length=65), x, atol=1e-5)
        True
    """
    if not len(coeffs):
        raise ValueError("waverec: coeffs is empty; give at least the approximation")
    data, *details = coeffs
    taps = FilterTaps.of(wavelet)
    check_mode(mode)
    for band in coeffs:
        if band is not None:
            check_data(band, axis)
    lengths = level_lengths(length, len(details), taps, mode)
    for step, detail in enumerate(details):
        if data is None and detail is None:
            continue
        if data is not None and detail is not None:
            excess = data.shape[axis] - detail.shape[axis]
            if excess not in (0, 1):
                raise ValueError(
                    f"waverec: an approximation of length {data.shape[axis]} does not go with a detail of length "
                    f"{detail.shape[axis]}; it may be the same or one longer"
                )
            data = data.narrow(axis, 0, detail.shape[axis])
        # where the next detail does not say how long an approximation is, the length of the signal does
        unknown = step == len(details) - 1 or details[step + 1] is None
        wanted = lengths[step] if unknown else None
        data = idwt(data, detail, taps, mode=mode, axis=axis, length=wanted)
    if data is None:
        raise ValueError("waverec: coeffs holds None only; give at least one band")
    if not details and length not in (None, data.shape[axis]):
        raise ValueError(f"waverec: length={length} does not go with an approximation of length {data.shape[axis]}")
    return data


def dwt_coeff_len(data_len: int, filter_len: int, mode: str) -> int:
    """Coefficients in each branch of one level: ``ceil(data_len / 2)`` with periodization, else
    ``floor((data_len + filter_len - 1) / 2)``.

    Example:
        >>> dwt_coeff_len(64, 8, "symmetric"), dwt_coeff_len(65, 8, "periodization")
        (35, 33)
    """
    check_mode(mode)
    if data_len < 1 or filter_len < 1:
        raise ValueError(f"data_len={data_len}, filter_len={filter_len}; allowed: 1 and above")
    return (data_len + 1) // 2 if mode == "periodization" else (data_len + filter_len - 1) // 2


def level_lengths(length: int | None, levels: int, taps: FilterTaps, mode: str) -> list[int | None]:
    """What the synthesis of each level gives of a signal this long, coarse to fine; ``None`` of an unknown one."""
    lengths = [length]
    for _ in range(1, levels):
        lengths.insert(0, None if lengths[0] is None else dwt_coeff_len(lengths[0], len(taps), mode))
    return lengths


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


def check_data(data: Tensor, axis: int) -> int:
    if not isinstance(data, Tensor):
        raise TypeError(f"data is of {type(data).__name__}; allowed: torch.Tensor")
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


def wide(data: Tensor) -> Tensor:
    """Data in single precision at least: a sum of products in half precision would be rounded at every tap."""
    return data.to(torch.promote_types(data.dtype, torch.float32))


def total(terms: Iterable[tuple[float, Tensor]]) -> Tensor:
    """The sum of tensors, each times its tap."""
    (tap, first), *rest = terms
    found = tap * first
    for tap, term in rest:
        found = torch.add(found, term, alpha=tap)
    return found
