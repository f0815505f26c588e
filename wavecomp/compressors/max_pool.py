"""Max pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.counted import CountedCompressor, group_codes, group_edges


class MaxPoolCompressor(CountedCompressor):
    """Maxima of ``count`` equal groups of each chunk, channel by channel.

    Args:
        count: codes per whole chunk; a short chunk has those of the groups that it reaches.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count below 1, or above the chunk length.

    Example:
        >>> codes = MaxPoolCompressor(count=4)(wc.Codes.from_tokens(torch.randn(2, 32, 8)).cut(16))
        >>> codes.values.shape, float(codes.ratio)
        (torch.Size([2, 8, 8]), 4.0)
    """

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        length = values.shape[-2]
        edges = group_edges(length, self.count, values.device)
        place = edges[:-1, None] + torch.arange(-(-length // self.count), device=values.device)
        present = (place < edges[1:, None]) & (place < chunks.lengths[..., None, None])
        grouped = values[..., place.clamp(max=length - 1), :]
        largest = torch.where(present[..., None], grouped, torch.finfo(values.dtype).min).amax(-2)
        return group_codes(chunks, largest)
