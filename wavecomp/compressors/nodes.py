"""What compressors whose codes are nodes of a dyadic tree share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.compressor import Compressor, gather_rows, scatter_rows
from wavecomp.compressors.detail import DetailChannel, check_detail_channel
from wavecomp.compressors.pruner import check_ratio, check_room
from wavecomp.compressors.ratio import RatioController
from wavecomp.records import check_type
from wavecomp.wavelets import DWT1d


class NodeCompressor(Compressor):
    """Codes that are approximations of ``2 ** level`` tokens, of several levels, at a ratio that a controller holds.

    Their ``index`` counts the nodes of ``transform.approximations``.
    """

    def __init__(
        self,
        *,
        transform: DWT1d,
        target_ratio: float,
        room: float,
        start: float = 1.0,
        detail_channel: DetailChannel | None = None,
    ) -> None:
        super().__init__()
        check_type("transform", transform, DWT1d)
        if not transform.dyadic:
            raise ValueError(f"transform={transform} is no dyadic tree; allowed: DWT1d and banks of two branches")
        check_detail_channel(detail_channel, transform)
        check_ratio(target_ratio)
        self.transform = transform
        self.room = check_room(room)
        self.controller = RatioController(target_ratio=target_ratio, start=start)
        self.detail_channel = detail_channel

    def extra_repr(self) -> str:
        return f"room={self.room}"

    def made(self, bands: Bands, approximations: Tensor, index: Tensor) -> Tensor:
        """Codes of nodes: their approximations, and what the detail channel adds.

        Args:
            bands: what the detail channel takes its details from.
            approximations: ``(batch, chunks, nodes, dim)``, of all levels.
            index: ``(batch, chunks, slots)``, which nodes.

        Returns:
            ``(batch, chunks, slots, dim)``.
        """
        values = gather_rows(approximations, index)
        if self.detail_channel is None:
            return values
        messages = torch.cat(self.detail_channel.under_nodes(bands), dim=-2)
        level = self.transform.approximations(bands.layout.length, values.device).level[index]
        return self.detail_channel(values, level, gather_rows(messages, index))

    def restore(self, values: Tensor, codes: Codes, chunks: Chunks) -> Tensor:
        """Level by level: what lies under a code is its synthesis with details of zero.

        Beside it, where codes are finer, stand their own averages, for filters that reach over an edge. So with the
        Haar wavelet this is the piecewise constant with these local averages, and with longer ones it is near what the
        codes were made of, but for the places where their level changes.
        """
        nodes = self.transform.approximations(chunks.values.shape[-2], values.device)
        index, mask = (x.reshape(values.shape[:-1]) for x in (codes.index, codes.mask))
        if self.detail_channel is not None:
            values = self.detail_channel.undo(values, nodes.level[index])
        finer = list(scatter_rows(values, index, len(nodes)).split(nodes.counts, dim=-2))
        covers = (scatter_rows(mask[..., None].long(), index, len(nodes)) > 0).split(nodes.counts, dim=-2)
        for place in range(len(finer) - 2, -1, -1):
            pairs = F.pad(finer[place + 1], (0, 0, 0, finer[place + 1].shape[-2] % 2)).unflatten(-2, (-1, 2))
            finer[place] = finer[place] + pairs.sum(-2) / math.sqrt(2)
        x, under = finer[0], covers[0]
        lengths = None if chunks.dense else chunks.lengths
        for place, here in enumerate(finer[1:], start=1):
            level = self.transform.level + 1 - place
            smooth = self.transform.upsample(x, lengths, level=level, chunk_length=nodes.length)
            under = under.repeat_interleave(2, dim=-2)[..., : here.shape[-2], :]
            x = torch.where(under, smooth, here)
            under = under | covers[place]
        return x
