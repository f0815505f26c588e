"""Pruners: which coefficients of a chunk stay, and how loud."""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor, nn

from wavecomp.bands import BandLayout, Bands
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


class Pruner(nn.Module):
    """The contract: Bands to Kept.

    ``causal`` says that each chunk is pruned by itself. ``lowpass`` says that the first coefficients, coarse to
    fine, stay in every chunk.
    """

    causal: bool = True
    lowpass: bool = False

    def capacity(self, layout: BandLayout) -> int:
        """Places per chunk.

        Raises:
            ValueError: when the pruner cannot work with this layout.
        """
        raise NotImplementedError

    def forward(self, bands: Bands) -> Kept:
        raise NotImplementedError


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

    lowpass = True

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
            raise ValueError(
                f"count={self.count} is too small beside the {approximations} coefficients of {coarsest} that always "
                f"stay; allowed: {4 * approximations} and above, or a deeper level of the transform"
            )
        return super().capacity(layout)

    def forward(self, bands: Bands) -> Kept:
        self.capacity(bands.layout)
        loudness = bands.values.detach().float().norm(dim=-1)
        infinity = torch.inf
        score = torch.where(bands.layout.always, infinity, loudness).masked_fill(~bands.mask, -infinity)
        best, index = score.topk(self.count, dim=-1)
        rank = torch.arange(self.count, device=index.device)
        mask = (rank < self.budget(bands)[..., None]) & (best > -infinity)
        # empty places sort behind the kept ones
        order = torch.where(mask, index, len(bands.layout)).argsort(dim=-1)
        return Kept(index=index.gather(-1, order), mask=mask.gather(-1, order))
