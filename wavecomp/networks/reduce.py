"""The Reduce-Network: each code reads the codes before it."""

from __future__ import annotations

from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.networks.attention import Window, head_angles, log_of_support, window_mask
from wavecomp.networks.transformer import TransformerBlock


class ReduceNetwork(nn.Module):
    """Transformer over codes, causal by ``end``: a code reads those that existed when it did, its own chunk's included.

    Args:
        dim: width of the codes.
        heads: attention heads.
        layers: Transformer blocks.
        window: how far back a code reads, in slots, so that the cost is linear; ``None`` for all.
        causal: whether ``end`` orders the codes; without, every code reads every other within the window.
        input_pooling: a module from Codes to fewer Codes that comes first, or ``None``.
        support_bias: whether each head learns how far a code counts as the tokens it stands for: ``scale *
            log(support)`` is added to its scores, with scales that start at 0.

    Raises:
        ValueError: a window below 1, or one that goes with codes that are not causal.

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
    ) -> None:
        super().__init__()
        if window is not None and window < 1:
            raise ValueError(f"window={window} is too small; allowed: 1 and above, or None")
        if not causal and window is not None:
            raise ValueError(f"window={window} looks back only; with causal=False allowed: None")
        self.input_pooling = input_pooling
        self.blocks = nn.ModuleList(
            TransformerBlock(dim=dim, heads=heads, support_bias=support_bias) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim)
        self.window = window
        self.ordered = causal
        self.dim, self.heads = dim, heads
        self.support_bias = support_bias

    @property
    def causal(self) -> bool:
        """Whether every code depends on what was read before its ``end`` alone."""
        return self.ordered and (self.input_pooling is None or getattr(self.input_pooling, "causal", False))

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to as many ``Codes``; empty slots stay zero."""
        if self.input_pooling is not None:
            codes = self.input_pooling(codes)
        x = codes.values
        if x.shape[1]:
            window = Window(
                rotary=head_angles(codes.position, self.dim, self.heads),
                mask=self._mask(codes),
                log_support=log_of_support(codes.support) if self.support_bias else None,
            )
            for block in self.blocks:
                x = block(x, window)
        return codes.replace(values=self.norm(x) * codes.mask[..., None])

    def _mask(self, codes: Codes) -> Tensor:
        slots, device = codes.values.shape[1], codes.values.device
        end = codes.end if self.ordered else codes.end * 0
        return window_mask(slots, window=self.window, end=end, mask=codes.mask, device=device)
