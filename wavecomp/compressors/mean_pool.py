"""Mean pooling: the first baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.counted import CountedCompressor, group_codes, group_edges


class MeanPoolCompressor(CountedCompressor):
    """Means of ``count`` equal groups of each chunk.

    Args:
        count: codes per whole chunk; a short chunk has those of the groups that it reaches.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count below 1, or above the chunk length.
    """

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        length = values.shape[-2]
        place = torch.arange(length, device=values.device)
        edges = group_edges(length, self.count, values.device)
        # (count, chunk_length): which group each token of the chunk belongs to
        member = (place >= edges[:-1, None]) & (place < edges[1:, None])
        present = (member & chunks.mask[..., None, :]).to(values.dtype)
        return group_codes(chunks, present @ values / present.sum(-1, keepdim=True).clamp(min=1))
