"""Where in a sequence of codes those lie that a token may use: known from its stages alone, without looking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max
"""An ``end`` or ``until`` that no reader reaches."""

LONGEST_OVERLAP = NEVER // 2
"""More, added to a place, would be beyond the largest number, where time begins anew."""


class Pace(NamedTuple):
    """How the codes of a stage come and go.

    Args:
        span: tokens that one of its chunks stands for.
        slots: slots that each chunk adds.
        stay: from so many tokens after its ``end`` on no code is seen any more.
    """

    span: int
    slots: int
    stay: int = NEVER


torch.serialization.add_safe_globals([Pace])  # part of records, see there


def slots_before(stages: Sequence[Pace], token: int) -> int:
    """How many slots hold codes that existed before a token: they are the first ones, in order of ``end``."""
    return sum(token // stage.span * stage.slots for stage in stages)


def slots_between(stages: Sequence[Pace], first: int, last: int, *, device: torch.device) -> Tensor:
    """The slots of all codes that any token from ``first`` to ``last`` may use, stage after stage.

    Args:
        stages: in the order that their codes of equal ``end`` have.

    Returns:
        ``(slots,)`` int64.
    """
    found = []
    for stage, (span, slots, stay) in enumerate(stages):
        chunk = torch.arange(max(first - stay, 0) // span, last // span, device=device)
        at = chunk * slots
        for other, pace in enumerate(stages):
            if other != stage:  # chunks of one that comes later are before those of equal end no more
                at = at + ((chunk + 1) * span - int(other > stage)) // pace.span * pace.slots
        found.append((at[:, None] + torch.arange(slots, device=device)).flatten())
    return torch.cat(found)
