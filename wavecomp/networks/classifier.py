"""The classifier: tokens to codes, codes to one vector, and that to a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.files import Pretrained
from wavecomp.networks.embedding import embed_tokens


class ChunkReduceClassifier(Pretrained):
    r"""Tokens to few codes to one class per row.

    The head sees the mean of the codes, weighed by :func:`passage_weights`, so that a passage counts by its length, not
    by the number of codes that it was given, whatever the compressor; and it needs nothing learned. What a code has to
    know of the others it reads in the Reduce-Network, which may do so both ways, as the body may prune over the whole
    sequence: nothing here has to be causal.

    Args:
        embedding: a module from tokens ``(batch, length)`` to ``(batch, length, dim)``, one token at a time.
        body: Codes to Codes.
        head: a module from ``(batch, dim)`` to ``(batch, classes)``.

    Example:
        >>> pruner = wc.GlobalTopK(target_ratio=4)
        >>> wavelet = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=4), pruner=pruner)
        >>> model = ChunkReduceClassifier(
        ...     embedding=torch.nn.Embedding(256, 8),
        ...     body=wc.ChunkReduce(
        ...         chunk_networks=[wc.ChunkNetwork(chunk_length=16, compressor=wavelet)],
        ...         reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1, window=None, causal=False),
        ...     ),
        ...     head=torch.nn.Linear(8, 10),
        ... )
        >>> model(torch.randint(256, (2, 40)), torch.tensor([40, 21])).shape
        torch.Size([2, 10])
    """

    def __init__(self, *, embedding: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.body = body
        self.head = head

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of the classes.

        Args:
            tokens: ``(batch, length)`` int64.
            lengths: ``(batch,)``, tokens in each row; all unless given. What lies behind them is not read.

        Returns:
            ``(batch, classes)``.

        Raises:
            ValueError: shapes that do not fit, or lengths beyond the tensor (values are checked on the CPU only).
        """
        return self.classify(self.encode(tokens, lengths))

    if TYPE_CHECKING:
        __call__ = forward

    def encode(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes of all tokens."""
        return self.body(embed_tokens(self.embedding, tokens, lengths))

    def classify(self, codes: Codes) -> Tensor:
        """Logits ``(batch, classes)`` of rows as codes; a row without codes has the mean 0."""
        weight = passage_weights(codes)
        share = weight / weight.sum(-1, keepdim=True).clamp(min=1)
        return self.head((share[..., None].to(codes.values.dtype) * codes.values).sum(1))


def passage_weights(codes: Codes) -> Tensor:
    r"""How much of its row each code stands for, in tokens: that of all codes of a chunk is the length that they cover.

    .. math:: w_i = \frac{s_i}{\sum_{j \in C} s_j}
        \Big(\max_{j \in C} (p_j + s_j / 2) - \min_{j \in C} (p_j - s_j / 2)\Big)

    with the positions :math:`p` and supports :math:`s` of the codes of a chunk :math:`C`. Where no two of them cover
    the same token it is the support; a detail and the approximation above it share what both cover.

    Returns:
        ``(batch, slots)``, zero in empty slots.

    Example:
        >>> codes = wc.Codes.from_tokens(torch.randn(1, 16, 8)).cut(8)
        >>> passage_weights(wc.DCTCompressor(count=2)(codes))
        tensor([[4., 4., 4., 4.]], dtype=torch.float64)
    """
    # the codes of a chunk lie side by side, also among those of other stages
    chunk, end = (torch.diff(x, dim=1, prepend=x[:, :1]) for x in (codes.chunk, codes.end))
    passage = ((chunk != 0) | (end != 0)).cumsum(-1)
    support = torch.where(codes.mask, codes.support, 0).to(codes.position.dtype)
    least = torch.where(codes.mask, codes.position - support / 2, torch.inf)
    most = torch.where(codes.mask, codes.position + support / 2, -torch.inf)
    first = torch.full_like(least, torch.inf).scatter_reduce(1, passage, least, "amin").gather(1, passage)
    last = torch.full_like(most, -torch.inf).scatter_reduce(1, passage, most, "amax").gather(1, passage)
    total = torch.zeros_like(support).scatter_add(1, passage, support).gather(1, passage)
    return torch.where(codes.mask & (total > 0), support / total.clamp(min=1e-9) * (last - first), 0)
