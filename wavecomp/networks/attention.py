"""Attention over a window of a sequence, and from a sequence to codes.

Notation used for tensor shapes: ``(batch, heads, length, head_dim)`` for queries, keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.networks.flex import blocked_attention
from wavecomp.networks.growing import Growing
from wavecomp.positions import Rotary, rotary_angles, rotate
from wavecomp.records import check_count

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Window(NamedTuple):
    """What each place of a sequence may attend to in the same sequence; made once, shared by all layers.

    Args:
        rotary: angles of the places.
        mask: ``(batch or 1, blocks, block, keys)``; keys are the places of a block and of the one before it, or all
            of them where there is one block. Or a block mask, for FlexAttention.
        log_support: ``(batch, length)``, of the tokens that each place stands for; ``None`` for one each.
    """

    rotary: Rotary
    mask: Tensor | BlockMask
    log_support: Tensor | None = None


class Reading(NamedTuple):
    """Which codes some places of a sequence may read.

    Args:
        mask: ``(batch or 1, places, slots)``, of the codes that are looked at.
        slots: which these are, ``(slots,)``; ``None`` for so many first ones.
    """

    mask: Tensor
    slots: Tensor | None = None


class Memory(NamedTuple):
    """Codes that a sequence may attend to; made once, shared by all layers.

    Args:
        values: ``(batch, slots, dim)``.
        rotary: angles of the codes.
        readings: one per block of places of the reading sequence, in order. Or a block mask of all places and codes,
            the sink before them.
        log_support: ``(batch, slots)``, of the tokens that each code stands for; ``None`` for one each.
        seen: ``(batch, length)``, how many codes each place of the reading sequence may read; ``None`` where no block
            asks for it.
    """

    values: Tensor
    rotary: Rotary
    readings: Sequence[Reading] | BlockMask
    log_support: Tensor | None = None
    seen: Tensor | None = None


KeysValues = tuple[Tensor, Tensor]
"""Keys, turned by their angles, and values: ``(batch, heads, length, head_dim)`` each."""

Past = tuple[Growing, Growing]
"""Keys and values of the places before, which grow along their length."""


def window_mask(
    length: int,
    *,
    window: int | None,
    end: Tensor | None = None,
    until: Tensor | None = None,
    mask: Tensor | None = None,
    device: torch.device,
) -> Tensor:
    """Which places attend to which, in blocks of ``window`` places, so that the cost is linear.

    Place i sees place j when ``i - window < j``, ``end[j] <= end[i] <= until[j]``, and j lies in the block of i or the
    one before it; every place sees itself. A later place of equal ``end`` is thus seen within the block only: a window
    that is a multiple of the codes per chunk keeps chunks whole.

    Args:
        length: places in the sequence.
        window: how far back, in places; ``None`` for the whole sequence.
        end: ``(batch, length)``, the order of existence; that of the places unless given.
        until: ``(batch, length)``, how long they exist; for ever unless given.
        mask: ``(batch, length)``, places that hold something; all unless given.

    Returns:
        ``(batch or 1, blocks, block, keys)``.
    """
    block = max(length, 1) if window is None else max(min(window, length), 1)
    blocks = max(-(-length // block), 1)
    query = torch.arange(blocks * block, device=device).view(blocks, block, 1)
    first = torch.arange(blocks, device=device).view(blocks, 1, 1) * block
    offset = torch.arange(-block if blocks > 1 else 0, block, device=device)
    key = first + offset
    inside = (key >= 0) & (key < length) & (query - key < (window or length))
    if end is None:
        return (inside & (key <= query) | (key == query))[None]
    at_query, at_key = query.clamp(max=length - 1), key.clamp(0, length - 1)
    allowed = inside & (end[:, at_key] <= end[:, at_query])
    if until is not None:
        allowed = allowed & (end[:, at_query] <= until[:, at_key])
    if mask is not None:
        allowed = allowed & mask[:, at_key]
    return allowed | (key == query)


def window_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float | None = None) -> Tensor:
    """Attention of every place to its block and the one before, under :func:`window_mask`.

    ``scale`` multiplies the scores, ``head_dim ** -0.5`` unless given.
    """
    _, blocks, block, _ = mask.shape
    if blocks == 1:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    batch, _, length, _ = q.shape
    missing = blocks * block - length

    def cut(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, missing)).unflatten(2, (blocks, block)).transpose(1, 2)

    def with_previous(x: Tensor) -> Tensor:
        x = cut(x)
        return torch.cat([F.pad(x[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0)), x], dim=-2).flatten(0, 1)

    mask = mask.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]
    out = F.scaled_dot_product_attention(
        cut(q).flatten(0, 1), with_previous(k), with_previous(v), attn_mask=mask, scale=scale
    )
    return out.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :length]


def log_of_support(support: Tensor) -> Tensor:
    """Logarithm of tokens covered, any shape; 0 where a slot is empty and covers none."""
    return support.clamp(min=1).log()


def support_attention(
    attention: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | BlockMask,
    *,
    log_support: Tensor | None,
    scale: Tensor | None,
) -> Tensor:
    r"""Attention in which a key of support s counts as ``s ** scale`` keys.

    .. math:: \mathrm{softmax}\big(q k^\top / \sqrt{d} + scale \cdot \log s\big)\, v

    The bias rides in a channel of queries and keys: no tensor of heads x length x keys is made, the mask stays boolean.

    Args:
        attention: :func:`window_attention`, :func:`~wavecomp.networks.flex.blocked_attention` or
            ``scaled_dot_product_attention``.
        mask: as that attention takes it.
        log_support: ``(batch, keys)``.
        scale: ``(heads,)``. Where this or ``log_support`` is ``None`` there is no bias.
    """
    if scale is None or log_support is None:
        return attention(q, k, v, mask)
    batch, heads, length, width = q.shape
    # kernels for half precision want widths in eights, and v as wide as q
    extra = 8 - width % 8
    of_query = (scale * width**0.5).to(q.dtype)[:, None, None].expand(batch, heads, length, 1)
    of_key = log_support.to(k.dtype)[:, None, :, None].expand(batch, heads, -1, 1)
    q, k = (F.pad(torch.cat(pair, dim=-1), (0, extra - 1)) for pair in ((q, of_query), (k, of_key)))
    return attention(q, k, F.pad(v, (0, extra)), mask, scale=width**-0.5)[..., :width]


class WindowAttention(nn.Module):
    """Multi-head self-attention within a window, with rotary positions.

    Args:
        dim: width of the sequence.
        heads: heads; dim is a multiple of four times as many.
        support_bias: whether each head learns how far a place counts as the tokens it stands for
            (:func:`support_attention`), from not at all on.

    Raises:
        ValueError: heads that do not go with dim.
    """

    def __init__(self, *, dim: int, heads: int, support_bias: bool = False) -> None:
        super().__init__()
        self.heads = check_heads(dim, heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.support_scale = nn.Parameter(torch.zeros(heads)) if support_bias else None

    def forward(self, x: Tensor, window: Window) -> Tensor:
        """``x (batch, length, dim)`` to the same shape."""
        q, keys_values = self._project(x, window.rotary)
        attention = window_attention if isinstance(window.mask, Tensor) else blocked_attention
        return self._read(attention, q, keys_values, window)

    def step(self, x: Tensor, window: Window, past: Past) -> tuple[Tensor, Past]:
        """Further places of a sequence.

        Args:
            x: ``(batch, length, dim)``, the further places.
            window: their angles; mask ``(batch or 1, 1, length, keys)`` and ``log_support (batch, keys)`` over past
                and further places.
            past: keys and values of the places before; they stay as they are.

        Returns:
            ``(batch, length, dim)``, and keys and values of past and further places.
        """
        q, further = self._project(x, window.rotary)
        keys, values = (known.copy() for known in past)
        keys.append(further[0])
        values.append(further[1])
        read = self._read(F.scaled_dot_product_attention, q, (keys.tensor, values.tensor), window)
        return read, (keys, values)

    def no_past(self, x: Tensor) -> Past:
        """What :meth:`step` takes before the first place."""
        empty = x.new_zeros(x.shape[0], self.heads, 0, x.shape[-1] // self.heads)
        return Growing(empty, 2), Growing(empty, 2)

    def _project(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, KeysValues]:
        q, k, v = split_heads(self.qkv(x), 3 * self.heads).chunk(3, dim=1)
        return rotate(q, rotary), (rotate(k, rotary), v)

    def _read(self, attention: Callable[..., Tensor], q: Tensor, keys_values: KeysValues, window: Window) -> Tensor:
        read = support_attention(
            attention, q, *keys_values, window.mask, log_support=window.log_support, scale=self.support_scale
        )
        return self.out(join_heads(read))


class MemoryAttention(nn.Module):
    """Multi-head attention from a sequence to codes and to a learned sink that is always there.

    Args:
        dim: width of the sequence and of the codes.
        heads: heads; dim is a multiple of four times as many.
        support_bias: whether each head learns how far a code counts as the tokens it stands for
            (:func:`support_attention`), from not at all on; the sink counts as one.
        count_scale: whether each head multiplies its scores by ``scale * log(1 + codes seen)``, with scales that start
            at 1/4. One key among n keeps its share of the softmax when its score grows as log n: what was learned over
            few codes is as sharp over many (Scalable-Softmax; Nakanishi, 2025).

    Raises:
        ValueError: heads that do not go with dim.
    """

    def __init__(self, *, dim: int, heads: int, support_bias: bool = False, count_scale: bool = False) -> None:
        super().__init__()
        self.heads = check_heads(dim, heads)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim, bias=False)
        self.sink = nn.Parameter(torch.zeros(2, heads, 1, dim // heads))
        self.turned = dim // heads // 2
        self.support_scale = nn.Parameter(torch.zeros(heads)) if support_bias else None
        self.count_scale = nn.Parameter(torch.full((heads,), 0.25)) if count_scale else None

    def forward(self, x: Tensor, memory: Memory, rotary: Rotary) -> Tensor:
        """``x (batch, length, dim)`` to the same shape; ``rotary`` are the angles of its places."""
        k, v = self._with_sink(self.keys_values(memory.values, memory.rotary))
        log_support = None if memory.log_support is None else F.pad(memory.log_support, (1, 0))
        bias = {"log_support": log_support, "scale": self.support_scale}
        q = self.queries(x, rotary, memory.seen)
        if isinstance(memory.readings, Sequence):
            return self.out(join_heads(_attention_in_blocks(q, k, v, memory.readings, **bias)))
        return self.out(join_heads(support_attention(blocked_attention, q, k, v, memory.readings, **bias)))

    def queries(self, x: Tensor, rotary: Rotary, seen: Tensor | None) -> Tensor:
        """Queries of places ``(batch, length, dim)`` that see so many codes each, ``(batch or 1, length)``."""
        q = rotate(split_heads(self.q(x), self.heads), rotary)
        if self.count_scale is None:
            return q
        assert seen is not None
        return q * (self.count_scale[:, None, None] * seen[:, None, :, None].float().log1p()).to(q.dtype)

    def keys_values(self, values: Tensor, rotary: Rotary) -> KeysValues:
        """Keys and values of codes ``(batch, slots, dim)``."""
        k, v = split_heads(self.kv(values), 2 * self.heads).chunk(2, dim=1)
        return rotate(k, rotary), v

    def sink_keys_values(self, batch: int) -> KeysValues:
        """Key and value of the sink, ``(batch, heads, 1, head_dim)``: it has no place, so content alone compares."""
        key, value = self.sink.unsqueeze(1).expand(-1, batch, -1, -1, -1)
        return F.pad(key[..., self.turned :], (self.turned, 0)), value

    def _with_sink(self, keys_values: KeysValues) -> KeysValues:
        sinks = self.sink_keys_values(len(keys_values[0]))
        k, v = (torch.cat([sink.to(codes.dtype), codes], dim=2) for sink, codes in zip(sinks, keys_values))
        return k, v


def _attention_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, readings: Sequence[Reading], *, log_support: Tensor | None, scale: Tensor | None
) -> Tensor:
    """Attention of each block of places to the sink, which is key 0, and to the codes that it looks at."""
    out = []
    for places, (mask, slots) in zip(q.split([reading.mask.shape[1] for reading in readings], dim=2), readings):
        keys = slice(mask.shape[2] + 1) if slots is None else F.pad(slots + 1, (1, 0))
        out.append(
            support_attention(
                F.scaled_dot_product_attention,
                places,
                k[:, :, keys],
                v[:, :, keys],
                F.pad(mask[:, None], (1, 0), value=True),
                log_support=None if log_support is None else log_support[:, keys],
                scale=scale,
            )
        )
    return torch.cat(out, dim=2)


def check_heads(dim: int, heads: int) -> int:
    """Raise ``ValueError`` unless half of each head can be turned in pairs."""
    check_count("heads", heads)
    if dim % (4 * heads):
        raise ValueError(f"heads={heads} does not go with dim={dim}; allowed: dim a multiple of 4 * heads")
    return heads


def check_base(base: float) -> float:
    """Raise ``ValueError`` unless the periods of angles grow with it."""
    if not 1 < base < math.inf:
        raise ValueError(f"base={base} is out of range; allowed: above 1, finite")
    return base


def head_angles(position: Tensor, dim: int, heads: int, *, base: float = 10000.0) -> Rotary:
    """Angles that turn half of each head: one half compares by place, the other by content."""
    return rotary_angles(position, dim // heads // 2, base=base)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(batch, length, heads * head_dim)`` to ``(batch, heads, length, head_dim)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """The inverse of :func:`split_heads`."""
    return x.transpose(1, 2).flatten(2)
