"""Generation, token by token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def generate(
    model: Callable[[Tensor], Tensor],
    prompt: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Tensor:
    """Continue a prompt by sampling.

    Args:
        model: tokens ``(batch, length)`` to logits whose place t predicts token t from the tokens before it.
        prompt: ``(batch, length)`` int64; may be empty.
        max_new_tokens: how many tokens to add.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample among this many likeliest tokens; all unless given.

    Returns:
        ``(batch, length + max_new_tokens)``, prompt included.

    Raises:
        ValueError: a negative count or temperature, a top_k below 1.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is negative; allowed: 0 and above")
    if temperature < 0:
        raise ValueError(f"temperature={temperature} is negative; allowed: 0 (the likeliest token) and above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} is too small; allowed: 1 and above, or None")
    tokens = prompt
    for _ in range(max_new_tokens):
        # the token to be predicted has a place of its own, whatever stands there
        logits = model(torch.nn.functional.pad(tokens, (0, 1)))[:, -1]
        tokens = torch.cat([tokens, _sample(logits, temperature, top_k)], dim=1)
    return tokens


def _sample(logits: Tensor, temperature: float, top_k: int | None) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return torch.multinomial((logits / temperature).softmax(-1), 1)
