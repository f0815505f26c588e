"""The Chunk-Network: encode each chunk, compress it."""

from __future__ import annotations

import inspect

from torch import nn

from wavecomp.codes import Codes
from wavecomp.compressors import Compressor


class ChunkNetwork(nn.Module):
    """Cuts codes into chunks, encodes each by itself and compresses it: Codes to fewer Codes.

    Args:
        chunk_length: codes per chunk.
        encoder: any module from ``(rows, chunk_length, dim)`` to the same shape, or ``None``. Each row is one chunk,
            zero behind its length. An encoder whose ``forward`` takes ``lengths`` (``(rows,)``) is given them, or
            ``None`` where every chunk is complete; any other sees the zeros.
        compressor: chunks to codes.

    Raises:
        ValueError: a compressor that cannot work on chunks of this length.

    Example:
        >>> compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        >>> network = ChunkNetwork(chunk_length=16, encoder=torch.nn.Linear(8, 8), compressor=compressor)
        >>> network(wc.Codes.from_tokens(torch.randn(2, 40, 8))).mask.sum(-1)
        tensor([10, 10])
    """

    def __init__(self, *, chunk_length: int, encoder: nn.Module | None = None, compressor: Compressor) -> None:
        super().__init__()
        if chunk_length < 1:
            raise ValueError(f"chunk_length={chunk_length} is too small; allowed: 1 and above")
        compressor.capacity(chunk_length)
        self.chunk_length = chunk_length
        self.encoder = encoder
        self.compressor = compressor
        self.encoder_takes_lengths = encoder is not None and "lengths" in inspect.signature(encoder.forward).parameters

    @property
    def causal(self) -> bool:
        """Whether the codes of a chunk depend on that chunk alone."""
        return self.compressor.causal

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to fewer ``Codes``."""
        chunks = codes.cut(self.chunk_length)
        if self.encoder is None:
            return self.compressor(chunks)
        rows = chunks.values.flatten(0, 1)
        if self.encoder_takes_lengths:
            encoded = self.encoder(rows, lengths=None if chunks.dense else chunks.lengths.flatten())
        else:
            encoded = self.encoder(rows)
        if encoded.shape != rows.shape:
            name = type(self.encoder).__name__
            raise ValueError(f"encoder {name} returned shape {tuple(encoded.shape)}, expected {tuple(rows.shape)}")
        encoded = encoded.view_as(chunks.values)
        return self.compressor(chunks.replace(values=encoded * chunks.mask[..., None]))
