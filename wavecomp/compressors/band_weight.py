"""BandWeight: how much each band of a chunk counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.compressors.selection import mean_power
from wavecomp.modules import Module
from wavecomp.wavelets import ChunkTransform
from wavecomp.wavelets.chunk_transform import check_level


class BandWeight(Module):
    """Learnable gains per level, from the bands' content where asked: Bands to Bands.

    The gain of a band is ``softplus(bias + content) / softplus(0)``, 1 at the start; the content is a linear map of the
    logarithms of the chunk's loudness in each level. :meth:`Compressor.expand` does not undo them.

    Args:
        level: the deepest level of the transform.
        content: whether gains depend on the chunk.

    Raises:
        ValueError: a level below 1.

    Example:
        >>> bands = wc.DWT1d("haar", level=2)(torch.randn(1, 3, 16, 8))
        >>> torch.equal(BandWeight(level=2)(bands).values, bands.values)
        True
    """

    def __init__(self, *, level: int, content: bool = False) -> None:
        super().__init__()
        check_level(level)
        self.level = level
        # the approximation has a gain of its own, at 0
        self.bias = nn.Parameter(torch.zeros(level + 1))
        self.content = nn.Linear(level + 1, level + 1, bias=False) if content else None
        if self.content is not None:
            nn.init.zeros_(self.content.weight)

    def gains(self, bands: Bands) -> Tensor:
        """``(batch, chunks, coefficients)`` or a shape that broadcasts to it."""
        row = bands.layout.row
        score = self.bias
        if self.content is not None:
            power = mean_power(bands, row, self.level + 1)
            score = score + self.content((power + 1e-6).log().to(self.bias.dtype))
        gain = F.softplus(score) / F.softplus(torch.zeros_like(self.bias))
        if gain.ndim == 1:
            return gain[row]
        return gain.gather(-1, row.expand(*gain.shape[:-1], row.shape[-1]))

    def forward(self, bands: Bands) -> Bands:
        gains = self.gains(bands)[..., None].to(bands.values.dtype)
        return bands.replace(values=bands.values * gains)

    if TYPE_CHECKING:
        __call__ = forward


def check_band_weight(band_weight: nn.Module | None, transform: ChunkTransform) -> None:
    """Raise ``ValueError`` for gains of fewer levels than a transform has."""
    if isinstance(band_weight, BandWeight) and band_weight.level < transform.level:
        raise ValueError(
            f"band_weight has level={band_weight.level}; allowed: that of the transform, {transform.level}"
        )
