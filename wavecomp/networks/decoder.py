"""The local decoder: tokens with a raw window, and the codes of what lies before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.networks.attention import Memory, Window, head_angles, log_of_support, window_mask
from wavecomp.networks.transformer import ShortConvolution, TransformerBlock


class LocalDecoder(nn.Module):
    """Predicts each token from the raw window before it and from the codes that existed by then.

    The state at place t has read the tokens before t: the shift by one is in here. Attention to codes keeps token
    resolution in its positions.

    Args:
        dim: width of tokens and codes.
        heads: attention heads.
        layers: Transformer blocks.
        window: tokens that each block looks back, its own place included, across chunk edges.
        memory_layers: which blocks attend to codes, counted from 0; all unless given.
        convolution: width of the short causal convolution before the blocks, 0 for none.
        period: the place of a token modulo this is told to the decoder, so that it can pick its part of a code; the
            chunk length, or ``None`` to leave it out.
        support_bias: whether each head learns how far a code counts as the tokens it stands for: ``scale *
            log(support)`` is added to its scores, with scales that start at 0.

    Raises:
        ValueError: a window below 1, or memory layers that do not exist.
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
    ) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window={window} is too small; allowed: 1 and above")
        attending = set(range(layers) if memory_layers is None else memory_layers)
        if not attending <= set(range(layers)):
            raise ValueError(f"memory_layers={sorted(attending)} names layers that are not among 0 to {layers - 1}")
        self.start = nn.Parameter(torch.randn(dim) * 0.02)
        self.place = nn.Embedding(period, dim) if period else None
        self.convolution = ShortConvolution(dim=dim, width=convolution, causal=True) if convolution else nn.Identity()
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim=dim, heads=heads, memory=layer in attending, support_bias=support_bias and layer in attending
            )
            for layer in range(layers)
        )
        self.norm = nn.RMSNorm(dim)
        self.window = window
        self.dim, self.heads = dim, heads
        self.support_bias = support_bias

    def forward(self, embeddings: Tensor, codes: Codes) -> Tensor:
        """Read the tokens and what is visible of the codes.

        Args:
            embeddings: ``(batch, length, dim)`` of the tokens themselves.
            codes: visible by the rule of ``end``.

        Returns:
            ``(batch, length, dim)``; place t has read the tokens before t.
        """
        batch, length, _ = embeddings.shape
        place = torch.arange(length, device=embeddings.device)
        start = self.start.to(embeddings.dtype).expand(batch, 1, -1)
        x = torch.cat([start, embeddings[:, :-1]], dim=1)
        if self.place is not None:
            x = x + self.place(place % self.place.num_embeddings)
        x = self.convolution(x)
        window = Window(
            rotary=head_angles(place, self.dim, self.heads),
            mask=window_mask(length, window=self.window, device=embeddings.device),
        )
        memory = Memory(
            values=codes.values,
            rotary=head_angles(codes.position, self.dim, self.heads),
            mask=codes.visible(place),
            log_support=log_of_support(codes.support) if self.support_bias else None,
        )
        for block in self.blocks:
            x = block(x, window, memory)
        return self.norm(x)
