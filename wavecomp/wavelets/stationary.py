r"""Stationary (undecimated) transforms: every band has the signal's length, and a shifted signal shifted bands.

Level l filters the approximation of level l - 1 with taps that stand :math:`2^{l-1}` samples apart (à trous), so
nothing is thrown away and the bands are redundant: one coefficient per sample, level by level.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wavecomp.records import check_count
from wavecomp.wavelets.extension import extend
from wavecomp.wavelets.taps import FilterTaps, Wavelet
from wavecomp.wavelets.transform import check_data, total, wide


def swt(data: Tensor, wavelet: Wavelet, *, level: int, axis: int = -1) -> list[Tensor]:
    """Stationary transform of a signal that is its own continuation, as ``pywt.swt(..., trim_approx=True)``.

    Args:
        data: ``(..., length, ...)``, floating point; the length divisible by ``2 ** level``.
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        level: levels of analysis.

    Returns:
        ``[cA_n, cD_n, ..., cD_1]``, coarse to fine, each of the signal's shape.

    Raises:
        ValueError: a negative level, a length that ``2 ** level`` does not divide, and whatever :func:`dwt` refuses.
        TypeError: data that is not floating point.

    Example:
        >>> [tuple(c.shape) for c in swt(torch.randn(2, 64), "db2", level=2)]
        [(2, 64), (2, 64), (2, 64)]
    """
    taps = FilterTaps.of(wavelet)
    axis = check_data(data, axis)
    _check_level("swt", data.shape[axis], level, divisible=True)
    half = len(taps) // 2
    details = []
    for step in range(level):
        spread = 2**step
        samples = extend(data, spread * (half - 1), spread * half, mode="periodic", axis=axis)
        data, detail = (_filtered(samples, dec, spread, axis) for dec in (taps.dec_lo, taps.dec_hi))
        details.append(detail)
    return [data, *reversed(details)]


def iswt(coeffs: Sequence[Tensor], wavelet: Wavelet, *, axis: int = -1) -> Tensor:
    """The inverse of :func:`swt`. Bands that no signal has come back as their mean over all decimated inverses.

    Args:
        coeffs: ``[cA_n, cD_n, ..., cD_1]``, all of one shape ``(..., length, ...)``.

    Returns:
        ``(..., length, ...)``.

    Raises:
        ValueError: no coefficients, shapes that differ, and whatever :func:`swt` refuses.

    Example:
        >>> x = torch.randn(2, 64)
        >>> torch.allclose(iswt(swt(x, "db2", level=3), "db2"), x, atol=1e-5)
        True
    """
    if not len(coeffs):
        raise ValueError("iswt: coeffs is empty; give at least the approximation")
    taps = FilterTaps.of(wavelet)
    data, *details = coeffs
    axis = check_data(data, axis)
    _check_level("iswt", data.shape[axis], len(details), divisible=True)
    half = len(taps) // 2
    for step, detail in zip(reversed(range(len(details))), details):
        if detail.shape != data.shape:
            raise ValueError(f"iswt: bands have shapes {tuple(data.shape)} and {tuple(detail.shape)}; they must agree")
        spread = 2**step
        low, high = (
            _filtered(extend(band, spread * half, spread * (half - 1), mode="periodic", axis=axis), rec, spread, axis)
            for band, rec in ((data, taps.rec_lo), (detail, taps.rec_hi))
        )
        data = (low + high) / 2
    return data


def causal_swt(data: Tensor, wavelet: Wavelet, *, level: int, axis: int = -1) -> list[Tensor]:
    r"""Stationary transform whose coefficient t depends on samples up to t alone.

    .. math:: cA_l[t] = \sum_j f[j]\, cA_{l-1}[t - j\, 2^{l-1}]

    and cD in the same way. Before its start the signal goes on with its first value, so a constant leaves nothing in
    the details. Away from the ends cA_l is that of :func:`swt`, :math:`(2^l - 1) F / 2` samples later for filters of F
    taps, and so is cD_l.

    Args:
        data: ``(..., length, ...)``, floating point, of any length from 1.
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        level: levels of analysis, as many as wanted.

    Returns:
        ``[cA_n, cD_n, ..., cD_1]``, coarse to fine, each of the signal's shape.

    Raises:
        ValueError: a negative level, and whatever :func:`dwt` refuses.
        TypeError: data that is not floating point.

    Example:
        >>> x = torch.randn(2, 10)
        >>> changed = torch.cat([x[:, :6], torch.zeros(2, 4)], dim=1)
        >>> pairs = zip(causal_swt(x, "db2", level=2), causal_swt(changed, "db2", level=2))
        >>> all(torch.equal(one[:, :6], other[:, :6]) for one, other in pairs)
        True
    """
    taps = FilterTaps.of(wavelet)
    axis = check_data(data, axis)
    _check_level("causal_swt", data.shape[axis], level, divisible=False)
    details = []
    for step in range(level):
        # taps further apart than the signal is long all meet its first value
        spread = min(2**step, data.shape[axis])
        samples = extend(data, spread * (len(taps) - 1), 0, mode="constant", axis=axis)
        data, detail = (_filtered(samples, dec, spread, axis) for dec in (taps.dec_lo, taps.dec_hi))
        details.append(detail)
    return [data, *reversed(details)]


def _filtered(samples: Tensor, taps: tuple[float, ...], spread: int, axis: int) -> Tensor:
    """Convolution with taps that stand ``spread`` samples apart, where all of them meet a sample."""
    reach = spread * (len(taps) - 1)
    count, precise = samples.shape[axis] - reach, wide(samples)
    found = total((tap, precise.narrow(axis, reach - spread * j, count)) for j, tap in enumerate(taps))
    return found.to(samples.dtype)


def _check_level(name: str, length: int, level: int, *, divisible: bool) -> None:
    check_count("level", level, least=0)
    if divisible and length % 2**level:
        raise ValueError(f"{name}: length {length} with level={level}; allowed: lengths divisible by {2**level}")
