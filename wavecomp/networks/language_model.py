"""The language model: codes of the past, a local decoder, next-token logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.networks.chunk_reduce import ChunkReduce
from wavecomp.networks.generation import generate
from wavecomp.records import check_lengths


class ChunkReduceLM(nn.Module):
    """Causal language model whose distant past is codes: ``logits[:, t]`` predicts token t from tokens before t.

    Args:
        embedding: a module from tokens ``(batch, length)`` to ``(batch, length, dim)``, one token at a time.
        body: Codes to Codes, with attributes ``causal`` and ``chunk_length``.
        decoder: a module that is called with embeddings and codes and whose state at t has read tokens before t.
        head: a module from ``(batch, length, dim)`` to ``(batch, length, vocabulary)``.

    Raises:
        ValueError: a body that is not causal.
    """

    def __init__(self, *, embedding: nn.Module, body: ChunkReduce, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name in ("causal", "chunk_length"):
            if not hasattr(body, name):
                raise TypeError(f"body {type(body).__name__} has no {name}; allowed: ChunkReduce, or what has both")
        if not body.causal:
            raise ValueError(
                "body holds a compressor or network that is not causal, or does not say; "
                "allowed: modules whose attribute causal is True"
            )
        self.embedding = embedding
        self.body = body
        self.decoder = decoder
        self.head = head

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, *, codes: Codes | Literal["hidden"] | None = None
    ) -> Tensor:
        """Next-token logits.

        Args:
            tokens: ``(batch, length)`` int64.
            lengths: ``(batch,)``, tokens in each row; all unless given. What lies behind them is not read.
            codes: the past as codes, if :meth:`context` or :meth:`encode` made them already; ``"hidden"`` to
                predict without.

        Returns:
            ``(batch, length, vocabulary)``; behind a row's length they have no meaning.

        Raises:
            ValueError: shapes that do not fit, or lengths beyond the tensor (values are checked on the CPU only).
        """
        if isinstance(codes, str) and codes != "hidden":
            raise ValueError(f"codes={codes!r} is unknown; allowed: Codes, 'hidden' or None")
        if codes is None or isinstance(codes, str):
            past = self.context(tokens, lengths)
            codes = past if codes is None else past.hidden()
        return self.head(self.decoder(self._embed(tokens, lengths), codes))

    def encode(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes of all tokens, those of a short last chunk included (which no prediction sees)."""
        return self.body(Codes.from_tokens(self._embed(tokens, lengths), lengths))

    def context(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes that a prediction within these rows can see: those of chunks that end before the last token."""
        self._check_shapes(tokens, lengths)
        length = max(tokens.shape[1] - 1, 0) // self.body.chunk_length * self.body.chunk_length
        if lengths is not None:
            lengths = lengths.clamp(max=length)
        return self.encode(tokens[:, :length], lengths)

    @torch.no_grad()
    def generate(
        self, prompt: Tensor, *, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None
    ) -> Tensor:
        """Continue a prompt; see :func:`wavecomp.networks.generation.generate`."""
        return generate(self, prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k)

    def _embed(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        self._check_shapes(tokens, lengths)
        if lengths is not None:
            tokens = torch.where(torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None], tokens, 0)
        return self.embedding(tokens)

    @staticmethod
    def _check_shapes(tokens: Tensor, lengths: Tensor | None) -> None:
        if tokens.ndim != 2:
            raise ValueError(f"tokens has shape {tuple(tokens.shape)}, expected (batch, length)")
        if lengths is not None:
            check_lengths("ChunkReduceLM", lengths, tuple(tokens.shape[:1]), tokens.shape[1])
