"""No codes: the floor that every compressor is measured against."""

from __future__ import annotations

import torch

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor


class NoCodes(Compressor):
    """One slot per chunk, always empty: a model that is to do without its past. Its ratio is infinite.

    Example:
        >>> codes = NoCodes()(wc.Codes.from_tokens(torch.randn(2, 32, 8)).cut(16))
        >>> codes.values.shape, int(codes.mask.sum()), float(codes.ratio)
        (torch.Size([2, 2, 8]), 0, inf)
    """

    def capacity(self, chunk_length: int) -> int:
        return 1

    def forward(self, chunks: Chunks) -> Codes:
        nowhere = torch.zeros_like(chunks.lengths)[..., None]
        return chunks.codes(
            chunks.values[..., :1, :],
            mask=nowhere.bool(),
            position=nowhere.float(),
            support=nowhere.float(),
            frequency=nowhere.float(),
            level=nowhere,
            index=nowhere,
        )
