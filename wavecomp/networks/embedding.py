"""Tokens at the door of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.records import check_lengths, check_type


def embed_tokens(embedding: nn.Module, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
    """One code per token, its embedding.

    Args:
        embedding: a module from tokens ``(batch, length)`` to ``(batch, length, dim)``, one token at a time.
        tokens: ``(batch, length)`` int64.
        lengths: ``(batch,)``, tokens in each row; all unless given. What lies behind them is not read.

    Raises:
        ValueError: shapes that do not fit, those of the embedding included, or lengths beyond the tensor (values are
            checked on the CPU only).

    Example:
        >>> embed_tokens(torch.nn.Embedding(256, 8), torch.randint(256, (2, 10))).values.shape
        torch.Size([2, 10, 8])
    """
    check_tokens(tokens, lengths)
    if lengths is not None:
        tokens = torch.where(torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None], tokens, 0)
    return Codes.from_tokens(check_places("embedding", embedding, embedding(tokens), tokens), lengths)


def check_places(name: str, module: nn.Module, out: Any, tokens: Tensor) -> Tensor:
    """What a module returned, or a ``ValueError`` unless it is a tensor of one vector per token.

    Args:
        name: of the argument that the module came as.
        tokens: ``(batch, length)``.
    """
    shape = tuple(out.shape) if isinstance(out, Tensor) else None
    if shape is None or shape[:-1] != tokens.shape:
        told = f"a {type(out).__name__}" if shape is None else f"shape {shape}"
        batch, length = tokens.shape
        raise ValueError(f"{name} {type(module).__name__} returned {told}, expected ({batch}, {length}, dim)")
    return out


def check_tokens(tokens: Tensor, lengths: Tensor | None) -> None:
    """Raise ``ValueError`` for tokens and lengths that are no rows."""
    check_type("tokens", tokens, Tensor, hint=" (batch, length) of int64")
    if tokens.ndim != 2:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}, expected (batch, length)")
    if lengths is not None:
        check_lengths("tokens", lengths, tuple(tokens.shape[:1]), tokens.shape[1])
