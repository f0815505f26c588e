"""Pruners with a fixed number of codes: per chunk, or for a whole sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavecomp.bands import BandLayout, Bands
from wavecomp.compressors.pruner import Kept, Pruner, adaptive_capacity, check_ratio, check_room
from wavecomp.compressors.selection import ContentScore, best, drawn_by_place, rank
from wavecomp.records import at_most, check_count


class _KeepCount(Pruner):
    """A budget of ``count`` coefficients for a whole chunk, in proportion for a short one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        check_count("count", count)
        self.count = count

    def extra_repr(self) -> str:
        return f"count={self.count}"

    def capacity(self, layout: BandLayout) -> int:
        if self.count > len(layout):
            raise ValueError(
                f"count={self.count} asks for more codes than the {len(layout)} coefficients of a chunk; allowed: 1 to "
                f"{len(layout)}"
            )
        return self.count

    def budget(self, bands: Bands) -> Tensor:
        """``(batch, chunks)``: the share of the count that a chunk of this length has."""
        return -(-bands.lengths * self.count // bands.layout.length)


class KeepLowpass(_KeepCount):
    """Keeps the first ``count`` coefficients, coarse to fine: a low-pass filter at a fixed rate.

    With as many approximations as ``count`` these are all that stay: local averages, in order.

    Args:
        count: codes per whole chunk.

    Raises:
        ValueError: a count below 1, below the approximations or above all coefficients that a chunk has.
    """

    def capacity(self, layout: BandLayout) -> int:
        if self.count < layout.counts[0]:
            raise ValueError(
                f"count={self.count} is too small beside the {layout.counts[0]} coefficients of {layout.names[0]}: the "
                f"end of each chunk would be lost; allowed: {layout.counts[0]} and above, or a deeper level"
            )
        return super().capacity(layout)

    def forward(self, bands: Bands) -> Kept:
        self.capacity(bands.layout)
        index = torch.arange(self.count, device=bands.values.device)
        index = index.expand(*bands.lengths.shape, -1)
        # a short chunk has gaps in this order: the first that it has are counted
        has = bands.mask[..., : self.count]
        return Kept(index=index, mask=has & (has.cumsum(-1) <= self.budget(bands)[..., None]))


class ElasticRatio(Pruner):
    """A low-pass filter whose rate is drawn anew at every training step: any coarse-to-fine prefix becomes a code.

    Ratios are drawn evenly in their logarithm. In use the ratio is what :attr:`ratio` says, and may be changed from
    call to call without training again; of each chunk it leaves the nearest whole number of codes. A model that is
    saved begins with the one that it was built with.

    Args:
        least, most: tokens per code, the ratios to train for.
        ratio: in use, until it is changed; ``least`` unless given.

    Raises:
        ValueError: a least ratio below 1 or not below the most, or a ratio that is not from the one to the other.
    """

    def __init__(self, *, least: float, most: float, ratio: float | None = None) -> None:
        super().__init__()
        if not 1 <= least < most:
            raise ValueError(f"least={least}, most={most}; allowed: 1 <= least < most")
        self.least, self.most = least, most
        self.ratio = least if ratio is None else ratio

    @property
    def ratio(self) -> float:
        """Tokens per code in use, which is no part of what a model is."""
        return self._ratio

    @ratio.setter
    def ratio(self, ratio: float) -> None:
        if not self.least <= ratio <= self.most:
            raise ValueError(f"ratio={ratio} is out of range; allowed: {self.least} to {self.most}")
        self._ratio = ratio

    def extra_repr(self) -> str:
        return f"least={self.least}, most={self.most}, ratio={self.ratio}"

    def capacity(self, layout: BandLayout) -> int:
        if layout.length / self.most < layout.counts[0]:
            most = at_most(layout.length / layout.counts[0])
            raise ValueError(
                f"most={self.most} leaves less than the {layout.counts[0]} coefficients of {layout.names[0]} that "
                f"always stay; allowed: up to {most}, or a deeper level of the transform"
            )
        return min(-int(-layout.length // self.least), len(layout))

    def forward(self, bands: Bands) -> Kept:
        capacity = self.capacity(bands.layout)
        index = torch.arange(capacity, device=bands.values.device).expand(*bands.lengths.shape, -1)
        if self.training:
            drawn = torch.rand((), device=index.device)
            ratio = self.least * (self.most / self.least) ** drawn
        else:
            ratio = torch.full((), self.ratio, device=index.device)
        has = bands.mask[..., :capacity]
        # the approximations stay, however the division rounds
        budget = (bands.lengths / ratio).round().maximum(has[..., : bands.layout.counts[0]].sum(-1))
        return Kept(index=index, mask=has & (has.cumsum(-1) <= budget[..., None]))


class TopK(_KeepCount):
    """Keeps the approximation and the ``count`` coefficients in all whose vectors have the largest norm, per chunk.

    Args:
        count: codes per whole chunk; the approximation may take at most a quarter of them.

    Raises:
        ValueError: a count below 1, above the coefficients that a chunk has, or below four times the approximation.
    """

    def capacity(self, layout: BandLayout) -> int:
        coarsest, approximations = layout.names[0], layout.counts[0]
        if 4 * approximations > self.count:
            more = f"{4 * approximations} and above, or " if 4 * approximations <= len(layout) else ""
            raise ValueError(
                f"count={self.count}: the {approximations} coefficients of {coarsest} always stay, and may be a quarter"
                f" of it at most; allowed: {more}a deeper level of the transform"
            )
        return super().capacity(layout)

    def score(self, bands: Bands) -> Tensor:
        """``(batch, chunks, coefficients)``: the larger stay."""
        return bands.values.detach().float().norm(dim=-1)

    def forward(self, bands: Bands) -> Kept:
        capacity = self.capacity(bands.layout)
        score = torch.where(bands.layout.always, torch.inf, self.score(bands))
        return best(score, bands.mask, capacity, self.budget(bands))


class RandomK(TopK):
    """Keeps the approximation and details drawn at random: the control that every choice is held against.

    The draw depends on the place of the chunk in its sequence alone, so that it is the same for a row and the row in a
    batch, and again in the next step.

    Args:
        count: as in :class:`TopK`.
        seed: another number, another draw.
    """

    def __init__(self, count: int, *, seed: int = 0) -> None:
        super().__init__(count)
        self.seed = seed

    def score(self, bands: Bands) -> Tensor:
        return drawn_by_place(bands, self.seed)


class StraightThroughTopK(TopK):
    """Keeps the coefficients that a learned score asks for, the same number in each chunk.

    The score is a :class:`ContentScore`, begun at the coefficient's loudness. What stays keeps its value; the gradient
    is that of ``sigmoid(score / temperature)`` as a factor (straight through, Bengio et al., 2013).

    Args:
        dim: width of the coefficients.
        count: as in :class:`TopK`.
        temperature: above 0; the larger, the further from zero a score may lie and still have a gradient.

    Raises:
        ValueError: a temperature that is not positive, and what :class:`TopK` refuses.
    """

    def __init__(self, count: int, *, dim: int, temperature: float = 1.0) -> None:
        super().__init__(count)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature={temperature} is out of range; allowed: above 0, finite")
        self.temperature = temperature
        self.learned = ContentScore(dim)

    def forward(self, bands: Bands) -> Kept:
        capacity = self.capacity(bands.layout)
        # the coefficient has its gradient through its value; the factor's is the score's own
        score = self.learned(bands.values.detach())
        chosen = best(
            torch.where(bands.layout.always, torch.inf, score.detach()), bands.mask, capacity, self.budget(bands)
        )
        soft = torch.sigmoid(score / self.temperature).gather(-1, chosen.index)
        # what stays in any case is nothing that the score could move
        always = bands.layout.always.expand(score.shape).gather(-1, chosen.index)
        return chosen.replace(weight=torch.where(always, 1, 1 + (soft - soft.detach())))


class GlobalTopK(Pruner):
    """One budget for the whole sequence: the loudest coefficients stay, wherever they are. For what is not causal.

    For an orthogonal transform keeping what lies above one threshold everywhere loses the least energy (reverse
    water-filling; Shannon, 1959).

    Args:
        target_ratio: tokens per code of each row, 1 and above; how deep the transform is for it says
            :class:`~wavecomp.compressors.adaptive.AdaptivePruner`.
        room: places of a chunk over the mean budget; a chunk that asks for more loses its quietest, and the budget goes
            to other chunks.

    Raises:
        ValueError: a ratio or a room below 1.
    """

    causal = False

    def __init__(self, *, target_ratio: float, room: float = 3.0) -> None:
        super().__init__()
        check_ratio(target_ratio)
        self.target_ratio, self.room = target_ratio, check_room(room)

    def extra_repr(self) -> str:
        return f"target_ratio={self.target_ratio}, room={self.room}"

    def capacity(self, layout: BandLayout) -> int:
        return adaptive_capacity(layout, self.target_ratio, self.room)

    def forward(self, bands: Bands) -> Kept:
        capacity = self.capacity(bands.layout)
        loudness = bands.values.detach().float().norm(dim=-1)
        score = torch.where(bands.layout.always, torch.inf, loudness).masked_fill(~bands.mask, -torch.inf)
        budget = (bands.lengths.sum(-1) / self.target_ratio).ceil().long()[:, None]

        def loudest(score: Tensor) -> Tensor:
            first = rank(score.flatten(1)) < budget
            return bands.mask & (first.view_as(score) & (score > -torch.inf) | bands.layout.always)

        asked = loudest(score).sum(-1)
        # what finds no room leaves its place to others
        chosen = loudest(score.masked_fill(rank(score) >= capacity, -torch.inf))
        kept = chosen.sum(-1)
        found = best(score, chosen, capacity, kept)
        return found.replace(statistics={"overflow": (asked - kept).clamp(min=0)})
