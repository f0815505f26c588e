"""DyadicLeaves: local averages at the resolution that each place asks for."""

from __future__ import annotations

from types import NoneType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import node_counts
from wavecomp.compressors.detail import DetailChannel
from wavecomp.compressors.nodes import NodeCompressor
from wavecomp.compressors.pruner import adaptive_capacity
from wavecomp.compressors.ratio import GroupThreshold
from wavecomp.compressors.selection import ContentScore, best, coarse_first
from wavecomp.records import check_type
from wavecomp.wavelets import DWT1d


class DyadicLeaves(NodeCompressor):
    r"""Each chunk as the leaves of a pruned dyadic tree: many codes where much happens, few where little does.

    A node is the approximation of ``2 ** level`` tokens. It is split where a detail of its own or below it is loud,

    .. math:: g = \mathrm{relu}(1 - \tau_l / \max_{d \text{ under the node}} e^{s(d)})

    is above zero, with a learned score s that begins at the loudness (:class:`ContentScore`); its halves are made of
    the approximation and of g times its detail. So every code means the same kind of thing, a local average, and as the
    loudest detail falls to the threshold the halves become alike before they become one: gradients reach the score
    without a straight-through. What lies under a leaf may travel in its detail channel, which does not know of g: one
    leaf says more of what is under it than its two halves did, and no gradient tells the score so. (That what is quiet
    at one scale may hide what is loud at a finer one: Shapiro's zerotrees, 1993.)

    Args:
        transform: of two branches; its level is that of the largest leaves.
        target_ratio: tokens per code over all, held by a controller of tau; the largest leaves of a chunk are a quarter
            at most of the codes that it has by it.
        dim: width of the values, for the learned part of the score.
        room: slots of a chunk over the mean budget; a chunk that asks for more is not split at its finest, quietest.
        start: tau before anything was counted.
        detail_channel: what lies under a leaf is added to it; ``None`` to lose it.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        TypeError: a transform or encoding of another kind.
        ValueError: a transform that is no dyadic tree, a ratio or room out of range.

    Example:
        >>> leaves = DyadicLeaves(transform=wc.DWT1d("haar", level=5), target_ratio=4, dim=8)
        >>> quiet, loud = torch.ones(1, 64, 8), torch.randn(1, 64, 8)
        >>> codes = leaves(wc.Codes.from_tokens(torch.cat([quiet, loud], dim=1)).cut(64))
        >>> kept = codes.statistics["kept"]
        >>> int(kept[0, 0]), bool(kept[0, 1] > 16)
        (2, True)
    """

    def __init__(
        self,
        *,
        transform: DWT1d,
        target_ratio: float,
        dim: int,
        room: float = 2.0,
        start: float = 0.7,
        detail_channel: DetailChannel | None = None,
        encoding: nn.Module | None = None,
    ) -> None:
        super().__init__(
            transform=transform, target_ratio=target_ratio, room=room, start=start, detail_channel=detail_channel
        )
        self.shrink = GroupThreshold()
        self.score = ContentScore(dim)
        check_type("encoding", encoding, nn.Module, NoneType)
        self.encoding = encoding

    def capacity(self, chunk_length: int) -> int:
        return adaptive_capacity(self.transform.layout(chunk_length), self.controller.target_ratio, self.room)

    def forward(self, chunks: Chunks) -> Codes:
        length = chunks.values.shape[-2]
        capacity = self.capacity(length)
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        bands = self.transform(values, None if chunks.dense else chunks.lengths, ragged=chunks.ragged)
        weight, loudness = self._weights(bands)
        split, overflow = self._split(bands, weight.detach() > 0, loudness.detach(), capacity)
        shares = torch.where(bands.layout.always, 1, torch.where(split, weight, 0))
        shrunk = bands.replace(values=bands.values * shares[..., None].to(values.dtype))
        nodes = self.transform.approximations(length, values.device)
        leaf = self._leaves(bands, split) & (bands.lengths[..., None] >= nodes.needs)
        # from left to right
        rank = ((nodes.needs - 1) * (self.transform.level + 1) + self.transform.level - nodes.level).argsort().argsort()
        index = torch.where(leaf, rank, len(nodes) + rank).topk(capacity, dim=-1, largest=False, sorted=True).indices
        codes = chunks.codes(
            self.made(bands, self.transform.inverse_levels(shrunk), index),
            mask=leaf.gather(-1, index),
            **nodes.take(index),
            index=index,
            statistics={"band_energy": bands.energy().detach(), "overflow": overflow},
        )
        return codes if self.encoding is None else self.encoding(codes)

    def _weights(self, bands: Bands) -> tuple[Tensor, Tensor]:
        """g and the score of each detail, ``(batch, chunks, coefficients)``; zero for approximations."""
        own = torch.where(bands.mask & ~bands.layout.always, self.score(bands.values).exp(), 0)
        score = self._loudest(bands, own).clamp(min=1e-6)
        weight = self.shrink(score, self.controller.threshold, bands.layout.level)
        return torch.where(bands.mask & ~bands.layout.always, weight, 0), score

    def _loudest(self, bands: Bands, own: Tensor) -> Tensor:
        """The largest score of each detail and those under it."""
        first, *levels = own.split(list(bands.layout.counts), dim=-1)
        out: list[Tensor] = []
        below: Tensor | None = None
        for level, nodes in zip(levels[::-1], self._node_counts(bands)[-2::-1]):
            here = F.pad(level, (0, nodes - level.shape[-1]))
            if below is not None:
                pairs = F.pad(below, (0, 2 * nodes - below.shape[-1])).unflatten(-1, (nodes, 2))
                here = torch.maximum(here, pairs.amax(-1))
            below = here
            out.insert(0, here[..., : level.shape[-1]])
        return torch.cat([first, *out], dim=-1)

    def _split(self, bands: Bands, wanted: Tensor, score: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
        """Which nodes are split, marked at their details: those whose ancestors are, as far as there is room."""
        counts = list(bands.layout.counts)
        alive, tree = torch.ones_like(wanted[..., : counts[0]]), [torch.zeros_like(wanted[..., : counts[0]])]
        for level, through in zip(wanted.split(counts, dim=-1)[1:], self._through(bands, wanted)):
            tree.append(level & alive[..., : level.shape[-1]])
            alive = _halves(through & alive[..., : through.shape[-1]])
        reached = torch.cat(tree, dim=-1)
        asked = reached.sum(-1)
        # coarse splits come first, so what is left out never has a part below it
        order = coarse_first(bands.layout.level, score)
        room = capacity - counts[0]
        chosen = best(order, reached, room, asked)
        split = torch.zeros_like(reached).scatter(-1, chosen.index, chosen.mask)
        return split, (asked - room).clamp(min=0)

    def _leaves(self, bands: Bands, split: Tensor) -> Tensor:
        """Which nodes are leaves, in the order of ``transform.approximations``."""
        alive, leaves = torch.ones_like(split[..., : bands.layout.counts[0]]), []
        for through, count in zip(self._through(bands, split), self._node_counts(bands)[1:]):
            leaves.append(alive & ~through)
            alive = _halves(through & alive)[..., :count]
        return torch.cat([*leaves, alive], dim=-1)

    def _through(self, bands: Bands, split: Tensor) -> list[Tensor]:
        """Which nodes of each level, coarse to fine, give way to those below: what is split, and what the end of a row
        left with its first half alone where that gives way."""
        counts = list(bands.layout.counts)
        found: list[Tensor] = []
        below: Tensor | None = None
        pairs = zip(split.split(counts, dim=-1)[:0:-1], bands.mask.split(counts, dim=-1)[:0:-1])
        for (level, detail), nodes in zip(pairs, self._node_counts(bands)[-2::-1]):
            here = F.pad(level, (0, nodes - level.shape[-1]))
            if below is not None:
                halved = F.pad(detail.expand(level.shape), (0, nodes - level.shape[-1]))
                here = here | ~halved & F.pad(below, (0, 2 * nodes - below.shape[-1]))[..., ::2]
            below = here
            found.insert(0, here)
        return found

    def _node_counts(self, bands: Bands) -> list[int]:
        return node_counts(bands.layout.length, self.transform.level)


def _halves(split: Tensor) -> Tensor:
    """Which nodes a level further down stand alone: both halves of what was split, ``(..., 2 * nodes)``."""
    return split.repeat_interleave(2, dim=-1)
