"""Boundary-orthogonalised filters: filters that end where a chunk ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wavecomp.records import check_count
from wavecomp.wavelets.taps import FilterTaps, Wavelet


def boundary_matrix(wavelet: Wavelet, length: int, level: int) -> Tensor:
    """``(length, length)``, in double precision on the CPU."""
    taps = FilterTaps.of(wavelet)
    if not _orthonormal(taps):
        raise ValueError(
            f"wavelet={wavelet!r} is not orthogonal to ten digits, or its high-pass filter is not the mirror image of "
            "its low-pass filter; allowed with mode='boundary': orthogonal wavelets, such as 'haar', 'db2' or 'sym4'"
        )
    check_count("level", level, least=0)
    approximation = torch.eye(length, dtype=torch.float64, device="cpu")
    details = []
    for step in range(level):
        count = len(approximation)
        if count < len(taps):
            raise ValueError(
                f"length={length} leaves {count} samples for level {step + 1} of mode='boundary'; "
                f"allowed: at least the filter's {len(taps)} at every level"
            )
        low, high = _boundary_level(taps, approximation.sum(1))
        details.append(high @ approximation)
        approximation = low @ approximation
    return torch.cat([approximation, *reversed(details)])


def _boundary_level(taps: FilterTaps, constant: Tensor) -> tuple[Tensor, Tensor]:
    """The low-pass and high-pass rows of one level, ``(ceil(n / 2), n)`` and ``(floor(n / 2), n)``.

    Args:
        constant: ``(n,)``, what is left at this level of a constant signal.
    """
    low, high = (constant.new_tensor(dec).flip(0) for dec in (taps.dec_lo, taps.dec_hi))
    even = len(constant) - len(constant) % 2
    left = _edge_rows(low, high, constant[:even])
    right = _edge_rows(low.flip(0), high.flip(0), constant[:even].flip(0))

    def rows(taps: Tensor, at_left: Tensor, at_right: Tensor) -> Tensor:
        edge, width = at_left.shape
        filled = constant.new_zeros(even // 2, even)
        for row in range(edge, even // 2 - edge):
            start = _skip(taps) + 2 * (row - edge)
            filled[row, start : start + len(taps)] = taps
        filled[:edge, :width] = at_left
        filled[even // 2 - edge :, even - width :] = at_right.flip(0, 1)
        return filled

    low, high = (rows(taps, *ends) for taps, *ends in zip((low, high), left, right))
    if even == len(constant):
        return low, high
    return torch.block_diag(low, constant.new_ones(1, 1)), F.pad(high, (0, 1))


def _edge_rows(low: Tensor, high: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """The rows at the left end: an orthonormal basis of what the filters that fit do not see there.

    Args:
        low, high: ``(F,)``, taps in the order of the samples that they meet.
        constant: ``(n,)``, what is left at this level of a constant signal.

    Returns:
        As many low as high rows, from the end inwards, each ``(edge, width)``.
    """
    skip = _skip(low)
    width, edge = len(low) - 2 + skip, (len(low) // 2 - 1 + skip) // 2
    if not edge:
        return constant.new_zeros(0, width), constant.new_zeros(0, width)
    outside = range(2 - skip, len(low), 2)
    cut_low, cut_high = (
        torch.stack([F.pad(taps[out:], (0, width - len(taps) + out)) for out in outside]) for taps in (low, high)
    )
    # filters cut off at the end are still orthogonal to those that fit: together they span just what is missing.
    # Some are nearly nothing, so it is their span that is taken, which is known to all digits.
    unseen = torch.linalg.eigh(cut_low.T @ cut_low + cut_high.T @ cut_high).eigenvectors[:, -2 * edge :]
    by_low_energy = torch.linalg.eigh((cut_low @ unseen).T @ (cut_low @ unseen)).eigenvectors.flip(1)
    left_of_constant = (constant[:width] @ unseen)[:, None]
    chosen = (unseen @ torch.linalg.qr(torch.cat([left_of_constant, by_low_energy], 1)).Q).T
    return _turned(chosen[:edge], cut_low[:edge].flip(0)), _turned(chosen[edge:], cut_high[:edge].flip(0))


def _turned(rows: Tensor, towards: Tensor) -> Tensor:
    """Orthonormal rows of the same span, as near to others as can be: this fixes their order and sign."""
    u, _, v = torch.linalg.svd(towards @ rows.T)
    return u @ v @ rows


def _skip(taps: Tensor) -> int:
    """Where the first filter that fits starts: the place at which an end lacks as many low rows as high rows.

    It is also where periodization puts its filters.
    """
    return 1 - len(taps) // 2 % 2


def _orthonormal(taps: FilterTaps) -> bool:
    """Whether even shifts of the low-pass filter are orthonormal, with its mirror image as the high-pass filter."""
    return taps.orthogonal and taps.orthonormal_to(1e-10) and taps.mirrored(1e-10) != 0
