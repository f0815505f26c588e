"""The minor channel: pruned details travel as small learned projections under a kept code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.modules import Module
from wavecomp.wavelets import ChunkTransform


class DetailChannel(Module):
    r"""Adds to each kept code the pruned details under it, through learned projections, level by level.

    Details form a tree: under the coefficient i of level l lie 2 i and 2 i + 1 of level l - 1. What is pruned hands a
    message up to the nearest coefficient that is kept,

    .. math:: m_{l,i} = w_l P_l d_{l,i} + Q_l [m_{l-1,2i};\, m_{l-1,2i+1}]

    and there it is added. The kept coefficient itself is on the identity path, so a model starts from local averages
    and learns what to add: nothing that is pruned is lost without a gradient telling the encoder so.

    :meth:`Compressor.expand` does not take the messages out of the codes again: it has no way to tell them from the
    coefficients that they were added to. A network behind it, a decoder's, has to learn to read them.

    Args:
        dim: width of the codes.
        level: level of the transform.
        width: of the messages, ``dim`` unless given; the less, the cheaper and the narrower the channel. 0 closes it.
        scale: size of the projections at the start, relative to the identity path.
        weights: w_l of each level, finest first, 1 unless given; 0 leaves a level's details out.

    Raises:
        ValueError: a level below 1, a negative width, scale or weight, or weights of another number than the levels.

    Example:
        >>> channel = DetailChannel(dim=8, level=2, width=4)
        >>> bands = wc.DWT1d("haar", level=2)(torch.randn(1, 3, 16, 8))
        >>> kept = bands.layout.always.expand(1, 3, 16)  # the approximations alone
        >>> channel(bands, kept).shape
        torch.Size([1, 3, 16, 8])
    """

    def __init__(
        self,
        *,
        dim: int,
        level: int,
        width: int | None = None,
        scale: float = 0.5,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if level < 1:
            raise ValueError(f"level={level} is too small; allowed: 1 and above")
        if width is not None and width < 0:
            raise ValueError(f"width={width} is negative; allowed: 0 and above")
        if scale < 0:
            raise ValueError(f"scale={scale} is negative; allowed: 0 and above")
        weights = [1.0] * level if weights is None else list(weights)
        if len(weights) != level or min(weights) < 0:
            raise ValueError(f"weights={weights} of level={level}; allowed: one per level, 0 and above")
        self.level, self.width, self.weights = level, dim if width is None else width, weights
        self.dim = dim
        if not self.width:
            return
        self.take = nn.ModuleList(_linear(dim, self.width, scale / dim**0.5) for _ in range(level))
        self.join = nn.ModuleList(_linear(2 * self.width, self.width, self.width**-0.5) for _ in range(level - 1))
        self.give = nn.Identity() if width is None else _linear(self.width, dim, self.width**-0.5)

    def extra_repr(self) -> str:
        return f"level={self.level}, width={self.width}, weights={self.weights}"

    def cost(self, chunk_length: int) -> int:
        """Multiplications per chunk."""
        nodes = self._nodes(chunk_length)
        taking = sum(nodes) * self.dim * self.width
        joining = sum(nodes[1:]) * 2 * self.width**2
        return taking + joining + (taking if self.width and isinstance(self.give, nn.Linear) else 0)

    def forward(self, bands: Bands, kept: Tensor) -> Tensor:
        """What is added to each coefficient that is kept.

        Args:
            bands: of a dyadic transform of this level, values ``(batch, chunks, coefficients, dim)``.
            kept: ``(batch, chunks, coefficients)``, which have codes of their own.

        Returns:
            ``(batch, chunks, coefficients, dim)``; where nothing is kept it has no meaning.
        """
        if not self.width:
            return torch.zeros_like(bands.values)
        counts = list(bands.layout.counts)
        below, messages = self._climb(bands, kept)
        finest = torch.zeros_like(bands.values[..., -counts[-1] :, :])
        added = [self.give(m[..., :count, :]) for m, count in zip(below, counts[-2:0:-1])]
        return torch.cat([self.give(messages[-1]), *reversed(added), finest], dim=-2)

    if TYPE_CHECKING:
        __call__ = forward

    def messages(self, bands: Bands) -> list[Tensor]:
        """What all details under a node hand to it, for the nodes of each level, finest first: each
        ``(batch, chunks, ceil(chunk_length / 2 ** level), dim)``."""
        if not self.width:
            nodes = self._nodes(bands.layout.length)
            return [bands.values.new_zeros(*bands.values.shape[:-2], count, self.dim) for count in nodes]
        return [self.give(message) for message in self._climb(bands, torch.zeros_like(bands.mask))[1]]

    def _climb(self, bands: Bands, kept: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What comes up to the nodes of each level but the finest, and what they hand on, of all; finest first."""
        counts = list(bands.layout.counts)
        details = bands.values.split(counts, dim=-2)[:0:-1]
        kept_details = kept.split(counts, dim=-1)[:0:-1]
        below: list[Tensor] = []
        messages: list[Tensor] = []
        for step, (detail, own, count) in enumerate(zip(details, kept_details, self._nodes(bands.layout.length))):
            # an odd length has a node without a detail, which only hands on
            missing = count - detail.shape[-2]
            message = F.pad(self.weights[step] * self.take[step](detail), (0, 0, 0, missing))
            if messages:
                below.append(self._joined(step, messages[-1], count))
                message = below[-1] + message
            messages.append(torch.where(F.pad(own, (0, missing))[..., None], 0, message))
        return below, messages

    def _joined(self, step: int, message: Tensor, count: int) -> Tensor:
        pairs = F.pad(message, (0, 0, 0, 2 * count - message.shape[-2])).unflatten(-2, (count, 2)).flatten(-2)
        return self.join[step - 1](pairs)

    def _nodes(self, chunk_length: int) -> list[int]:
        """How many each level has, finest first."""
        return [-(-chunk_length // 2 ** (step + 1)) for step in range(self.level)]


def check_detail_channel(detail_channel: DetailChannel | None, transform: ChunkTransform) -> None:
    """Raise ``ValueError`` where a detail channel finds no tree, or one of another level."""
    if detail_channel is not None and not transform.dyadic:
        raise ValueError(f"detail_channel goes with DWT1d and banks of two branches, not with {transform}")
    if detail_channel is not None and detail_channel.level != transform.level:
        raise ValueError(
            f"detail_channel has level={detail_channel.level}, the transform level={transform.level}; give both one"
        )


def _linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=std)
    return linear
