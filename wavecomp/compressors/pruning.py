"""Pruners: which coefficients of a chunk stay, and how loud. Here those with a fixed number of codes."""

from __future__ import annotations

import math
from dataclasses import field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavecomp.bands import BandLayout, Bands
from wavecomp.modules import Module
from wavecomp.records import Record, record


@record
class Kept(Record):
    """What a pruner decided.

    Args:
        index: ``(batch, chunks, capacity)``, coefficients that stay, in ascending order: coarse to fine.
        mask: ``(batch, chunks, capacity)``, which places hold one.
        weight: how loud each is, of the same shape, or ``None`` for as it came.
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


class _KeepCount(Pruner):
    """A budget of ``count`` coefficients for a whole chunk, in proportion for a short one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count={count} is too small; allowed: 1 and above")
        self.count = count

    def extra_repr(self) -> str:
        return f"count={self.count}"

    def capacity(self, layout: BandLayout) -> int:
        if self.count > len(layout):
            raise ValueError(f"count={self.count} asks for more codes than the {len(layout)} coefficients of a chunk")
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
    call to call without training again; of each chunk it leaves the nearest whole number of codes.

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
        self._check_ratio()

    def extra_repr(self) -> str:
        return f"least={self.least}, most={self.most}, ratio={self.ratio}"

    def capacity(self, layout: BandLayout) -> int:
        if layout.length / self.most < layout.counts[0]:
            raise ValueError(
                f"most={self.most} leaves less than the {layout.counts[0]} coefficients of {layout.names[0]} that "
                f"always stay; allowed: up to {layout.length / layout.counts[0]:g}, or a deeper level of the transform"
            )
        return min(-int(-layout.length // self.least), len(layout))

    def forward(self, bands: Bands) -> Kept:
        capacity = self.capacity(bands.layout)
        self._check_ratio()
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

    def _check_ratio(self) -> None:
        if not self.least <= self.ratio <= self.most:
            raise ValueError(f"ratio={self.ratio} is out of range; allowed: {self.least} to {self.most}")


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
                f"count={self.count} is too small beside the {approximations} coefficients of {coarsest} that always "
                f"stay; allowed: {more}a deeper level of the transform"
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
        temperature: above 0; the larger, the more coefficients get a gradient.

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
        return chosen.replace(weight=1 + (soft - soft.detach()))


class GlobalTopK(Pruner):
    """One budget for the whole sequence: the loudest coefficients stay, wherever they are. For what is not causal.

    For an orthogonal transform keeping what lies above one threshold everywhere loses the least energy (reverse
    water-filling; Shannon, 1959).

    Args:
        target_ratio: tokens per code of each row, 1 and above.
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
            first = _rank(score.flatten(1)) < budget
            return bands.mask & (first.view_as(score) & (score > -torch.inf) | bands.layout.always)

        asked = loudest(score).sum(-1)
        # what finds no room leaves its place to others
        chosen = loudest(score.masked_fill(_rank(score) >= capacity, -torch.inf))
        kept = chosen.sum(-1)
        found = best(score, chosen, capacity, kept)
        return found.replace(statistics={"overflow": (asked - kept).clamp(min=0)})


class ContentScore(Module):
    r"""How much a coefficient matters: the logarithm of its loudness, and of which channels are loud.

    .. math:: \log r + \frac1{dim} \sum_c (w_c - \bar w)\, d_c^2 / r^2, \qquad r^2 = \frac1{dim} \sum_c d_c^2

    A coefficient and its negative score the same, and no weights raise all scores at once: how many coefficients stay
    is for a threshold or a budget to say.

    Args:
        dim: width of the coefficients.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.channel = nn.Parameter(torch.zeros(dim))

    def forward(self, values: Tensor) -> Tensor:
        """``(..., dim)`` to ``(...)``."""
        loudness = relative_loudness(values)
        shares = (values / loudness[..., None].to(values.dtype)).square()
        weights = (self.channel - self.channel.mean()).to(values.dtype)
        return loudness.log() + (shares * weights).mean(-1).clamp(-3, 3)


def relative_loudness(values: Tensor) -> Tensor:
    """Root mean square of vectors ``(..., dim)``; never zero, with a gradient that stays finite at zero."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return (values.square().mean(-1) + 1e-12).sqrt()


def mean_power(bands: Bands, group: Tensor, groups: int) -> Tensor:
    """Mean square of what a chunk has in each group of its coefficients; 0 in a group without any.

    Args:
        group: ``(coefficients,)`` or ``(batch, chunks, coefficients)``, which group each is of.
        groups: how many there are.

    Returns:
        ``(batch, chunks, groups)``.
    """
    member = (group[..., None] == torch.arange(groups, device=group.device)) & bands.mask[..., None]
    power = relative_loudness(bands.values).square()[..., None] * member
    return power.sum(-2) / member.sum(-2).clamp(min=1)


def drawn_by_place(bands: Bands, seed: int = 0) -> Tensor:
    """A number from 0 to 1 for each coefficient, ``(batch, chunks, coefficients)``, by its place in the sequence alone.

    So it is the same for a row and the row in a batch, and again in the next step.
    """
    chunks, coefficients = bands.values.shape[-3:-1]
    place = torch.arange(chunks * coefficients, device=bands.values.device).view(chunks, coefficients)
    place = place + bands.first * coefficients
    # a multiplicative hash, twice (Knuth, The Art of Computer Programming 3, section 6.4)
    mixed = (place + 1 + seed * 7919) * 2654435761 % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    return (mixed.float() / 2**32).expand(bands.mask.shape)


def _rank(score: Tensor) -> Tensor:
    """The place of each in falling order along the last dimension; of equal ones the first comes first."""
    return score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def best(score: Tensor, has: Tensor, capacity: int, budget: Tensor) -> Kept:
    """The ``budget`` largest of what a chunk has."""
    found, index = score.masked_fill(~has, -torch.inf).topk(capacity, dim=-1)
    mask = (torch.arange(capacity, device=index.device) < budget[..., None]) & (found > -torch.inf)
    # empty places sort behind the kept ones
    order = torch.where(mask, index, score.shape[-1]).argsort(dim=-1)
    return Kept(index=index.gather(-1, order), mask=mask.gather(-1, order))


def coarse_first(level: Tensor, loudness: Tensor) -> Tensor:
    """A score by which the finest, quietest go first: a level is worth more than any loudness within it."""
    return level + loudness / (1 + loudness)


def fitted(passes: Tensor, loudness: Tensor, bands: Bands, capacity: int) -> Kept:
    """What passes, as far as there is room: the finest, quietest go first, and are counted as ``overflow``."""
    score = torch.where(bands.layout.always, torch.inf, coarse_first(bands.layout.level, loudness))
    wanted = passes.sum(-1)
    return best(score, passes, capacity, wanted).replace(statistics={"overflow": (wanted - capacity).clamp(min=0)})


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
            f"target_ratio={target_ratio} leaves {budget:g} codes in a chunk of {layout.length}, beside the "
            f"{layout.counts[0]} of {layout.names[0]} that always stay; allowed: "
            f"{f'up to {most:g}, or ' if most >= 1 else ''}a deeper level of the transform"
        )
    return min(-int(-budget * room // 1), len(layout))


def check_ratio(target_ratio: float, longest: float | None = None) -> None:
    """Raise ``ValueError`` for a target ratio below 1 or beyond the chunk length."""
    if not 1 <= target_ratio < math.inf or (longest is not None and target_ratio > longest):
        most = "and above, finite" if longest is None else f"to the chunk length, {longest:g}"
        raise ValueError(f"target_ratio={target_ratio} is out of range; allowed: 1 {most}")


def check_room(room: float) -> float:
    """Raise ``ValueError`` for less room than the mean budget itself."""
    if not 1 <= room < math.inf:
        raise ValueError(f"room={room} is out of range; allowed: 1 and above, finite")
    return room
