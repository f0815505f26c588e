"""A whole multilevel transform as one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from wavecomp.wavelets.boundary import boundary_matrix
from wavecomp.wavelets.extension import MODES
from wavecomp.wavelets.taps import Wavelet
from wavecomp.wavelets.transform import wavedec, waverec


def analysis_matrix(
    wavelet: Wavelet,
    length: int,
    *,
    level: int,
    mode: str = "periodization",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """The matrix W with ``W @ x == cat(wavedec(x, wavelet, level=level))``, coarse to fine.

    ``mode="boundary"`` is no continuation of the signal: the wavelet's own filters wherever they fit, and at either
    end as many low-pass as high-pass rows that make each level orthogonal. An odd level passes its last sample into
    the approximation. Low rows are chosen first, beginning with what a constant leaves there, so that a constant
    leaves nothing in the finest details (in coarser ones it does, near the ends). After Herley and Vetterli,
    "Orthogonal time-varying filter banks and wavelet packets", IEEE Transactions on Signal Processing 42(10), 1994.

    Args:
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        length: samples in the signal.
        mode: one of pywt's nine, or ``"boundary"`` for orthogonal wavelets.

    Returns:
        ``(coefficients, length)``; square where every level has an even length, and always with ``"boundary"``.

    Raises:
        ValueError: a length below 1, with ``"boundary"`` a wavelet that is not orthogonal or a level shorter than the
            filter, and whatever :func:`wavedec` refuses.

    Example:
        >>> W = analysis_matrix("db2", 8, level=1)
        >>> torch.allclose(W @ W.T, torch.eye(8, dtype=W.dtype))
        True
    """
    _check_mode(mode)
    units = _identity(length, dtype, device)
    if mode == "boundary":
        return boundary_matrix(wavelet, length, level).to(units)
    return torch.cat(wavedec(units, wavelet, mode=mode, level=level, axis=-2))


def synthesis_matrix(
    wavelet: Wavelet,
    length: int,
    *,
    level: int,
    mode: str = "periodization",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """The matrix S with ``S @ analysis_matrix(...) == identity``, ``(length, coefficients)``.

    Example:
        >>> W, S = analysis_matrix("bior2.2", 12, level=1), synthesis_matrix("bior2.2", 12, level=1)
        >>> torch.allclose(S @ W, torch.eye(12, dtype=W.dtype), atol=1e-8)
        True
    """
    _check_mode(mode)
    if mode == "boundary":
        return analysis_matrix(wavelet, length, level=level, mode=mode, dtype=dtype, device=device).T
    sizes = [len(band) for band in wavedec(_identity(length, dtype, device), wavelet, mode=mode, level=level, axis=-2)]
    units = _identity(sum(sizes), dtype, device)
    return waverec(list(units.split(sizes)), wavelet, mode=mode, length=length, axis=-2)


def _check_mode(mode: str) -> None:
    allowed = (*MODES, "boundary")
    if mode not in allowed:
        raise ValueError(f"mode={mode!r} is unknown; allowed: {', '.join(map(repr, allowed))}")


def _identity(length: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    if length < 1:
        raise ValueError(f"length={length} is too short; allowed: 1 and above")
    return torch.eye(length, dtype=dtype, device=device)
