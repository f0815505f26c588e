"""Pruners whose number of codes follows the information, held at a ratio over all."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from wavecomp.bands import BandLayout, Bands
from wavecomp.compressors.pruner import Kept, Pruner, adaptive_capacity, check_filled, check_ratio, check_room
from wavecomp.compressors.ratio import GroupThreshold, RatioController
from wavecomp.compressors.selection import (
    ContentScore,
    coarse_first,
    fitted,
    mean_power,
    relative_loudness,
    spaced_by_place,
)
from wavecomp.records import check_weight


class AdaptivePruner(Pruner):
    """A pruner with a target ratio: a threshold that a controller moves, and slots with room above the mean budget.

    Args:
        target_ratio: tokens per code, 1 and above. Of the codes that a chunk has by it the approximations are a quarter
            at most: a high ratio takes a deep transform, and :meth:`capacity` refuses one that is too shallow.
        room: places of a chunk over the mean budget; a chunk that asks for more loses its finest, quietest.
        start: the threshold before anything was counted.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, *, target_ratio: float, room: float = 2.0, start: float = 1.0) -> None:
        super().__init__()
        check_ratio(target_ratio)
        self.room = check_room(room)
        self.controller = RatioController(target_ratio=target_ratio, start=start)

    def extra_repr(self) -> str:
        return f"room={self.room}"

    def capacity(self, layout: BandLayout) -> int:
        return adaptive_capacity(layout, self.controller.target_ratio, self.room)

    def keep(self, bands: Bands, weight: Tensor, loudness: Tensor) -> Kept:
        """The approximation, and what has a weight, as far as there is room."""
        weight = torch.where(bands.layout.always, 1, weight)
        found = fitted(bands.mask & (weight > 0), loudness.detach(), bands, self.capacity(bands.layout))
        return found.replace(weight=weight.gather(-1, found.index))


class Shrinkage(AdaptivePruner):
    r"""Keeps what is louder than a threshold, and shrinks it by as much: group soft-thresholding per level.

    Loudness is the root mean square of a coefficient vector, of tokens that were normalised one by one; so a chunk of
    much the same costs few codes, one in which each token differs many. As a coefficient falls to the threshold its
    weight falls to zero, so what is dropped was about to vanish anyway, and gradients need no straight-through.
    (Wavelet shrinkage: Donoho and Johnstone, 1994.)

    The threshold sees loudness alone. With a price each code owes something by its weight, so that what the loss has
    no use for grows quiet, and the places go where they are worth more.

    With one threshold for all, a little more loudness in a text asks for many more codes than were meant, since
    everything is about as loud, and what stays depends on the smallest of differences. So with a spread s each
    coefficient has a threshold of its own, :math:`\tau u^s` with u from 0 to 1 by its place alone, evenly: one of
    loudness l stays with the chance :math:`\min(1, (l / \tau)^{1 / s})`, and codes change by at most 1 / s times what
    loudness does. At one half the chance is the share of energy. (Dither: Roberts, 1962.)

    Args:
        target_ratio, room, start: as in :class:`AdaptivePruner`.
        price: nats per token that a code of weight 1 for each token would owe, 0 and above. Where the loss has little
            use for codes a high one makes all details quiet, and nothing is left to choose from.
        spread: s, from 0, where only the loudest stay, to 1.

    Raises:
        ValueError: a negative price, a spread out of range, and what :class:`AdaptivePruner` refuses.

    Example:
        >>> layout = wc.DWT1d("haar", level=5).layout(64)
        >>> wc.Shrinkage(target_ratio=8).capacity(layout)
        16
    """

    def __init__(
        self,
        *,
        target_ratio: float,
        room: float = 2.0,
        start: float = 1.0,
        price: float = 0.0,
        spread: float = 0.5,
    ) -> None:
        super().__init__(target_ratio=target_ratio, room=room, start=start)
        check_weight("price", price)
        if not 0 <= spread <= 1:
            raise ValueError(f"spread={spread} is out of range; allowed: 0 to 1")
        self.price, self.spread = price, spread
        self.shrink = GroupThreshold()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, price={self.price}, spread={self.spread}"

    def forward(self, bands: Bands) -> Kept:
        loudness = relative_loudness(bands.values)
        if self.spread:  # a lower threshold for all that compares the two is a loudness that is higher
            loudness = loudness * spaced_by_place(bands).clamp_min(1e-6) ** -self.spread
        weight = self.shrink(loudness, self.controller.threshold, bands.layout.level)
        kept = self.keep(bands, weight, loudness)
        return kept.replace(losses={"price": self.price * self._used(bands, loudness)}) if self.price else kept

    def _used(self, bands: Bands, loudness: Tensor) -> Tensor:
        """Weights of all details over tokens; its gradient raises some and lowers others, but not all at once.

        Were everything quieter the controller would lower the threshold, and nothing would be won: for the gradient it
        does so here.
        """
        details = bands.mask & ~bands.layout.always
        mean = (loudness * details).sum() / details.sum().clamp(min=1)
        following = self.controller.threshold * mean / mean.detach().clamp(min=1e-12)
        weight = self.shrink(loudness, following, bands.layout.level)
        return (weight * details).sum() / bands.lengths.sum().clamp(min=1)


