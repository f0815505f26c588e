"""The minor channel: pruned details travel as small learned projections under a kept code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.compressors.compressor import node_counts, scatter_rows
from wavecomp.modules import Module
from wavecomp.records import check_count, check_level, check_weight, check_width, without_waiting
from wavecomp.wavelets import ChunkTransform


class DetailChannel(Module):
    r"""Adds to each kept code the pruned details under it, through learned projections, one for each place.

    Details form a tree: under the coefficient i of level l lie 2 i and 2 i + 1 of level l - 1. A code made of the
    coefficient or local approximation c of level l is

    .. math:: A \, 2^{-l/2} c + G \sum_{d} w_d P_{p(d)} \, d

    over the pruned details d that have it for their nearest kept ancestor. Of a coefficient that a pruner keeps by a
    weight below 1 the rest counts as pruned, so nothing jumps when the weight falls to 0. The place p(d) is that in
    the tree below the code, counted from its top, so codes of all levels and places share the projections. A starts at
    the identity, and :math:`2^{-l/2}` turns an approximation into the local mean: a model starts from local means and
    learns what to add, and nothing that is pruned is lost without a gradient telling the encoder so. With codes of one
    level this is a strided convolution, written in the basis of the wavelet, where it is learned sooner.

    Packets have no tree below a code: of whatever basis, all that is pruned goes to the approximation at its place, and
    p(d) is the band of the deepest level, in order of frequency, that d would lie in (:meth:`messages_of_packets`).

    :meth:`Compressor.expand` makes codes of several levels as loud beside each other as their coefficients were
    (:meth:`undo`), and undoes nothing else: it has no way to tell the messages from what they were added to. A network
    behind it, a decoder's, has to learn to read them.

    Args:
        dim: width of the codes.
        level: level of the transform.
        width: of the messages, before G widens them to ``dim``; ``dim`` and no G unless given. The less, the cheaper
            and the narrower the channel. 0 closes it, and codes are the coefficients as they are.
        scale: size of the projections P at the start, relative to an orthogonal one.
        weights: w_l of each level, finest first, 1 unless given; 0 leaves a level's details out.

    Raises:
        ValueError: a level below 1, a negative width, scale or weight, or weights of another number than the levels.

    Example:
        >>> channel = DetailChannel(dim=8, level=2, width=4)
        >>> bands = wc.DWT1d("haar", level=2)(torch.randn(1, 3, 16, 8))
        >>> kept = bands.layout.always.expand(1, 3, 16)  # the approximations alone
        >>> messages = channel.messages(bands, kept)
        >>> messages.shape
        torch.Size([1, 3, 16, 4])
        >>> channel(bands.values[..., :4, :], bands.layout.level[:4], messages[..., :4, :]).shape
        torch.Size([1, 3, 4, 8])
    """

    def __init__(
        self,
        *,
        dim: int,
        level: int,
        width: int | None = None,
        scale: float = 0.05,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_count("dim", dim)
        check_count("level", level)
        if width is not None:
            check_count("width", width, least=0)
        check_weight("scale", scale)
        weights = [1.0] * level if weights is None else list(weights)
        if len(weights) != level or not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(f"weights={weights} of level={level}; allowed: one per level, 0 and above, finite")
        self.level, self.width, self.weights = level, dim if width is None else width, weights
        self.dim = dim
        if not self.width:
            return
        self.own = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.own.weight)
        self.take = nn.Parameter(scale / dim**0.5 * torch.randn(2**level - 1, dim, self.width))
        self.give: nn.Module = nn.Identity()
        if width is not None:
            self.give = nn.Linear(width, dim, bias=False)
            nn.init.normal_(self.give.weight, std=width**-0.5)

    def extra_repr(self) -> str:
        return f"level={self.level}, width={self.width}, weights={self.weights}"

    def cost(self, chunk_length: int, codes: int, *, packets: bool = False) -> int:
        """Multiplications per chunk of so many codes, with :meth:`messages`, or with :meth:`messages_of_packets`."""
        if not self.width:
            return 0
        trees = -(-chunk_length // 2**self.level)
        places = 2**self.level - 1
        if not packets:
            places += sum(2 ** (self.level - level) * (2**level - 2) for level in range(2, self.level + 1))
        wide = isinstance(self.give, nn.Linear)
        return trees * places * self.dim * self.width + codes * self.dim * (self.dim + wide * self.width)

    def forward(self, values: Tensor, level: Tensor, messages: Tensor) -> Tensor:
        """The codes.

        Args:
            values: ``(..., codes, dim)``, coefficients or approximations that are kept.
            level: ``(..., codes)``, theirs.
            messages: ``(..., codes, width)``, what comes up to them.

        Returns:
            ``(..., codes, dim)``.
        """
        if not self.width:
            return values
        return self.own(values * _mean_of(level, values)) + self.give(messages)

    if TYPE_CHECKING:
        __call__ = forward

    def undo(self, codes: Tensor, level: Tensor) -> Tensor:
        """Codes as loud beside each other as the coefficients of these levels, all by the factor of the coarsest."""
        return codes * _mean_of(self.level - level, codes) if self.width else codes

    def messages(self, bands: Bands, kept: Tensor) -> Tensor:
        """What comes up to each coefficient that is kept.

        Args:
            bands: of a dyadic transform of this level, values ``(batch, chunks, coefficients, dim)``.
            kept: ``(batch, chunks, coefficients)``, which have codes of their own; or by what weight, from 0 to 1:
                the rest of the coefficient, and of what comes up to it, goes on to the next above.

        Returns:
            ``(batch, chunks, coefficients, width)``; where nothing is kept it has no meaning.
        """
        check_width(self, self.dim, bands.values)
        if not self.width:
            return bands.values[..., :0]
        details = self._details(bands)
        kept_levels = self._levels(bands, kept[..., None].to(bands.values.dtype))
        # an approximation has the detail beside it for its first place, a detail only those below
        found = [self._handed(_left(details, kept_levels), depth=0)]
        for level in range(1, self.level):
            found.append(self._handed(_left(details[level:], kept_levels[level:]), depth=1))
        counts = bands.layout.counts
        found.append(bands.values.new_zeros(*bands.values.shape[:-2], counts[-1], self.width))
        return torch.cat([part[..., :count, :] for part, count in zip(found, counts)], dim=-2)

    def messages_of_packets(self, bands: Bands, kept: Tensor) -> Tensor:
        """What comes up to each approximation: every pruned coefficient at its place, of packets in any basis.

        Of a dyadic transform of which the approximations alone are kept it is what :meth:`messages` gives.

        Args:
            bands: of packets of this level, values ``(batch, chunks, coefficients, dim)``.
            kept: ``(batch, chunks, coefficients)``, which have codes of their own, or by what weight.

        Returns:
            ``(batch, chunks, coefficients, width)``; zero for all but approximations.
        """
        values, layout = bands.values, bands.layout
        check_width(self, self.dim, values)
        if not self.width:
            return values[..., :0]
        trees, slots = -(-layout.length // 2**self.level), 2**self.level
        below = self.level - layout.level
        band = (layout.frequency * 2.0 ** (layout.level + 1) - 0.5).round().long()
        # a node that was not split stands for the bands below it, and has as many coefficients at one place
        spread = torch.ones_like(below) << below
        place = (layout.index >> below) * slots + (band << below) + layout.index % spread
        weights = without_waiting(self.weights, dtype=values.dtype, device=values.device)[layout.level - 1]
        pruned = (1 - kept.to(values.dtype))[..., None] * weights[..., None] * values
        found = scatter_rows(pruned, place.expand(pruned.shape[:-1]), trees * slots).unflatten(-2, (trees, slots))
        messages = found[..., 1:, :].flatten(-2) @ self.take.flatten(0, 1).to(values.dtype)
        return F.pad(messages, (0, 0, 0, values.shape[-2] - trees))

    def under_nodes(self, bands: Bands) -> list[Tensor]:
        """What all details under a node hand to it, for the nodes of each level, coarse to fine: each
        ``(batch, chunks, ceil(chunk_length / 2 ** level), width)``, down to level 0."""
        nodes = node_counts(bands.layout.length, self.level)
        rows = bands.values.shape[:-2]
        if not self.width:
            return [bands.values.new_zeros(*rows, count, 0) for count in nodes]
        details = self._details(bands)
        found = [self._handed(details[place:], depth=0)[..., :count, :] for place, count in enumerate(nodes[:-1])]
        return [*found, bands.values.new_zeros(*rows, nodes[-1], self.width)]

    def _details(self, bands: Bands) -> list[Tensor]:
        return [weight * part for weight, part in zip(self.weights[::-1], self._levels(bands, bands.values))]

    def _levels(self, bands: Bands, values: Tensor) -> list[Tensor]:
        """``(..., nodes, x)`` of the details of each level, coarse to fine, zero where a chunk ends before."""
        trees, *counts = bands.layout.counts
        parts = values[..., trees:, :].split(counts, dim=-2)
        return [F.pad(part, (0, 0, 0, trees * 2**step - part.shape[-2])) for step, part in enumerate(parts)]

    def _handed(self, levels: list[Tensor], *, depth: int) -> Tensor:
        """``(..., nodes, width)``: what details of these levels hand up, the coarsest at this depth below a node."""
        trees = [part.unflatten(-2, (-1, 2**below)) for below, part in enumerate(levels, start=depth)]
        take = self.take[2**depth - 1 : 2 ** (depth + len(levels)) - 1].flatten(0, 1)
        return torch.cat(trees, dim=-2).flatten(-2) @ take.to(levels[0].dtype)


def _left(levels: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
    """What is left of each detail when it and all above it have kept their part of it."""
    found: list[Tensor] = []
    left: Tensor | None = None
    for part, weight in zip(levels, kept):
        left = 1 - weight if left is None else (1 - weight) * left.repeat_interleave(2, dim=-2)
        found.append(left * part)
    return found


def check_detail_channel(detail_channel: DetailChannel | None, transform: ChunkTransform) -> None:
    """Raise ``ValueError`` where a detail channel finds no places to go to, or a transform of another level."""
    if detail_channel is not None and not transform.binary:
        raise ValueError(f"detail_channel goes with DWT1d and packets of banks of two branches, not with {transform}")
    if detail_channel is not None:
        check_level("detail_channel", detail_channel.level, transform.level)


def _mean_of(level: Tensor, values: Tensor) -> Tensor:
    """What turns an approximation of this level into the local mean: ``2 ** (-level / 2)``, ``(..., codes, 1)``."""
    return torch.exp2(-level / 2)[..., None].to(values.dtype)
