"""The discrete cosine transform: the lowest frequencies of each chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.counted import CountedCompressor, chunk_codes


class DCTCompressor(CountedCompressor):
    r"""The ``count`` lowest coefficients of the orthonormal DCT-II of each chunk, lowest first.

    .. math:: X_k = \sqrt{\frac{2 - [k = 0]}{n}} \sum_{t < n} x_t \cos\frac{\pi (2 t + 1) k}{2 n}

    with the chunk's own length n (Ahmed, Natarajan and Rao, 1974). Each coefficient covers the whole chunk and lies in
    its centre; its frequency is ``k / 2n``.

    Args:
        count: codes per whole chunk; a short chunk has the lowest of them, in proportion.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count below 1, or above the chunk length.

    Example:
        >>> codes = DCTCompressor(count=2)(wc.Codes.from_tokens(torch.ones(1, 16, 3)).cut(16))
        >>> codes.values[0, :, 0].round(decimals=4).abs(), codes.frequency
        (tensor([4., 0.]), tensor([[0.0000, 0.0312]]))
    """

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        index = torch.arange(self.count, device=values.device)
        return chunk_codes(
            chunks,
            self._table(chunks, values.dtype) @ values,
            mask=index < self.budget(chunks)[..., None],
            frequency=index / (2 * chunks.lengths[..., None].clamp(min=1)),
        )

    def restore(self, values: Tensor, codes: Codes, chunks: Chunks) -> Tensor:
        """The inverse transform; the frequencies above are zero."""
        return self._table(chunks, values.dtype).transpose(-2, -1) @ values

    def _table(self, chunks: Chunks, dtype: torch.dtype) -> Tensor:
        """``(count, chunk_length)``, one for whole chunks, which share it, or one for each chunk."""
        length, device = chunks.values.shape[-2], chunks.values.device
        lengths = torch.full((), length, device=device) if chunks.dense else chunks.lengths
        exact = torch.promote_types(dtype, torch.float32)
        return cosines(lengths, length, self.count, dtype=exact).to(dtype)


def cosines(lengths: Tensor, chunk_length: int, count: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The first ``count`` rows of the orthonormal DCT-II of each of these lengths.

    Args:
        lengths: any shape.

    Returns:
        ``(..., count, chunk_length)``; columns from the length on have no meaning.
    """
    n = lengths[..., None, None].clamp(min=1)
    k = torch.arange(count, device=lengths.device)[:, None]
    t = torch.arange(chunk_length, device=lengths.device)
    # whole turns are dropped while the phase is an integer: cosines of large numbers are imprecise
    turns = ((2 * t + 1) * k % (4 * n)).to(dtype) / (4 * n).to(dtype)
    return torch.cos(2 * math.pi * turns) * (torch.where(k == 0, 1, 2) / n.to(dtype)).sqrt()
