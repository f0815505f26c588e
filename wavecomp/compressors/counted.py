"""What compressors with a fixed number of codes per chunk share."""

from __future__ import annotations

import math
from types import NoneType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor
from wavecomp.records import check_count, check_type


class CountedCompressor(Compressor):
    """``count`` codes per whole chunk, in proportion for a short one, and an encoding behind."""

    def __init__(self, *, count: int, encoding: nn.Module | None = None) -> None:
        super().__init__()
        check_count("count", count)
        self.count = count
        check_type("encoding", encoding, nn.Module, NoneType)
        self.encoding = encoding

    def extra_repr(self) -> str:
        return f"count={self.count}"

    def capacity(self, chunk_length: int) -> int:
        if self.count > chunk_length:
            raise ValueError(
                f"count={self.count} asks for more codes than the {chunk_length} tokens of a chunk; allowed: 1 to "
                f"{chunk_length}"
            )
        return self.count

    def forward(self, chunks: Chunks) -> Codes:
        self.capacity(chunks.values.shape[-2])
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        codes = self.compress(chunks, values)
        return codes if self.encoding is None else self.encoding(codes)

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        """The codes of these chunks; ``values`` are theirs, normalised per token, zero behind each length."""
        raise NotImplementedError

    def budget(self, chunks: Chunks) -> Tensor:
        """``(batch, chunks)``: the share of the count that a chunk of this length has."""
        return -(-chunks.lengths * self.count // chunks.values.shape[-2])


def group_edges(length: int, count: int, device: torch.device) -> Tensor:
    """``(count + 1,)``: where each of ``count`` groups of a chunk begins, and where the last one ends.

    Groups differ by one token where count does not divide the length.
    """
    return -(-torch.arange(count + 1, device=device) * length // count)


def group_codes(chunks: Chunks, values: Tensor) -> Codes:
    """Codes that each stand for a group of their chunk; a short chunk has those of the groups that it reaches.

    Args:
        values: ``(batch, chunks, count, dim)``, in the order of the groups.
    """
    length, count = chunks.values.shape[-2], values.shape[-2]
    nominal = length / count
    edges = group_edges(length, count, values.device)
    start, stop = edges[:-1], edges[1:].minimum(chunks.lengths[..., None])
    support = (stop - start).clamp(min=0).float()
    return chunks.codes(
        values,
        mask=support > 0,
        position=(start + stop - 1) / 2,
        support=support,
        frequency=torch.full_like(support, 1 / (4 * nominal)),
        level=torch.full_like(support, round(math.log2(nominal)), dtype=torch.int64),
        index=torch.arange(count, device=values.device),
    )


def chunk_codes(chunks: Chunks, values: Tensor, *, mask: Tensor, frequency: Tensor) -> Codes:
    """Codes that each stand for their whole chunk: they lie in its centre and cover it.

    Args:
        values: ``(batch, chunks, count, dim)``.
        mask, frequency: ``(batch, chunks, count)`` or broadcast to it.
    """
    lengths = chunks.lengths[..., None]
    return chunks.codes(
        values,
        mask=mask,
        position=(lengths - 1) / 2,
        support=lengths.float(),
        frequency=frequency,
        level=lengths.clamp(min=1).log2().round().long(),
        index=torch.arange(values.shape[-2], device=values.device),
    )
