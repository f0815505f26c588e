"""Mean pooling: the first baseline."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor


class MeanPoolCompressor(Compressor):
    """Means of ``count`` equal groups of each chunk.

    Args:
        count: codes per whole chunk; a short chunk has those of the groups that it reaches.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count below 1, or above the chunk length.
    """

    def __init__(self, *, count: int, encoding: nn.Module | None = None) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count={count} is too small; allowed: 1 and above")
        self.count = count
        self.encoding = encoding

    def extra_repr(self) -> str:
        return f"count={self.count}"

    def capacity(self, chunk_length: int) -> int:
        if self.count > chunk_length:
            raise ValueError(f"count={self.count} asks for more codes than the {chunk_length} tokens of a chunk")
        return self.count

    def forward(self, chunks: Chunks) -> Codes:
        length = chunks.values.shape[-2]
        count = self.capacity(length)
        place = torch.arange(length, device=chunks.values.device)
        # (count, chunk_length): which group each token of the chunk belongs to
        member = (place * count // length == torch.arange(count, device=place.device)[:, None]).float()
        present = member * chunks.mask[..., None, :]
        tokens = present.sum(-1)
        present = present / tokens[..., None].clamp(min=1)
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        nominal = length / count
        codes = chunks.codes(
            present.to(values.dtype) @ values,
            mask=tokens > 0,
            position=present @ place.float(),
            support=tokens,
            frequency=torch.full_like(tokens, 1 / (4 * nominal)),
            level=torch.full_like(tokens, round(math.log2(nominal)), dtype=torch.int64),
            index=torch.arange(count, device=place.device),
        )
        return codes if self.encoding is None else self.encoding(codes)
