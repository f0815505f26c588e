"""Signal extension: how a signal goes on beyond its ends, with pywt's nine modes.

Every mode is a linear map of the signal, so that gradients and matrices come of themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

MODES = (
    "zero",
    "constant",
    "symmetric",
    "reflect",
    "periodic",
    "smooth",
    "antisymmetric",
    "antireflect",
    "periodization",
)


def check_mode(mode: str) -> None:
    """Raise ``ValueError`` unless ``mode`` is one of :data:`MODES`."""
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown; allowed: {', '.join(map(repr, MODES))}")


def extend(x: Tensor, before: int, after: int, *, mode: str, axis: int) -> Tensor:
    """Continue a signal on both sides.

    Args:
        x: ``(..., length, ...)``.
        before, after: samples to add on either side, as many as wanted, also beyond the signal's own length.
        mode: one of :data:`MODES`; ``"periodization"`` repeats the last sample of an odd length before it wraps.
        axis: a non-negative axis.

    Returns:
        ``(..., before + length + after, ...)``; with periodization an odd length counts as one more.
    """
    length = x.shape[axis]
    if mode == "periodization":
        even = length + length % 2
        place = torch.arange(-before, even + after, device=x.device)
        return x.index_select(axis, place.remainder(even).clamp(max=length - 1))
    place = torch.arange(-before, length + after, device=x.device)
    if mode == "zero":
        inside = _along((place >= 0) & (place < length), x, axis) > 0
        return torch.where(inside, x.index_select(axis, place.clamp(0, length - 1)), 0)
    if mode == "constant":
        return x.index_select(axis, place.clamp(0, length - 1))
    if mode == "periodic":
        return x.index_select(axis, place.remainder(length))
    if mode == "smooth":
        return _smooth(x, place, axis)
    if mode in ("symmetric", "antisymmetric"):
        turned = place.div(length, rounding_mode="floor") % 2 == 1
        within = place.remainder(length)
        mirrored = x.index_select(axis, torch.where(turned, length - 1 - within, within))
        return mirrored if mode == "symmetric" else mirrored * _along(torch.where(turned, -1, 1), x, axis)
    return _reflect(x, place, axis, odd=mode == "antireflect")


def _reflect(x: Tensor, place: Tensor, axis: int, *, odd: bool) -> Tensor:
    """Mirrored at the end samples; ``odd`` mirrors through them, so that the slope goes on."""
    length = x.shape[axis]
    period = max(2 * (length - 1), 1)
    within = place.remainder(period)
    turned = within > length - 1
    mirrored = x.index_select(axis, torch.where(turned, period - within, within).clamp(max=length - 1))
    if not odd:
        return mirrored
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, length - 1, 1)
    # through an end sample lies twice that sample minus the mirror image; a whole period rises by twice the span
    risen = 2 * (last - first) * _along(place.div(period, rounding_mode="floor"), x, axis)
    return torch.where(_along(turned, x, axis).bool(), 2 * last - mirrored, mirrored) + risen


def _smooth(x: Tensor, place: Tensor, axis: int) -> Tensor:
    """On along the straight line through the two samples at each end."""
    length = x.shape[axis]
    nearest = x.index_select(axis, place.clamp(0, length - 1))
    if length == 1:
        return nearest
    at_start = x.narrow(axis, 1, 1) - x.narrow(axis, 0, 1)
    at_end = x.narrow(axis, length - 1, 1) - x.narrow(axis, length - 2, 1)
    below, above = place.clamp(max=0), (place - (length - 1)).clamp(min=0)
    return nearest + at_start * _along(below, x, axis) + at_end * _along(above, x, axis)


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """A vector, shaped to multiply ``like`` along an axis."""
    return values.to(like.dtype).view(-1, *(1,) * (like.ndim - axis - 1))
