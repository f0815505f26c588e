"""The contract of pruners, and what all of them refuse."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from torch import Tensor

from wavecomp.bands import BandLayout, Bands
from wavecomp.modules import Module
from wavecomp.records import Record, at_least, at_most, record


@record
class Kept(Record):
    """What a pruner decided.

    Args:
        index: ``(batch, chunks, capacity)``, coefficients that stay, in ascending order: coarse to fine. Empty places
            may name any.
        mask: ``(batch, chunks, capacity)``, which places hold one.
        weight: how loud each is, of the same shape, from 0 to 1 of what it was, or ``None`` for as it came. A detail
            channel hands on the rest.
        losses: name to scalar, what the pruner owes.
        statistics: name to tensor.
    """

    index: Tensor
    mask: Tensor
    weight: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


class Pruner(Module):
    """The contract: Bands to Kept.

    ``causal`` says that each chunk is pruned by itself; a pruner that compares chunks says ``False``, and a causal
    model refuses it.
    """

    causal: bool = True

    def capacity(self, layout: BandLayout) -> int:
        """Places per chunk.

        Raises:
            ValueError: when the pruner cannot work with this layout.
        """
        raise NotImplementedError

    def forward(self, bands: Bands) -> Kept:
        raise NotImplementedError

    if TYPE_CHECKING:
        __call__ = forward


def adaptive_capacity(layout: BandLayout, target_ratio: float, room: float) -> int:
    """Places of a chunk for a mean budget, with room above it.

    Raises:
        ValueError: a target beyond the chunk length, or so few codes that those that always stay are over a quarter.
    """
    check_ratio(target_ratio, layout.length)
    budget = layout.length / target_ratio
    if 4 * layout.counts[0] > budget:
        most = layout.length / (4 * layout.counts[0])
        raise ValueError(
            f"target_ratio={target_ratio} leaves {budget:g} codes in a chunk of {layout.length}; the "
            f"{layout.counts[0]} of {layout.names[0]} always stay, and may be a quarter of all at most; allowed: "
            f"{f'up to {at_most(most)}, or ' if most >= 1 else ''}a deeper level of the transform"
        )
    return min(-int(-budget * room // 1), len(layout))


def check_filled(
    counts: Sequence[int], most: float, *, target_ratio: float, room: float, length: int, what: str = "codes"
) -> int:
    """How many codes a chunk can have that has one of some counts, and at most so many.

    Args:
        counts: those that it may have, one of them the mean budget or above.
        what: they are, for the error.

    Raises:
        ValueError: less than the mean budget: no threshold would reach the target ratio.
    """
    filled, budget = max(count for count in counts if count <= most), length / target_ratio
    if filled < budget:
        least = min(count for count in counts if count >= budget) / budget
        raise ValueError(
            f"room={room} has place for {filled} {what} in a chunk of {length}, less than the {budget:g} that "
            f"target_ratio={target_ratio} asks for; allowed: {at_least(least)} and above"
        )
    return filled


def check_ratio(target_ratio: float, longest: float | None = None) -> None:
    """Raise ``ValueError`` for a target ratio below 1 or beyond the chunk length, ``TypeError`` for no number."""
    if not isinstance(target_ratio, numbers.Real):
        raise TypeError(f"target_ratio={target_ratio!r} is a {type(target_ratio).__name__}; allowed: a number")
    if not 1 <= target_ratio < math.inf or (longest is not None and target_ratio > longest):
        most = "and above, finite" if longest is None else f"to the chunk length, {longest:g}"
        raise ValueError(f"target_ratio={target_ratio} is out of range; allowed: 1 {most}")


def check_room(room: float) -> float:
    """Raise ``ValueError`` for less room than the mean budget itself."""
    if not 1 <= room < math.inf:
        raise ValueError(f"room={room} is out of range; allowed: 1 and above, finite")
    return room
