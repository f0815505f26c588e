"""The local decoder: tokens with a raw window, and the codes of what lies before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.modules import Module
from wavecomp.networks.attention import (
    Memory,
    Past,
    Reading,
    Window,
    check_base,
    head_angles,
    log_of_support,
    window_mask,
)
from wavecomp.networks.flex import Backend, check_backend, memory_blocks, window_blocks
from wavecomp.networks.transformer import ShortConvolution, TransformerBlock, run_blocks
from wavecomp.positions import Rotary
from wavecomp.records import check_count, check_width

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class DecoderState(NamedTuple):
    """What a decoder that reads step by step remembers.

    Args:
        place: the next place to be read.
        recent: ``(batch, places, dim)``, the last places as the convolution sees them.
        layers: keys and values of the last places in each block.
    """

    place: int
    recent: Tensor
    layers: tuple[Past, ...]


class ReadCodes(Protocol):
    """Attends to codes, whoever keeps them."""

    def __call__(self, layer: int, x: Tensor, place: Tensor, rotary: Rotary) -> Tensor:
        """What the codes add in block ``layer`` to ``x (batch, length, dim)`` at the places ``(length,)``."""


class LocalDecoder(Module):
    """Predicts each token from the raw window before it and from the codes that existed by then.

    The state at place t has read the tokens before t: the shift by one is in here. Attention to codes keeps token
    resolution in its positions.

    Args:
        dim: width of tokens and codes.
        heads: attention heads; dim is a multiple of four times as many.
        layers: Transformer blocks.
        window: tokens that each block looks back, its own place included, across chunk edges.
        memory_layers: which blocks attend to codes, counted from 0; all unless given.
        convolution: width of the short causal convolution before the blocks, 0 for none.
        period: the chunk length of the first stage, for the decoder to be told each token's place within its chunk, and
            so which part of a code to read; ``None`` to leave it out.
        support_bias: whether each head learns how far a code counts as the tokens it stands for: ``scale *
            log(support)`` is added to its scores, with scales that start at 0.
        count_scale: whether each head multiplies its scores of codes by ``scale * log(1 + codes seen)``, with scales
            that start at 1/4: what it learned to find among few codes it finds among many
            (:class:`~wavecomp.networks.attention.MemoryAttention`).
        base: of the rotary angles, whose periods are up to about 6 times as many tokens. One that is small enough for
            all of them to be seen in training lets a model read texts that are much longer.
        backend: ``"sdpa"``, or ``"flex"`` for FlexAttention, which skips what no token reads: for long sequences on a
            GPU. Steps use the first.
        activation_checkpointing: compute each block again for its gradients rather than remember what it computed.

    Raises:
        ValueError: heads that do not go with dim, a window below 1, negative layers, convolution or period, memory
            layers that do not exist, a base of 1 or less, or an unknown backend.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        layers: int,
        window: int,
        memory_layers: Sequence[int] | None = None,
        convolution: int = 4,
        period: int | None = None,
        support_bias: bool = False,
        count_scale: bool = False,
        base: float = 10000.0,
        backend: Backend = "sdpa",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_count("window", window)
        for name, value in (("layers", layers), ("convolution", convolution), ("period", period or 0)):
            check_count(name, value, least=0)
        attending = set(range(layers) if memory_layers is None else memory_layers)
        if not attending <= set(range(layers)):
            raise ValueError(f"memory_layers={sorted(attending)} names layers that are not among 0 to {layers - 1}")
        self.start = nn.Parameter(torch.randn(dim) * 0.02)
        self.place = nn.Embedding(period, dim) if period else None
        if self.place is not None:
            # as loud as the tokens it costs a quarter of a bit per byte in short training
            nn.init.normal_(self.place.weight, std=0.1)
        self.convolution = ShortConvolution(dim=dim, width=convolution, causal=True) if convolution else nn.Identity()
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim=dim,
                heads=heads,
                memory=layer in attending,
                support_bias=support_bias and layer in attending,
                count_scale=count_scale,
            )
            for layer in range(layers)
        )
        self.norm = nn.RMSNorm(dim)
        self.window = window
        self.dim, self.heads = dim, heads
        self.support_bias, self.count_scale = support_bias, count_scale
        self.base = check_base(base)
        self.backend = check_backend(backend)
        self.activation_checkpointing = activation_checkpointing

    @property
    def reach(self) -> int:
        """How many tokens before a place its state may have read without codes."""
        return 1 + self.before + len(self.blocks) * (self.window - 1)

    @property
    def period(self) -> int | None:
        """The chunk length that it goes by, or ``None``."""
        return None if self.place is None else self.place.num_embeddings

    @property
    def before(self) -> int:
        """How many places before its own the convolution mixes in."""
        return self.convolution.before if isinstance(self.convolution, ShortConvolution) else 0

    def angles(self, position: Tensor) -> Rotary:
        """Of positions in tokens, as :func:`wavecomp.networks.attention.head_angles`."""
        return head_angles(position, self.dim, self.heads, base=self.base)

    def forward(self, embeddings: Tensor, codes: Codes, *, start: int = 0) -> Tensor:
        """Read the tokens and what is visible of the codes.

        Args:
            embeddings: ``(batch, length, dim)`` of the tokens themselves.
            codes: visible by the rule of ``end``.
            start: the place of the first token given. Where it is not 0, states are those of the whole sequence from
                ``reach`` places behind it on.

        Returns:
            ``(batch, length, dim)``; place t has read the tokens before t.
        """
        check_width(self, self.dim, embeddings)
        check_width(self, self.dim, codes.values)
        batch, length, _ = embeddings.shape
        place = start + torch.arange(length, device=embeddings.device)
        first = self.start.to(embeddings.dtype).expand(batch, 1, -1)
        x = torch.cat([first, embeddings[:, :-1]], dim=1)[:, :length]
        if self.place is not None:
            x = x + self.place(place % self.place.num_embeddings)
        x = self.convolution(x)
        make = window_blocks if self.backend == "flex" else window_mask
        window = Window(
            rotary=self.angles(place),
            mask=make(length, window=self.window, device=embeddings.device),
        )
        memory = Memory(
            values=codes.values,
            rotary=self.angles(codes.position),
            readings=self._readings(codes, start, length),
            log_support=log_of_support(codes.support) if self.support_bias else None,
            seen=codes.seen(place) if self.count_scale else None,
        )
        return self.norm(run_blocks(self.blocks, x, window, memory, checkpoint=self.activation_checkpointing))

    if TYPE_CHECKING:
        __call__ = forward

    def step(
        self, embeddings: Tensor, read: ReadCodes, state: DecoderState | None = None, *, start: int = 0
    ) -> tuple[Tensor, DecoderState]:
        """Read on: the states of the places behind some further tokens, the same as ``forward`` on the whole gives.

        Args:
            embeddings: ``(batch, length, dim)`` of the further tokens.
            read: attends to the codes that all these places see.
            state: as returned by the step before; ``None`` at the beginning, where place ``start`` is read as well.
            start: the place of the first token at the beginning; as in ``forward``.

        Returns:
            ``(batch, length, dim)``, at the beginning ``length + 1``; and the state.
        """
        if state is None:
            first = self.start.to(embeddings.dtype).expand(len(embeddings), 1, -1)
            state = self._no_past(embeddings, start)
            embeddings = torch.cat([first, embeddings], dim=1)
        place = state.place + torch.arange(embeddings.shape[1], device=embeddings.device)
        x = embeddings if self.place is None else embeddings + self.place(place % self.place.num_embeddings)
        recent = torch.cat([state.recent, x], dim=1)
        x = self.convolution(recent)[:, self.before :]
        known = state.layers[0][0].length if state.layers else 0
        rotary = self.angles(place)
        window = Window(rotary=rotary, mask=self._step_mask(place, known))
        layers = []
        blocks: list[Any] = list(self.blocks)
        for layer, (block, past) in enumerate(zip(blocks, state.layers)):
            x, past = block.step(x, window, past, lambda x, layer=layer: read(layer, x, place, rotary))
            for grown in past:
                grown.drop(max(0, grown.length - self.window + 1))
            layers.append(past)
        recent = recent[:, recent.shape[1] - self.before :]
        return self.norm(x), DecoderState(state.place + len(place), recent, tuple(layers))

    def _readings(self, codes: Codes, start: int, length: int) -> list[Reading] | BlockMask:
        if self.backend == "sdpa":
            return readings(codes, start, length)
        place = start + torch.arange(length, device=codes.values.device)
        return memory_blocks(place, end=codes.end, until=codes.until, mask=codes.mask)

    def _no_past(self, embeddings: Tensor, start: int) -> DecoderState:
        blocks: list[Any] = list(self.blocks)
        nothing = tuple(block.attention.no_past(embeddings) for block in blocks)
        return DecoderState(start, embeddings.new_zeros(len(embeddings), self.before, self.dim), nothing)

    def _step_mask(self, place: Tensor, known: int) -> Tensor:
        """``(1, 1, length, known + length)``: the raw window of some places, with ``known`` ones before them."""
        key = torch.arange(known + len(place), device=place.device)
        query = key[known:, None]
        return ((key <= query) & (query - key < self.window))[None, None]


def readings(codes: Codes, start: int, length: int, *, block: int = 1024) -> list[Reading]:
    """Which codes the places from ``start`` on may read, a block of them after another.

    Where the pace of the codes is known no block looks at codes that come after it, nor, from the beginning of a text
    on, at finer ones that coarser ones stood in for before it.
    """
    found = []
    for first in range(start, start + length, block):
        last = min(first + block, start + length) - 1
        place = torch.arange(first, last + 1, device=codes.values.device)
        slots = codes.slots_for(first, last)
        found.append(Reading(codes.visible(place, slots), slots if isinstance(slots, Tensor) else None))
    return found or [Reading(codes.visible(torch.arange(0, device=codes.values.device)))]
