"""Strided convolution: a learned linear map of each group of tokens, and of what lies around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.counted import CountedCompressor, group_codes


class StridedConvCompressor(CountedCompressor):
    """One learned linear map of each group of ``chunk_length / count`` tokens to a code.

    It starts at the mean of the group plus noise of a tenth of its size, so that it is never behind mean pooling.

    Args:
        dim: width of the tokens and of the codes.
        count: codes per whole chunk, a divisor of the chunk length. What a short one lacks is read as zero.
        chunk_length: tokens per chunk.
        kernel: tokens that a code is made of: those of its group and as many on either side, zeros beyond the chunk;
            the group alone unless given.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count that does not divide the chunk length, a kernel that does not lie around a group, or chunks
            of another length.

    Example:
        >>> compressor = StridedConvCompressor(dim=8, count=4, chunk_length=16, kernel=8)
        >>> compressor(wc.Codes.from_tokens(torch.randn(2, 32, 8)).cut(16)).values.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        *,
        dim: int,
        count: int,
        chunk_length: int,
        kernel: int | None = None,
        encoding: nn.Module | None = None,
    ) -> None:
        super().__init__(count=count, encoding=encoding)
        if chunk_length < 1 or chunk_length % count:
            raise ValueError(f"count={count} does not divide chunk_length={chunk_length}; allowed: its divisors")
        width = chunk_length // count
        kernel = width if kernel is None else kernel
        if kernel < width or (kernel - width) % 2:
            raise ValueError(
                f"kernel={kernel} does not lie around groups of {width}; allowed: {width}, {width + 2}, ..."
            )
        self.chunk_length, self.kernel = chunk_length, kernel
        self.project = nn.Linear(kernel * dim, dim, bias=False)
        with torch.no_grad():
            nn.init.normal_(self.project.weight, std=0.1 / (width * dim**0.5))
            beside = (kernel - width) // 2 * dim
            self.project.weight[:, beside : kernel * dim - beside] += torch.eye(dim).repeat(1, width) / width

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, chunk_length={self.chunk_length}, kernel={self.kernel}"

    def capacity(self, chunk_length: int) -> int:
        if chunk_length != self.chunk_length:
            raise ValueError(
                f"chunk_length={chunk_length} is another than it was made for; allowed: {self.chunk_length}"
            )
        return super().capacity(chunk_length)

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        width = self.chunk_length // self.count
        beside = (self.kernel - width) // 2
        windows = F.pad(values, (0, 0, beside, beside)).unfold(-2, self.kernel, width)
        return group_codes(chunks, self.project(windows.transpose(-1, -2).flatten(-2)))
