"""Strided convolution: a learned linear map of each group of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.counted import CountedCompressor, group_codes


class StridedConvCompressor(CountedCompressor):
    """One learned linear map of each group of ``chunk_length / count`` tokens to a code.

    It starts at the mean of the group plus noise of a tenth of its size, so that it is never behind mean pooling.

    Args:
        dim: width of the tokens and of the codes.
        count: codes per whole chunk, a divisor of the chunk length. What a short one lacks is read as zero.
        chunk_length: tokens per chunk.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count that does not divide the chunk length, or chunks of another length.

    Example:
        >>> compressor = StridedConvCompressor(dim=8, count=4, chunk_length=16)
        >>> compressor(wc.Codes.from_tokens(torch.randn(2, 32, 8)).cut(16)).values.shape
        torch.Size([2, 8, 8])
    """

    def __init__(self, *, dim: int, count: int, chunk_length: int, encoding: nn.Module | None = None) -> None:
        super().__init__(count=count, encoding=encoding)
        if chunk_length < 1 or chunk_length % count:
            raise ValueError(f"count={count} does not divide chunk_length={chunk_length}; allowed: its divisors")
        self.chunk_length = chunk_length
        width = chunk_length // count
        self.project = nn.Linear(width * dim, dim, bias=False)
        with torch.no_grad():
            nn.init.normal_(self.project.weight, std=0.1 / (width * dim**0.5))
            self.project.weight += torch.eye(dim).repeat(1, width) / width

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, chunk_length={self.chunk_length}"

    def capacity(self, chunk_length: int) -> int:
        if chunk_length != self.chunk_length:
            raise ValueError(
                f"chunk_length={chunk_length} is another than it was made for; allowed: {self.chunk_length}"
            )
        return super().capacity(chunk_length)

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        return group_codes(chunks, self.project(values.unflatten(-2, (self.count, -1)).flatten(-2)))
