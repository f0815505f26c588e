"""BandWeight: how much each band of a chunk counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.compressors.selection import mean_power
from wavecomp.modules import Module
from wavecomp.records import check_count
from wavecomp.wavelets import ChunkTransform


class BandWeight(Module):
    """A learnable gain for each band, from the bands' content where asked: Bands to Bands.

    The gain of a band is ``softplus(bias + content) / softplus(0)``, 1 at the start; the content is a linear map of the
    logarithms of the chunk's loudness in each band. :meth:`Compressor.expand` does not undo them.

    Args:
        bands: how many the transform has, :attr:`ChunkTransform.bands`; ``level + 1`` of a :class:`DWT1d` that halves.
        content: whether gains depend on the chunk.

    Raises:
        ValueError: less than one band.

    Example:
        >>> transform = wc.DWT1d("haar", level=2)
        >>> bands = transform(torch.randn(1, 3, 16, 8))
        >>> torch.equal(BandWeight(bands=transform.bands)(bands).values, bands.values)
        True
    """

    def __init__(self, *, bands: int, content: bool = False) -> None:
        super().__init__()
        check_count("bands", bands)
        self.bands = bands
        self.bias = nn.Parameter(torch.zeros(bands))
        self.content = nn.Linear(bands, bands, bias=False) if content else None
        if self.content is not None:
            nn.init.zeros_(self.content.weight)

    def gains(self, bands: Bands) -> Tensor:
        """``(batch, chunks, coefficients)`` or a shape that broadcasts to it."""
        band = bands.layout.band
        score = self.bias
        if self.content is not None:
            power = mean_power(bands, band, self.bands)
            score = score + self.content((power + 1e-6).log().to(self.bias.dtype))
        gain = F.softplus(score) / F.softplus(torch.zeros_like(self.bias))
        if gain.ndim == 1:
            return gain[band]
        return gain.gather(-1, band.expand(*gain.shape[:-1], band.shape[-1]))

    def forward(self, bands: Bands) -> Bands:
        gains = self.gains(bands)[..., None].to(bands.values.dtype)
        return bands.replace(values=bands.values * gains)

    if TYPE_CHECKING:
        __call__ = forward


def check_band_weight(band_weight: nn.Module | None, transform: ChunkTransform) -> None:
    """Raise ``ValueError`` for gains of other bands than those of a transform."""
    if isinstance(band_weight, BandWeight) and band_weight.bands != transform.bands:
        raise ValueError(
            f"band_weight has bands={band_weight.bands}; allowed: those of the transform, {transform.bands}"
        )
