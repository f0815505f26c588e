"""The wavelet compressor: transform, prune, keep the rest small, mark position and frequency."""

from __future__ import annotations

from types import NoneType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.band_weight import check_band_weight
from wavecomp.compressors.compressor import Compressor, gather_rows, scatter_rows
from wavecomp.compressors.detail import DetailChannel, check_detail_channel
from wavecomp.compressors.pruner import Kept, Pruner
from wavecomp.records import check_type
from wavecomp.wavelets import ChunkTransform


class WaveletCompressor(Compressor):
    """Wavelet coefficients of each chunk, pruned, as codes.

    Values are normalised per token over dim before the transform, so that no loudness leaks between chunks or rows.
    :meth:`expand` takes the codes for coefficients, puts zero for those that were pruned, and inverts the transform:
    for an orthogonal one and codes that nothing was added to, no other values of so many coefficients come closer.

    Args:
        transform: splits a chunk into bands.
        pruner: which coefficients stay.
        band_weight: a module from Bands to Bands before pruning, such as :class:`BandWeight`, or ``None``.
        detail_channel: what is pruned under a code is added to it; ``None`` to lose it.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        TypeError: a transform, pruner or encoding of another kind.
        ValueError: a detail channel with a transform whose levels do not split in two, or of another level.

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
        check_type("transform", transform, ChunkTransform, hint=", such as DWT1d('haar', level=3)")
        check_type("pruner", pruner, Pruner, hint=", such as KeepLowpass(8)")
        check_detail_channel(detail_channel, transform)
        check_band_weight(band_weight, transform)
        self.transform = transform
        self.pruner = pruner
        self.band_weight = band_weight
        self.detail_channel = detail_channel
        check_type("encoding", encoding, nn.Module, NoneType)
        self.encoding = encoding

    def capacity(self, chunk_length: int) -> int:
        return self.pruner.capacity(self.transform.layout(chunk_length))

    def forward(self, chunks: Chunks) -> Codes:
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        bands = self.transform(values, None if chunks.dense else chunks.lengths, ragged=chunks.ragged).replace(
            first=chunks.first
        )
        energy = bands.energy().detach()
        if self.band_weight is not None:
            bands = self.band_weight(bands)
        kept = self.pruner(bands)
        marks = bands.layout.take(kept.index)
        codes = chunks.codes(
            self._values(bands, kept, marks["level"]),
            mask=kept.mask,
            **marks,
            index=kept.index,
            losses=kept.losses,
            statistics={"band_energy": energy, **kept.statistics},
        )
        return codes if self.encoding is None else self.encoding(codes)

    def restore(self, values: Tensor, codes: Codes, chunks: Chunks) -> Tensor:
        """The inverse transform; coefficients that were pruned are zero."""
        length = chunks.values.shape[-2]
        coefficients = len(self.transform.layout(length))
        index, level, mask = (x.reshape(values.shape[:-1]) for x in (codes.index, codes.level, codes.mask))
        level = torch.where(mask, level - _level_of_places(chunks), 0)
        if self.detail_channel is not None:
            values = self.detail_channel.undo(values, level)
        bands = Bands(
            values=scatter_rows(values, index, coefficients),
            lengths=chunks.lengths,
            layout=self.transform.layout_of(scatter_rows(level[..., None], index, coefficients)[..., 0], length),
            dense=chunks.dense,
            ragged=chunks.ragged,
        )
        return self.transform.inverse(bands)

    def _values(self, bands: Bands, kept: Kept, level: Tensor) -> Tensor:
        values = gather_rows(bands.values, kept.index)
        weight = kept.mask.to(values.dtype) if kept.weight is None else (kept.mask * kept.weight).to(values.dtype)
        if kept.weight is not None:
            values = values * weight[..., None]
        if self.detail_channel is None:
            return values
        # what a weight takes from a code is handed on as if it had been pruned
        own = torch.zeros_like(bands.values[..., 0]).scatter_add(-1, kept.index, weight)
        handed = self.detail_channel.messages if self.transform.dyadic else self.detail_channel.messages_of_packets
        messages = gather_rows(handed(bands, own), kept.index)
        if kept.weight is not None:
            messages = messages * weight[..., None]
        return self.detail_channel(values, level, messages)


def _level_of_places(chunks: Chunks) -> Tensor:
    """``(batch, chunks, 1)``: the level that ``Chunks.codes`` adds where places are themselves codes of many tokens."""
    return chunks.stride.clamp(min=1).log2().round().long()
