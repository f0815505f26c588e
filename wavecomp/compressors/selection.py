"""What pruners go by: how much a coefficient matters, and the best of a chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavecomp.bands import Bands
from wavecomp.compressors.pruner import Kept
from wavecomp.modules import Module
from wavecomp.records import check_count


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
        check_count("dim", dim)
        self.channel = nn.Parameter(torch.zeros(dim))

    def forward(self, values: Tensor) -> Tensor:
        """``(..., dim)`` to ``(...)``."""
        loudness = relative_loudness(values)
        # half precision has no number for the gradient of what is divided by so little
        shares = (values.to(loudness.dtype) / loudness[..., None]).square()
        weights = (self.channel - self.channel.mean()).to(loudness.dtype)
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
    # a multiplicative hash, with the seed between two rounds (Knuth, The Art of Computer Programming 3, section 6.4)
    mixed = (_places(bands) + 1) * 2654435761 % 2**32
    mixed = (mixed ^ (mixed >> 15) ^ (seed * 2654435761 % 2**32)) * 2246822519 % 2**32
    return (mixed.float() / 2**32).expand(bands.mask.shape)


def spaced_by_place(bands: Bands) -> Tensor:
    """As :func:`drawn_by_place`, but spread evenly from 0 to 1 over every run of places, so over every band of a chunk.

    Chunks of much the same then get much the same. (Multiples of the golden ratio, without their whole parts: Knuth,
    The Art of Computer Programming 3, section 6.4, exercise 9.)
    """
    return ((_places(bands) * 2654435769 % 2**32).float() / 2**32).expand(bands.mask.shape)


def _places(bands: Bands) -> Tensor:
    """``(chunks, coefficients)``, of each coefficient in the sequence."""
    chunks, coefficients = bands.values.shape[-3:-1]
    place = torch.arange(chunks * coefficients, device=bands.values.device).view(chunks, coefficients)
    return place + bands.first * coefficients


def rank(score: Tensor) -> Tensor:
    """The place of each in falling order along the last dimension; of equal ones the first comes first."""
    return score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def best(score: Tensor, has: Tensor, capacity: int, budget: Tensor) -> Kept:
    """The ``budget`` largest of what a chunk has."""
    # stable: of equal ones the first stays, on every device
    found, index = (
        x[..., :capacity] for x in score.masked_fill(~has, -torch.inf).sort(dim=-1, descending=True, stable=True)
    )
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
