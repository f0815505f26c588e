"""The Transformer block, and an encoder of chunks made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as forget_and_repeat

from wavecomp.modules import Module
from wavecomp.networks.attention import Memory, MemoryAttention, Past, Window, WindowAttention, head_angles
from wavecomp.records import check_count


class FeedForward(nn.Module):
    """Gated feed-forward network (SwiGLU; Shazeer, 2020)."""

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class ShortConvolution(nn.Module):
    """Adds to each place a learned mix, channel by channel, of its near neighbours.

    Starts as the identity, so that a model sees neighbours only as far as that helps.

    Args:
        dim: channels.
        width: places that are mixed.
        causal: mix the last ``width`` places, or those around each.
    """

    def __init__(self, *, dim: int, width: int = 4, causal: bool) -> None:
        super().__init__()
        self.before = width - 1 if causal else width // 2
        self.after = width - 1 - self.before
        self.weight = nn.Parameter(torch.zeros(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``x (batch, length, dim)`` to the same shape."""
        length = x.shape[-2]
        padded = F.pad(x, (0, 0, self.before, self.after))
        for step, weight in enumerate(self.weight):
            x = x + weight * padded[..., step : step + length, :]
        return x


class TransformerBlock(Module):
    """RMSNorm, windowed self-attention with rotary positions, optional attention to codes, feed-forward.

    Args:
        dim: width.
        heads: attention heads; dim is a multiple of four times as many.
        hidden: width of the feed-forward network, about ``8 / 3 * dim`` unless given.
        memory: whether the block also attends to codes.
        support_bias: whether each head learns how far a code counts as the tokens it stands for: codes of the memory
            where there is one, the places of the sequence itself otherwise.
        count_scale: whether attention to codes is as sharp over many as over few; see :class:`MemoryAttention`.

    Raises:
        ValueError: heads that do not go with dim.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        hidden: int | None = None,
        memory: bool = False,
        support_bias: bool = False,
        count_scale: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim)
        self.attention = WindowAttention(dim=dim, heads=heads, support_bias=support_bias and not memory)
        self.memory_norm = nn.RMSNorm(dim) if memory else None
        self.memory_attention = (
            MemoryAttention(dim=dim, heads=heads, support_bias=support_bias, count_scale=count_scale)
            if memory
            else None
        )
        self.feed_forward_norm = nn.RMSNorm(dim)
        self.feed_forward = FeedForward(dim=dim, hidden=hidden or -(-8 * dim // 3 // 32) * 32)

    def forward(self, x: Tensor, window: Window, memory: Memory | None = None) -> Tensor:
        """``x (batch, length, dim)`` to the same shape."""
        x = x + self.attention(self.attention_norm(x), window)
        if self.memory_norm is not None and self.memory_attention is not None and memory is not None:
            x = x + self.memory_attention(self.memory_norm(x), memory, window.rotary)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def step(
        self, x: Tensor, window: Window, past: Past, read: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Past]:
        """Further places of a sequence; see :meth:`WindowAttention.step`.

        Args:
            read: attends to codes, from the normalised sequence to what is added to it.
        """
        out, past = self.attention.step(self.attention_norm(x), window, past)
        x = x + out
        if self.memory_norm is not None and read is not None:
            x = x + read(self.memory_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x)), past


def run_blocks(
    blocks: Iterable[nn.Module], x: Tensor, window: Window, memory: Memory | None = None, *, checkpoint: bool
) -> Tensor:
    """One block after another.

    Args:
        x: ``(batch, length, dim)``.
        checkpoint: remember only what goes into each block while gradients are needed, and compute it again for them.
    """
    for block in blocks:
        if checkpoint:
            x = forget_and_repeat(block, x, window, memory, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x, window, memory)
    return x


class TransformerEncoder(Module):
    """Bidirectional encoder of chunks: every token reads its whole chunk.

    Args:
        dim: width.
        heads: attention heads; dim is a multiple of four times as many.
        layers: blocks.
        convolution: width of the short convolution before them, 0 for none.
        activation_checkpointing: compute each block again for its gradients rather than remember what it computed.

    Raises:
        ValueError: heads that do not go with dim, negative layers, or a negative convolution.

    Example:
        >>> TransformerEncoder(dim=8, heads=2, layers=1)(torch.randn(3, 16, 8)).shape
        torch.Size([3, 16, 8])
    """

    def __init__(
        self, *, dim: int, heads: int, layers: int, convolution: int = 5, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        for name, value in (("layers", layers), ("convolution", convolution)):
            check_count(name, value, least=0)
        self.convolution = ShortConvolution(dim=dim, width=convolution, causal=False) if convolution else nn.Identity()
        self.blocks = nn.ModuleList(TransformerBlock(dim=dim, heads=heads) for _ in range(layers))
        self.dim, self.heads = dim, heads
        self.activation_checkpointing = activation_checkpointing

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Read chunks.

        Args:
            x: ``(rows, chunk_length, dim)``, zero behind each row's length.
            lengths: ``(rows,)``, tokens in each chunk; all unless given.

        Returns:
            ``(rows, chunk_length, dim)``; what lies behind a row's length has no meaning.
        """
        place = torch.arange(x.shape[-2], device=x.device)
        mask = torch.ones(1, 1, len(place), len(place), dtype=torch.bool, device=x.device)
        if lengths is not None:
            # an empty row attends to itself: a softmax over nothing is NaN
            mask = (place < lengths[:, None])[:, None, None] | torch.eye(len(place), dtype=torch.bool, device=x.device)
        window = Window(rotary=head_angles(place, self.dim, self.heads), mask=mask)
        return run_blocks(self.blocks, self.convolution(x), window, checkpoint=self.activation_checkpointing)

    if TYPE_CHECKING:
        __call__ = forward
