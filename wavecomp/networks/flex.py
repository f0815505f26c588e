"""FlexAttention as a backend: whole blocks of keys that a block of queries may not read are never looked at.

Who may read what is said by conditions ``keys[c, j] <= queries[c, i]``, so that the least and the greatest of a block
tell whether all of it, some of it or nothing is allowed: no mask of queries x keys is ever made.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Backend = Literal["sdpa", "flex"]
BLOCK = 128
FAR = torch.iinfo(torch.int32).max
"""A bound that no other exceeds; ``NEVER`` becomes it."""


def check_backend(backend: Backend) -> Backend:
    """Raise ``ValueError`` for a backend that is unknown."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r} is unknown; allowed: 'sdpa' or 'flex'")
    return backend


def window_blocks(
    length: int,
    *,
    window: int | None,
    end: Tensor | None = None,
    until: Tensor | None = None,
    mask: Tensor | None = None,
    device: torch.device,
) -> BlockMask:
    """What :func:`~wavecomp.networks.attention.window_mask` allows, for the same arguments."""
    window = max(length if window is None else min(window, length), 1)
    place = torch.arange(length, device=device)
    keys, queries = [-place], [window - 1 - place]
    if end is None:
        keys, queries = [*keys, place], [*queries, place]
    else:
        until = torch.full_like(end, FAR) if until is None else until
        until = until if mask is None else torch.where(mask, until, -1)
        keys, queries = [*keys, place // window, end, -until], [*queries, place // window, end, -end]
    return block_mask(keys, queries, own=True)


def memory_blocks(place: Tensor, *, end: Tensor, until: Tensor, mask: Tensor) -> BlockMask:
    """Which codes the predictions of some tokens may use, behind a sink that all of them see.

    Args:
        place: ``(length,)``, of the predicted tokens.
        end, until, mask: ``(batch, slots)``, those of the codes.
    """
    end, last = F.pad(end, (1, 0)), F.pad(torch.where(mask, until - 1, -1), (1, 0), value=FAR)
    return block_mask([end, -last], [place, -place], own=False)


def block_mask(keys: list[Tensor], queries: list[Tensor], *, own: bool) -> BlockMask:
    """Query i sees key j where ``keys[c][..., j] <= queries[c][..., i]`` for every condition c.

    Args:
        keys: bounds by condition, ``(keys,)`` or ``(batch, keys)``, integers.
        queries: likewise, ``(queries,)`` or ``(batch, queries)``.
        own: whether every query sees the key of its own place besides.
    """
    from torch.nn.attention.flex_attention import BlockMask  # a second to import: only who asks for it waits

    at_key, at_query = _stacked(keys), _stacked(queries)
    (least_key, most_key), (least_query, most_query) = _extremes(at_key, FAR), _extremes(at_query, -FAR)
    some, full = _pairs(least_key, most_query), _pairs(most_key, least_query)
    if own:
        some = some | torch.eye(some.shape[-1], dtype=torch.bool, device=some.device)
    lengths = at_query.shape[-1], at_key.shape[-1]
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full),
        *_listed(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=_rule(at_key, at_query, own),
        seq_lengths=lengths,
    )


def blocked_attention(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None) -> Tensor:
    """Attention under a block mask; ``scale`` as in :func:`~wavecomp.networks.attention.window_attention`.

    Raises:
        ValueError: where FlexAttention does not run: of CPUs it supports the forward pass alone.
    """
    from torch.nn.attention.flex_attention import flex_attention

    if not q.numel():
        return q  # FlexAttention takes no empty tensors
    try:
        if q.is_cuda and not torch.compiler.is_compiling():
            return _compiled()(q, k, v, mask, scale)
        return flex_attention(q, k, v, block_mask=mask, scale=scale)
    except NotImplementedError as error:
        raise ValueError(f"backend='flex' does not run here: {error} Allowed: backend='sdpa'") from error


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    def fused(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float | None) -> Tensor:
        return flex_attention(q, k, v, block_mask=mask, scale=scale)

    compiled = torch.compile(fused)

    def call(*args: Any) -> Tensor:
        # window, codes and memory, with gradients and without, at fixed and at varying lengths: more than 8 forms,
        # and beyond the limit every score would be held in memory
        with torch._dynamo.config.patch(recompile_limit=64):
            return compiled(*args)

    return call


def _stacked(bounds: list[Tensor]) -> Tensor:
    """``(batch or 1, conditions, places)`` of int32."""
    rows = torch.broadcast_tensors(*(torch.atleast_2d(bound.clamp(-FAR, FAR).int()) for bound in bounds))
    return torch.stack(rows, dim=1)


def _extremes(bounds: Tensor, beyond: int) -> tuple[Tensor, Tensor]:
    """Least and greatest bound of each block, ``(batch or 1, conditions, blocks)``; what lies beyond allows nothing."""
    blocks = F.pad(bounds, (0, -bounds.shape[-1] % BLOCK), value=beyond).unflatten(-1, (-1, BLOCK))
    return blocks.amin(-1), blocks.amax(-1)


def _pairs(key: Tensor, query: Tensor) -> Tensor:
    """``(batch or 1, query blocks, key blocks)``: where every condition holds."""
    return functools.reduce(operator.and_, (k[:, None] <= q[..., None] for k, q in zip(key.unbind(1), query.unbind(1))))


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries looks at, and which: those that come first."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None]


def _rule(keys: Tensor, queries: Tensor, own: bool) -> Callable[..., Tensor]:
    conditions = keys.shape[1]
    shared_keys, shared_queries = keys.shape[0] == 1, queries.shape[0] == 1

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        at_key, at_query = (0 if shared_keys else batch), (0 if shared_queries else batch)
        seen = keys[at_key, 0, key] <= queries[at_query, 0, query]
        for condition in range(1, conditions):
            seen = seen & (keys[at_key, condition, key] <= queries[at_query, condition, query])
        return seen | (query == key) if own else seen

    return allowed