class HardConcrete(AdaptivePruner):
    r"""Gates from content that are exactly zero or one most of the time, held at the ratio by what they cost.

    With the score a of a coefficient, twice that of :class:`ContentScore` less the log threshold, and noise u,

    .. math:: z = \mathrm{clamp}(1.2\, \sigma((\mathrm{logit}\, u + a) / b) - 0.1,\, 0,\, 1), \quad
        P(z \ne 0) = \sigma(a - b \log(0.1 / 1.1))

    The share of open gates s owes :math:`\lambda (s - t) + (s - t)^2` for the share t that the target allows, with a
    multiplier :math:`\lambda` that the controller raises and lowers: its log threshold, where that is above 0. (Louizos
    et al., 2018; there u is one half in use. Here it is drawn by the place of the coefficient, because gates that are
    not yet sure would open all or none, and the ratio that was held in training would not be that in use.)

    Args:
        dim: width of the coefficients.
        target_ratio, room: as in :class:`AdaptivePruner`.
        temperature: b, above 0.

    Raises:
        ValueError: a temperature that is not positive, and what :class:`AdaptivePruner` refuses.
    """

    def __init__(self, *, dim: int, target_ratio: float, room: float = 2.0, temperature: float = 2 / 3) -> None:
        super().__init__(target_ratio=target_ratio, room=room)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature={temperature} is out of range; allowed: above 0, finite")
        self.temperature = temperature
        self.score = ContentScore(dim)

    def forward(self, bands: Bands) -> Kept:
        loudness = relative_loudness(bands.values)
        shift = self.controller.log_threshold
        logit = 2 * (self.score(bands.values) - shift)
        drawn = torch.rand_like(logit) if self.training else spaced_by_place(bands).to(logit.dtype)
        noise = torch.logit(drawn, eps=1e-6)
        gate = (1.2 * torch.sigmoid((logit + noise) / self.temperature) - 0.1).clamp(0, 1)
        details = bands.mask & ~bands.layout.always
        open_share = torch.sigmoid(logit - self.temperature * math.log(0.1 / 1.1))
        share = (open_share * details).sum() / details.sum().clamp(min=1)
        approximations = bands.mask.sum() - details.sum()
        budget = bands.lengths.sum() / self.controller.target_ratio - approximations
        wanted = (budget / details.sum().clamp(min=1)).clamp(0, 1)
        # the multiplier pulls the gates' own scores where the controller has to push them
        owed = shift.clamp(min=0) * (share - wanted) + (share - wanted).square()
        kept = self.keep(bands, gate, loudness)
        return kept.replace(losses={"gates": owed})


class BandDrop(AdaptivePruner):
    """Whole bands on or off, chunk by chunk: a band stays where it is loud on average.

    Goes with any transform, packets too. Soft-thresholded like :class:`Shrinkage`, by the band's loudness.

    Args:
        target_ratio, start: as in :class:`AdaptivePruner`.
        room: places of a chunk over the mean budget; of the bands that a chunk asks for the finest, quietest go until
            the others fit.

    Raises:
        ValueError: what :class:`AdaptivePruner` refuses.
    """

    def __init__(self, *, target_ratio: float, room: float = 3.0, start: float = 1.0) -> None:
        super().__init__(target_ratio=target_ratio, room=room, start=start)
        self.shrink = GroupThreshold()

    def capacity(self, layout: BandLayout) -> int:
        capacity = super().capacity(layout)
        # of bands that all ask those stay that fit, coarse to fine
        whole = [count for count in itertools.accumulate(layout.counts) if count <= len(layout)]
        check_filled(
            whole,
            capacity,
            target_ratio=self.controller.target_ratio,
            room=self.room,
            length=layout.length,
            what="codes of whole bands",
        )
        return capacity

    def forward(self, bands: Bands) -> Kept:
        layout = bands.layout
        band = layout.band.expand(bands.mask.shape)
        of_band = (mean_power(bands, layout.band, len(layout.names)) + 1e-12).sqrt()
        loudness = of_band.gather(-1, band)
        weight = self.shrink(loudness, self.controller.threshold, layout.level)
        asked = bands.mask & ((weight > 0) | layout.always)
        fits = self._fitting(bands, band, asked, loudness.detach())
        found = self.keep(bands, torch.where(fits, weight, 0), loudness)
        return found.replace(statistics={"overflow": (asked & ~fits).sum(-1)})

    def _fitting(self, bands: Bands, band: Tensor, asked: Tensor, loudness: Tensor) -> Tensor:
        """Which coefficients that are asked for are of the bands that there is room for."""
        layout = bands.layout
        each = (*band.shape[:-1], len(layout.names))
        sizes = torch.zeros(each, dtype=torch.int64, device=band.device).scatter_add(-1, band, asked.long())
        # one score for all coefficients of a band
        score = torch.where(layout.always, torch.inf, coarse_first(layout.level, loudness))
        order = score.new_zeros(each).scatter(-1, band, score).argsort(dim=-1, descending=True, stable=True)
        fits = sizes.gather(-1, order).cumsum(-1) <= self.capacity(layout)
        return asked & torch.zeros_like(fits).scatter(-1, order, fits).gather(-1, band)
