"""A whole multilevel transform as one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

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

    Args:
        wavelet: a pywt name, a ``pywt.Wavelet`` or :class:`FilterTaps`.
        length: samples in the signal.

    Returns:
        ``(coefficients, length)``; square where every level has an even length.

    Raises:
        ValueError: a length below 1, and whatever :func:`wavedec` refuses.

    Example:
        >>> W = analysis_matrix("db2", 8, level=1)
        >>> torch.allclose(W @ W.T, torch.eye(8, dtype=W.dtype))
        True
    """
    return torch.cat(wavedec(_identity(length, dtype, device), wavelet, mode=mode, level=level))


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
        >>> W, S = analysis_matrix("bior2.2", 12, level=2), synthesis_matrix("bior2.2", 12, level=2)
        >>> torch.allclose(S @ W, torch.eye(12, dtype=W.dtype), atol=1e-8)
        True
    """
    sizes = [len(band) for band in wavedec(_identity(length, dtype, device), wavelet, mode=mode, level=level)]
    units = _identity(sum(sizes), dtype, device)
    return waverec(list(units.split(sizes)), wavelet, mode=mode, length=length)


def _identity(length: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    if length < 1:
        raise ValueError(f"length={length} is too short; allowed: 1 and above")
    return torch.eye(length, dtype=dtype, device=device)
