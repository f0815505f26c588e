"""The wavelet compressor: transform, prune, keep the rest small, mark position and frequency."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor
from wavecomp.compressors.detail import DetailChannel
from wavecomp.compressors.pruning import Pruner
from wavecomp.wavelets import ChunkTransform


class WaveletCompressor(Compressor):
    """Wavelet coefficients of each chunk, pruned, as codes.

    Values are normalised per token over dim before the transform, so that no loudness leaks between chunks or rows.

    Args:
        transform: splits a chunk into bands.
        pruner: which coefficients stay.
        detail_channel: what is pruned under an approximation is added to it; ``None`` to lose it. For low-pass pruners.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a detail channel with a pruner that is no low-pass, or of another level than the transform.

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
        detail_channel: DetailChannel | None = None,
        encoding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if detail_channel is not None and not pruner.lowpass:
            raise ValueError(f"detail_channel goes with a low-pass pruner such as KeepLowpass, not with {pruner}")
        if detail_channel is not None and not transform.dyadic:
            raise ValueError(f"detail_channel goes with DWT1d and banks of two branches, not with {transform}")
        if detail_channel is not None and detail_channel.level != transform.level:
            raise ValueError(
                f"detail_channel has level={detail_channel.level}, the transform level={transform.level}; give both one"
            )
        self.transform = transform
        self.pruner = pruner
        self.detail_channel = detail_channel
        self.encoding = encoding
        self.causal = pruner.causal

    def capacity(self, chunk_length: int) -> int:
        return self.pruner.capacity(self.transform.layout(chunk_length))

    def forward(self, chunks: Chunks) -> Codes:
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        bands = self.transform(values, None if chunks.dense else chunks.lengths)
        kept = self.pruner(bands)
        values = self._values(bands, kept.index)
        if kept.weight is not None:
            values = values * kept.weight[..., None].to(values.dtype)
        layout = bands.layout
        codes = chunks.codes(
            values,
            mask=kept.mask,
            position=layout.position[kept.index],
            support=layout.support[kept.index],
            frequency=layout.frequency[kept.index],
            level=layout.level[kept.index],
            index=kept.index,
            losses=kept.losses,
            statistics={"band_energy": bands.energy().detach(), **kept.statistics},
        )
        return codes if self.encoding is None else self.encoding(codes)

    def _values(self, bands: Bands, index: Tensor) -> Tensor:
        if not self.pruner.lowpass:
            return bands.values.gather(-2, index[..., None].expand(*index.shape, bands.values.shape[-1]))
        count = index.shape[-1]
        values = bands.values[..., :count, :]
        if self.detail_channel is None:
            return values
        minor = self.detail_channel(bands, first=count)
        if count <= minor.shape[-2]:
            return values + minor[..., :count, :]
        return values + F.pad(minor, (0, 0, 0, count - minor.shape[-2]))
