"""The Reduce-Network: each code reads the codes before it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.modules import Module
from wavecomp.networks.attention import Past, Window, check_base, head_angles, log_of_support, window_mask
from wavecomp.networks.flex import Backend, check_backend, window_blocks
from wavecomp.networks.growing import Growing
from wavecomp.networks.transformer import TransformerBlock, run_blocks
from wavecomp.records import check_count, check_width

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class ReduceState(NamedTuple):
    """What a Reduce-Network remembers of the codes that it has read, in buffers that grow.

    Args:
        first: the slot, counted from the beginning, of the first code that is remembered.
        codes: ``end``, ``until``, mask and logarithm of support of the codes that are: ``(batch, slots)`` each.
        layers: keys and values of each block.
    """

    first: int
    codes: tuple[Growing, ...]
    layers: tuple[Past, ...]


class ReduceNetwork(Module):
    """Transformer over codes, causal by ``end``: a code reads those that existed when it did, its own chunk's included.

    Args:
        dim: width of the codes.
        heads: attention heads; dim is a multiple of four times as many.
        layers: Transformer blocks.
        window: how far back a code reads, in slots, so that the cost is linear; ``None`` for all.
        causal: whether ``end`` orders the codes; without, every code reads every other, and ``window`` is ``None``.
        input_pooling: a module from Codes to fewer Codes that comes first, or ``None``. What it makes of codes of
            several stages stays: no coarser code stands in for it.
        support_bias: whether each head learns how far a code counts as the tokens it stands for: ``scale *
            log(support)`` is added to its scores, with scales that start at 0.
        base: of the rotary angles, whose periods are up to about 6 times as many tokens. One that is small enough for
            all of them to be seen in training lets a model read texts that are much longer.
        backend: ``"sdpa"``, or ``"flex"`` for FlexAttention, which skips what no code reads: for long sequences of
            codes on a GPU. Steps use the first.
        activation_checkpointing: compute each block again for its gradients rather than remember what it computed.

    Raises:
        ValueError: heads that do not go with dim; negative layers; a window below 1, or one that goes with codes that
            are not causal; a base of 1 or less; an unknown backend.

    Example:
        >>> codes = wc.Codes.from_tokens(torch.randn(2, 10, 8))
        >>> ReduceNetwork(dim=8, heads=2, layers=1, window=4)(codes).values.shape
        torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        layers: int,
        window: int | None = 512,
        causal: bool = True,
        input_pooling: nn.Module | None = None,
        support_bias: bool = False,
        base: float = 10000.0,
        backend: Backend = "sdpa",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if window is not None:
            check_count("window", window)
        check_count("layers", layers, least=0)
        if not causal and window is not None:
            raise ValueError(f"window={window} looks back only; with causal=False give window=None")
        self.input_pooling = input_pooling
        self.blocks = nn.ModuleList(
            TransformerBlock(dim=dim, heads=heads, support_bias=support_bias) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim)
        self.window = window
        self.ordered = causal
        self.dim, self.heads = dim, heads
        self.support_bias = support_bias
        self.base = check_base(base)
        self.backend = check_backend(backend)
        self.activation_checkpointing = activation_checkpointing

    @property
    def causal(self) -> bool:
        """Whether every code depends on what was read before its ``end`` alone."""
        return self.ordered and (self.input_pooling is None or getattr(self.input_pooling, "causal", False))

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to as many ``Codes``; empty slots stay zero."""
        if self.input_pooling is not None:
            codes = self.input_pooling(codes)
        check_width(self, self.dim, codes.values)
        if codes.values.shape[1]:
            return codes.replace(values=self._read(codes, self._mask(codes)))
        # distributed training waits for a gradient of every parameter: an empty slot gives zeros
        empty = Codes.from_tokens(codes.values.new_zeros(len(codes.values), 1, self.dim), codes.tokens * 0)
        mask = torch.ones(len(empty.mask), 1, 1, 1, dtype=torch.bool, device=empty.mask.device)
        return codes.replace(values=codes.values + self._read(empty, mask)[:, :0])

    if TYPE_CHECKING:
        __call__ = forward

    def _read(self, codes: Codes, mask: Tensor | BlockMask) -> Tensor:
        window = Window(
            rotary=head_angles(codes.position, self.dim, self.heads, base=self.base),
            mask=mask,
            log_support=log_of_support(codes.support) if self.support_bias else None,
        )
        x = run_blocks(self.blocks, codes.values, window, checkpoint=self.activation_checkpointing)
        return self.norm(x) * codes.mask[..., None]

    def step(self, codes: Codes, state: ReduceState | None = None) -> tuple[Codes, ReduceState]:
        """Further codes of a sequence: the same as ``forward`` on the whole, cut where ``end`` grows.

        Args:
            codes: all codes of one or several ``end``, in the slots and order that they have in the whole.
            state: as returned by the step before; ``None`` at the beginning.

        Raises:
            ValueError: a network that is not causal, or slots that do not fill the chunks of ``input_pooling``.
        """
        if not self.causal:
            raise ValueError("causal=False reads the whole sequence; step is for causal networks")
        codes = self._pooled_whole(codes)
        further = (codes.end, codes.until, codes.mask, log_of_support(codes.support))
        blocks: list[Any] = list(self.blocks)
        if state is None:
            nothing = tuple(block.attention.no_past(codes.values) for block in blocks)
            state = ReduceState(0, tuple(Growing(x[:, :0]) for x in further), nothing)
        known = tuple(grown.copy() for grown in state.codes)
        for grown, new in zip(known, further):
            grown.append(new)
        *rule, log_support = (grown.tensor for grown in known)
        window = Window(
            rotary=head_angles(codes.position, self.dim, self.heads, base=self.base),
            mask=self._step_mask(codes, state.first, *rule),
            log_support=log_support if self.support_bias else None,
        )
        x, layers = codes.values, []
        for block, past in zip(blocks, state.layers):
            x, past = block.step(x, window, past)
            layers.append(past)
        codes = codes.replace(values=self.norm(x) * codes.mask[..., None])
        # what no further code can read is forgotten
        drop = 0 if self.window is None else max(0, known[0].length - self.window + 1)
        for grown in itertools.chain(known, *layers):
            grown.drop(drop)
        return codes, ReduceState(state.first + drop, known, tuple(layers))

    def _pooled_whole(self, codes: Codes) -> Codes:
        if self.input_pooling is None:
            return codes
        length: Any = self.input_pooling.chunk_length
        if codes.values.shape[1] % length:
            raise ValueError(
                f"a step brings {codes.values.shape[1]} slots, input_pooling has chunk_length={length}; "
                "allowed: whole multiples"
            )
        return self.input_pooling(codes)

    def _step_mask(self, codes: Codes, first: int, end: Tensor, until: Tensor, mask: Tensor) -> Tensor:
        """``(batch, 1, slots, known slots)``: the rule of :func:`window_mask` for the last slots."""
        count = end.shape[1]
        key = first + torch.arange(count, device=end.device)
        query = key[count - codes.end.shape[1] :, None]
        own = codes.end[..., None]
        allowed = mask[:, None] & (end[:, None] <= own) & (own <= until[:, None])
        if self.window is not None:
            allowed = allowed & (query - key < self.window) & (key // self.window <= query // self.window)
        return (allowed | (key == query))[:, None]

    def _mask(self, codes: Codes) -> Tensor | BlockMask:
        make = window_blocks if self.backend == "flex" else window_mask
        slots, device = codes.values.shape[1], codes.values.device
        end = codes.end if self.ordered else codes.end * 0
        return make(slots, window=self.window, end=end, until=codes.until, mask=codes.mask, device=device)
