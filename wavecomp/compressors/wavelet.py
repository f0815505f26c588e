"""The wavelet compressor: transform, prune, keep the rest small, mark position and frequency."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor
from wavecomp.compressors.detail import DetailChannel
from wavecomp.compressors.pruning import Kept, Pruner
from wavecomp.wavelets import ChunkTransform


class WaveletCompressor(Compressor):
    """Wavelet coefficients of each chunk, pruned, as codes.

    Values are normalised per token over dim before the transform, so that no loudness leaks between chunks or rows.

    Args:
        transform: splits a chunk into bands.
        pruner: which coefficients stay.
        band_weight: a module from Bands to Bands before pruning, such as :class:`BandWeight`, or ``None``.
        detail_channel: what is pruned under a code is added to it; ``None`` to lose it.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a detail channel with a transform that is no dyadic tree, or of another level.

    Example:
        >>> compressor = WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        >>> codes = compressor(wc.Codes.from_tokens(torch.randn(2, 32, 8)).cut(16))
        >>> codes.values.shape, float(codes.ratio)
        (torch.Size([2, 8, 8]), 4.0)
    """

    def __init__(
        self,
        *,
        transform: ChunkTransform,
        pruner: Pruner,
        band_weight: nn.Module | None = None,
        detail_channel: DetailChannel | None = None,
        encoding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_detail_channel(detail_channel, transform)
        self.transform = transform
        self.pruner = pruner
        self.band_weight = band_weight
        self.detail_channel = detail_channel
        self.encoding = encoding
        self.causal = pruner.causal

    def capacity(self, chunk_length: int) -> int:
        return self.pruner.capacity(self.transform.layout(chunk_length))

    def forward(self, chunks: Chunks) -> Codes:
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        bands = self.transform(values, None if chunks.dense else chunks.lengths)
        if self.band_weight is not None:
            bands = self.band_weight(bands)
        kept = self.pruner(bands)
        codes = chunks.codes(
            self._values(bands, kept),
            mask=kept.mask,
            **bands.layout.take(kept.index),
            index=kept.index,
            losses=kept.losses,
            statistics={"band_energy": bands.energy().detach(), **kept.statistics},
        )
        return codes if self.encoding is None else self.encoding(codes)

    def _values(self, bands: Bands, kept: Kept) -> Tensor:
        values = _gather(bands.values, kept.index)
        if kept.weight is not None:
            values = values * kept.weight[..., None].to(values.dtype)
        if self.detail_channel is None:
            return values
        own = torch.zeros_like(bands.mask).scatter(-1, kept.index, kept.mask)
        return values + _gather(self.detail_channel(bands, own), kept.index)


def check_detail_channel(detail_channel: DetailChannel | None, transform: ChunkTransform) -> None:
    """Raise ``ValueError`` where a detail channel finds no tree, or one of another level."""
    if detail_channel is not None and not transform.dyadic:
        raise ValueError(f"detail_channel goes with DWT1d and banks of two branches, not with {transform}")
    if detail_channel is not None and detail_channel.level != transform.level:
        raise ValueError(
            f"detail_channel has level={detail_channel.level}, the transform level={transform.level}; give both one"
        )


def _gather(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-2, index[..., None].expand(*index.shape, values.shape[-1]))
