"""Where a code lies as a path of bits, each bit a learned vector of few bits itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.modules import Module
from wavecomp.records import check_width

# bits above these would weigh less than the last bit of fp32
BEYOND = 24


class DyadicPositionCode(Module):
    r"""Adds the sum of one learned vector per bit of a code's binary path.

    .. math:: v + \sum_{k \in path} w_k\, Q(u_{k, b_k})

    The path has four parts; a bit that a code does not have adds nothing:

    - **chunk**: the bits of the chunk's number from the least significant up to its leading one, so that a longer
      sequence appends bits;
    - **place**: halves of the chunk, halves of these, down to blocks of ``2 ** level`` tokens: a coarse code has a
      short path, and it is the start of the paths of all codes under it;
    - **frequency**: the ``level`` bits of its band in the packet tree, 0 for approximations and 1 for details;
    - **index**: the bits of the code's number in its chunk, which tell codes apart whose centres share a block.

    Any length: vectors of chunk bits start at zero, and those that were never trained stay there. The first ``depth``
    chunk bits weigh 1; those above share one pair of vectors and weigh 1/2, 1/4, ..., so that together they stay within
    that pair however many they are.

    ``Q`` stores a vector in ``bits`` bits per channel and one scale (:func:`quantise`); its gradient is that of the
    identity (Bengio et al., 2013).

    Args:
        dim: width of the codes.
        chunk_length: tokens per chunk, of the last stage; places are told modulo this.
        bits: bits per stored channel, 1 to 8, or ``None`` for full precision.
        depth: chunk bits with vectors of their own; ``log2`` of the chunks of a training sequence, or less.

    Raises:
        ValueError: bits outside 1 to 8, a size below 1, a depth above 32.

    Example:
        >>> codes = wc.MeanPoolCompressor(count=4)(wc.Codes.from_tokens(torch.randn(2, 64, 8)).cut(16))
        >>> encoding = DyadicPositionCode(8, chunk_length=16, bits=4, depth=3)
        >>> encoding(codes).values.shape, encoding.bytes_stored
        (torch.Size([2, 16, 8]), 272)
        >>> encoding.parts(codes)["place"][0, 6]  # the third group of four tokens: the later 8 and their first 4
        tensor([ 1,  0, -1, -1])
    """

    def __init__(self, dim: int, *, chunk_length: int, bits: int | None = 8, depth: int = 8) -> None:
        super().__init__()
        if bits is not None and not (type(bits) is int and 1 <= bits <= 8):
            raise ValueError(f"bits={bits} cannot be stored; allowed: 1 to 8, or None for full precision")
        if min(dim, chunk_length, depth) < 1 or depth > 32:
            raise ValueError(
                f"dim={dim}, chunk_length={chunk_length}, depth={depth}; allowed: 1 and above, depth to 32"
            )
        self.bits = bits
        self.dim, self.depth = dim, depth
        self.chunk_length = chunk_length
        self.levels = (chunk_length - 1).bit_length()
        # one pair per chunk bit and one for all above, then place, frequency and index, which may number a whole tree
        inside = 3 * self.levels + 1
        self.vectors = nn.Parameter(torch.zeros(depth + 1 + inside, 2, dim))
        nn.init.normal_(self.vectors.detach()[depth + 1 :], std=0.3 / math.sqrt(inside))

    def extra_repr(self) -> str:
        return f"chunk_length={self.chunk_length}, bits={self.bits}, depth={self.depth}"

    def parts(self, codes: Codes) -> dict[str, Tensor]:
        """The path of every code: bits ``(batch, slots, count)`` of each part, 0, 1, or -1 where a code has none."""
        level = codes.level[..., None]
        fine = torch.arange(self.levels, device=level.device)
        block = fine.flip(0)
        # a quarter of a token on, so that rounding moves no centre out of its block
        token = (codes.position + 0.25).remainder(self.chunk_length).long()
        # a band of a tree that is split l times holds the frequencies from band / 2 ** (l + 1) on
        # and a quarter of a band, where rounding moves none: centres of bands lie at a half or, of a DCT, on an edge
        band = (2 * codes.frequency * codes.support + 0.25).floor().long()
        return {
            "chunk": _number(codes.chunk, self.depth + BEYOND),
            "place": torch.where(block >= level, token[..., None] >> block & 1, -1),
            "frequency": torch.where(fine < level, band[..., None] >> fine & 1, -1),
            "index": _number(codes.index, self.levels + 1),
        }

    def path(self, codes: Codes) -> Tensor:
        """All bits of every code, ``(batch, slots, bits)``: chunk, place, frequency, index."""
        return torch.cat(list(self.parts(codes).values()), dim=-1)

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to the same codes, marked; empty slots stay zero."""
        check_width(self, self.dim, codes.values)
        path = self.path(codes)
        chosen = torch.stack([path == 0, path == 1], dim=-1).to(self.vectors.dtype)
        own, beyond, inside = chosen.split([self.depth, BEYOND, path.shape[-1] - self.depth - BEYOND], dim=2)
        weight = 0.5 ** torch.arange(1, BEYOND + 1, device=path.device, dtype=chosen.dtype)
        beyond = (beyond * weight[:, None]).sum(2, keepdim=True)
        chosen = torch.cat([own, beyond, inside], dim=2)
        marks = chosen.flatten(2) @ straight_through(self.vectors, self.bits).flatten(0, 1)
        values = codes.values + marks.to(codes.values.dtype)
        return codes.replace(values=torch.where(codes.mask[..., None], values, 0))

    def packed(self) -> tuple[Tensor, Tensor]:
        """What is stored: integers ``(pairs, 2, dim)`` int8 and scales ``(pairs, 2, 1)``, whose product is used.

        Raises:
            ValueError: full precision, which has no integers.
        """
        if self.bits is None:
            raise ValueError("bits=None stores no integers; allowed: 1 to 8")
        return quantise(self.vectors.detach(), self.bits)

    @property
    def bytes_stored(self) -> int:
        """Bytes of all vectors: their bits packed without gaps, and a scale in fp32 each."""
        if self.bits is None:
            return self.vectors.numel() * self.vectors.element_size()
        return -(-self.vectors.numel() * self.bits // 8) + 4 * (self.vectors.numel() // self.vectors.shape[-1])


def quantise(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Symmetric uniform quantisation of each vector.

    From two bits on the scale is ``max |x| / (2 ** (bits - 1) - 1)``; one bit keeps the sign, and the mean of ``|x|``.

    Args:
        x: ``(..., dim)``.
        bits: 1 to 8.

    Returns:
        Integers ``(..., dim)`` int8 and scales ``(..., 1)``, at least fp32.

    Example:
        >>> integers, scales = quantise(torch.tensor([0.1, -0.5, 0.3]), bits=3)
        >>> integers, round(float(scales), 4)
        (tensor([ 1, -3,  2], dtype=torch.int8), 0.1667)
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    size = x.abs()
    if bits == 1:
        return torch.where(x < 0, -1, 1).to(torch.int8), size.mean(-1, keepdim=True)
    scales = size.amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (x / scales.clamp(min=torch.finfo(x.dtype).tiny)).round().to(torch.int8), scales


def straight_through(x: Tensor, bits: int | None) -> Tensor:
    """``x (..., dim)`` in ``bits`` bits, with the gradient of the identity; x itself for ``None``."""
    if bits is None:
        return x
    integers, scales = quantise(x.detach(), bits)
    # the difference is exactly zero: the value is the stored one to the last bit
    return (integers * scales).to(x.dtype) + (x - x.detach())


def _number(x: Tensor, count: int) -> Tensor:
    """The lowest ``count`` bits of each integer, ``(..., count)``, up to its leading one; -1 above."""
    rest = x[..., None] >> torch.arange(count, device=x.device)
    return torch.where(rest > 0, rest & 1, -1)
