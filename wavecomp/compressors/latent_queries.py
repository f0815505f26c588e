"""Attention pooling: learned queries read their chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.counted import CountedCompressor, group_codes, group_edges
from wavecomp.positions import rotary_angles, rotate


class LatentQueriesCompressor(CountedCompressor):
    """``count`` learned queries attend to the tokens of their chunk (Perceiver; Jaegle et al., 2021).

    Each reads the whole chunk, and is given a place to start from and to be found at: query q stands in the centre of
    the q-th of ``count`` equal groups, which is the position of its code, with the group as support. Half of each head
    is turned by the places of query and token, so that attention can go by place as well as by content.

    Args:
        dim: width of the tokens and of the codes.
        heads: attention heads; dim is a multiple of four times as many.
        count: queries, and codes per whole chunk; a short chunk has the first of them, in proportion.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count below 1, or above the chunk length; heads that do not go with dim.

    Example:
        >>> compressor = LatentQueriesCompressor(dim=16, heads=2, count=4)
        >>> compressor(wc.Codes.from_tokens(torch.randn(2, 32, 16)).cut(16)).values.shape
        torch.Size([2, 8, 16])
    """

    def __init__(self, *, dim: int, heads: int, count: int, encoding: nn.Module | None = None) -> None:
        super().__init__(count=count, encoding=encoding)
        if heads < 1 or dim % (4 * heads):
            raise ValueError(f"heads={heads} does not go with dim={dim}; allowed: dim a multiple of 4 * heads")
        self.turned = dim // heads // 2
        self.queries = nn.Parameter(torch.randn(heads, count, dim // heads))
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        # so that a code starts as loud as a mean, like those of the other baselines
        for weight in (self.kv.weight[dim:], self.out.weight):
            wide = torch.promote_types(weight.dtype, torch.float32)  # LAPACK has nothing narrower
            with torch.no_grad():
                weight.copy_(nn.init.orthogonal_(torch.empty_like(weight, dtype=wide)))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, heads={len(self.queries)}"

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        length = values.shape[-2]
        place = torch.arange(length, device=values.device)
        edges = group_edges(length, self.count, values.device)
        kv = self.kv(values.flatten(0, 1)).unflatten(-1, (2 * len(self.queries), -1)).transpose(1, 2)
        k, v = kv.chunk(2, dim=1)
        k = rotate(k, rotary_angles(place, self.turned))
        q = rotate(self.queries[None], rotary_angles((edges[:-1] + edges[1:] - 1) / 2, self.turned))
        # an empty chunk reads its first place, which is zero: a softmax over nothing would be NaN
        mask = (chunks.mask | (place == 0)).flatten(0, 1)[:, None, None]
        read = F.scaled_dot_product_attention(q.to(k.dtype).expand(len(k), -1, -1, -1), k, v, attn_mask=mask)
        codes = self.out(read.transpose(1, 2).flatten(2))
        return group_codes(chunks, codes.unflatten(0, chunks.lengths.shape))
