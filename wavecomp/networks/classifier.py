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

    The head sees the mean of the codes, weighed by the tokens that each covers,

    .. math:: \sum_i s_i x_i \,\big/ \sum_i s_i

    so that a passage counts by its length, not by the number of codes that it was given, whatever the compressor; and
    it needs nothing learned. What a code has to know of the others it reads in the Reduce-Network, which may do so both
    ways, as the body may prune over the whole sequence: nothing here has to be causal.

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
        weight = torch.where(codes.mask, codes.support, 0)
        share = weight / weight.sum(-1, keepdim=True).clamp(min=1)
        return self.head((share[..., None].to(codes.values.dtype) * codes.values).sum(1))
