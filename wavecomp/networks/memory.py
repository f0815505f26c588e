"""The codes that a decoder reads step by step: keys and values made once, in buffers that grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wavecomp.codes import Codes, codes_first
from wavecomp.networks.attention import MemoryAttention, join_heads, log_of_support
from wavecomp.networks.decoder import LocalDecoder
from wavecomp.networks.growing import Growing
from wavecomp.pace import NEVER
from wavecomp.positions import Rotary

ROWS = 8
"""Places that attend at once: what bounds the scores of a long memory."""


class CodeMemory:
    """The codes that a decoder's next places see, for each block that reads them.

    Everything is fixed between two chunk edges. At an edge new codes come in, and those that no later place sees, empty
    slots and codes that coarser ones stand in for, go: the cost follows what is visible. Slot 0 is the sink.

    Args:
        decoder: whose blocks read.
        batch: rows.
    """

    def __init__(self, decoder: LocalDecoder, batch: int) -> None:
        self.dim, self.heads, self.angles = decoder.dim, decoder.heads, decoder.angles
        blocks: list[Any] = list(decoder.blocks)
        self.attentions: dict[int, MemoryAttention] = {
            layer: block.memory_attention for layer, block in enumerate(blocks) if block.memory_attention is not None
        }
        # the token from which on a code is not seen: 0 for an empty slot
        self.until = Growing(torch.full((batch, 1), NEVER, device=decoder.start.device))
        self.log_support = Growing(torch.zeros_like(decoder.start[:1]).expand(batch, 1))
        self.keys_values = {
            layer: tuple(Growing(sink.detach().mT) for sink in attention.sink_keys_values(batch))
            for layer, attention in self.attentions.items()
        }
        self.all_seen = True

    def update(self, codes: Codes, token: int, chunk_length: int) -> None:
        """At a chunk edge: forget and take in.

        Args:
            codes: that came to exist.
            token: the place of the edge, the first that sees them.
            chunk_length: places until the next edge.
        """
        self._forget(token)
        self._take_in(codes, token)
        until = self.until.tensor
        self.all_seen = not until.numel() or int(until.amin()) >= token + chunk_length

    def read(self, layer: int, x: Tensor, place: Tensor, rotary: Rotary) -> Tensor:
        """What the codes add in block ``layer``; see :class:`wavecomp.networks.decoder.ReadCodes`.

        A place reads all keys and values once, and memory is what limits it: the plain products on slots that lie side
        by side are faster than a fused kernel here.
        """
        attention = self.attentions[layer]
        keys, values = (grown.tensor for grown in self.keys_values[layer])
        seen = None if attention.count_scale is None else self._seen(place)
        q = attention.queries(x, rotary, seen) * (self.dim // self.heads) ** -0.5
        out = []
        for rows, places in zip(q.split(ROWS, dim=2), place.split(ROWS)):
            scores = rows @ keys
            if attention.support_scale is not None:
                scores = scores + attention.support_scale[:, None, None] * self.log_support.tensor[:, None, None]
            if not self.all_seen:
                scores = scores.masked_fill((places[:, None] >= self.until.tensor[:, None])[:, None], -torch.inf)
            out.append(scores.softmax(-1) @ values.mT)
        return attention.out(join_heads(torch.cat(out, dim=2)))

    def _seen(self, place: Tensor) -> Tensor:
        """``(batch or 1, length)``: how many codes each place sees, the sink left out."""
        until = self.until.tensor[:, 1:]
        if self.all_seen:
            return place.new_full((1, len(place)), until.shape[1])
        return torch.cat([(until[:, None] > rows[:, None]).sum(-1) for rows in place.split(ROWS)], dim=1)

    def _forget(self, token: int) -> None:
        stay = (self.until.tensor > token).sum(0) > 0
        first = int(stay.int().cumprod(0).sum())
        if first < self.until.length:
            for grown in self._all():
                grown.keep(first, stay[first:])

    def _take_in(self, codes: Codes, token: int) -> None:
        until = torch.where(codes.mask, codes.until, 0)
        seen = until > token
        count = int(seen.sum(-1).amax()) if seen.numel() else 0
        order = codes_first(seen)[:, :count]
        until, position, support = (x.gather(1, order) for x in (until, codes.position, codes.support))
        values = codes.values.gather(1, order[..., None].expand(-1, -1, self.dim))
        rotary = self.angles(position)
        self.until.append(until)
        self.log_support.append(log_of_support(support))
        for layer, attention in self.attentions.items():
            for grown, new in zip(self.keys_values[layer], attention.keys_values(values, rotary)):
                grown.append(new.mT)

    def _all(self) -> list[Growing]:
        return [self.until, self.log_support, *(grown for pair in self.keys_values.values() for grown in pair)]
