"""Codes: a sequence of vectors that stand for tokens; Chunks: the same, cut."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

import torch
from torch import Tensor

from wavecomp.records import Record, check_lengths, check_shape, record

NEVER = torch.iinfo(torch.int64).max
"""An ``end`` or ``until`` that no reader reaches."""


@record
class Codes(Record):
    """A sequence of codes, whoever made it: an embedding, a wavelet, a pool, a second stage.

    A prediction of token t may use a code only if ``end <= t < until`` (:meth:`visible`). Codes lie in order of
    chunks; inside a chunk from coarse to fine, and by position inside a band.

    Args:
        values: ``(batch, slots, dim)``; zero in slots without a code.
        mask: ``(batch, slots)``, which slots hold a code.
        position: ``(batch, slots)``, centre of the support, in tokens.
        support: ``(batch, slots)``, tokens covered.
        frequency: ``(batch, slots)``, centre frequency, in cycles per token.
        level: ``(batch, slots)``, 0 for a token, 1 the finest.
        chunk: ``(batch, slots)``, which chunk the code is of.
        index: ``(batch, slots)``, which coefficient of its chunk it is.
        end: ``(batch, slots)``, tokens that had to be read before the code existed; ``NEVER`` for codes of a chunk
            that the end of the row cut short.
        until: ``(batch, slots)``, the token from which other codes stand in for it; ``NEVER`` if none do.
        tokens: ``(batch,)``, how many tokens the row stands for.
        losses: name to scalar, what the compressor owes.
        statistics: name to tensor, for metrics and plots.
        dense: known without looking: every slot holds a code.
    """

    values: Tensor
    mask: Tensor
    position: Tensor
    support: Tensor
    frequency: Tensor
    level: Tensor
    chunk: Tensor
    index: Tensor
    end: Tensor
    until: Tensor
    tokens: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    dense: bool = False

    static: ClassVar[tuple[str, ...]] = ("dense",)
    per_slot: ClassVar[tuple[str, ...]] = (
        "mask",
        "position",
        "support",
        "frequency",
        "level",
        "chunk",
        "index",
        "end",
        "until",
    )

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise ValueError(f"Codes: values has shape {tuple(self.values.shape)}, expected (batch, slots, dim)")
        for name in self.per_slot:
            check_shape("Codes", name, getattr(self, name), tuple(self.values.shape[:2]))
        check_shape("Codes", "tokens", self.tokens, tuple(self.values.shape[:1]))

    @classmethod
    def from_tokens(cls, embeddings: Tensor, lengths: Tensor | None = None, *, start: int = 0) -> Codes:
        """One code per token.

        Args:
            embeddings: ``(batch, length, dim)``.
            lengths: ``(batch,)``, tokens in each row; all unless given. What lies behind them is not read.
            start: the place of the first token.

        Raises:
            ValueError: shapes that do not fit, or lengths beyond the tensor (values are checked on the CPU only).

        Example:
            >>> codes = Codes.from_tokens(torch.randn(2, 10, 4), torch.tensor([10, 7]))
            >>> codes.tokens.tolist(), float(codes.ratio)
            ([10, 7], 1.0)
        """
        if embeddings.ndim != 3:
            raise ValueError(f"embeddings has shape {tuple(embeddings.shape)}, expected (batch, length, dim)")
        batch, length, _ = embeddings.shape
        place = torch.arange(length, device=embeddings.device).expand(batch, length)
        if lengths is None:
            tokens = torch.full((batch,), length, device=embeddings.device)
            mask = torch.ones_like(place, dtype=torch.bool)
        else:
            check_lengths("Codes", lengths, (batch,), length)
            tokens, mask = lengths, place < lengths[:, None]
            embeddings = torch.where(mask[..., None], embeddings, 0)
        return cls(
            values=embeddings,
            mask=mask,
            position=(start + place).float(),
            support=torch.ones_like(place, dtype=torch.float32),
            frequency=torch.full_like(place, 0.25, dtype=torch.float32),
            level=torch.zeros_like(place),
            chunk=torch.zeros_like(place),
            index=place,
            end=start + place + 1,
            until=torch.full_like(place, NEVER),
            tokens=tokens,
            dense=lengths is None,
        )

    @property
    def ratio(self) -> Tensor:
        """Compression ratio, tokens over codes, sum over sum; infinite where there are no codes."""
        return compression_ratio(self.tokens.sum(), self.mask.sum())

    def replace(self, **changes: Any) -> Codes:
        """A copy with some fields changed; with another mask it is no longer known to be dense."""
        return super().replace(**({"dense": False} if "mask" in changes else {}) | changes)

    def visible(self, token: Tensor) -> Tensor:
        """The rule of ``end``: which codes a prediction of these tokens may use.

        Args:
            token: ``(length,)`` or ``(batch, length)``, the places of the predicted tokens.

        Returns:
            ``(batch, length, slots)``.
        """
        token = token.expand(self.values.shape[0], -1)[..., None]
        return self.mask[:, None] & (self.end[:, None] <= token) & (token < self.until[:, None])

    def hidden(self) -> Codes:
        """The same slots, all empty: what a model sees that is to do without its codes."""
        return self.replace(mask=torch.zeros_like(self.mask))

    def compact(self) -> Codes:
        """The same codes, moved to the front of their rows."""
        if self.dense:
            return self
        order = (~self.mask).int().argsort(dim=-1, stable=True)
        per_slot = {name: getattr(self, name).gather(1, order) for name in self.per_slot}
        values = self.values.gather(1, order[..., None].expand_as(self.values))
        return self.replace(values=values, **per_slot)

    def pack(self) -> tuple[Tensor, Tensor]:
        """The codes of all rows one after another, for kernels on variable lengths. Waits for the device.

        Returns:
            ``(codes, dim)`` and ``cu_seqlens (batch + 1,)``, where each row starts.
        """
        counts = self.mask.sum(-1)
        return self.values[self.mask], torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()

    def cut(self, chunk_length: int) -> Chunks:
        """Cut into chunks; the last chunk of each row may be short.

        Raises:
            ValueError: a chunk length below 1.
        """
        if chunk_length < 1:
            raise ValueError(f"chunk_length={chunk_length} is too small; allowed: 1 and above")
        codes = self.compact()
        batch, slots, dim = codes.values.shape
        chunks = -(-slots // chunk_length)
        missing = chunks * chunk_length - slots

        def shaped(x: Tensor) -> Tensor:
            return torch.nn.functional.pad(x, (0, missing)).view(batch, chunks, chunk_length)

        values = torch.nn.functional.pad(codes.values, (0, 0, 0, missing)).view(batch, chunks, chunk_length, dim)
        mask = shaped(codes.mask)
        lengths = mask.sum(-1)
        end = torch.where(lengths == chunk_length, shaped(codes.end).amax(-1), NEVER)
        return Chunks(
            values=values,
            lengths=lengths,
            position=shaped(codes.position),
            support=shaped(codes.support) * mask,
            end=end,
            tokens=codes.tokens,
            losses=codes.losses,
            statistics=codes.statistics,
            dense=codes.dense and not missing,
        )


def compression_ratio(tokens: Tensor, codes: Tensor) -> Tensor:
    """Tokens over codes; infinite where there are no codes."""
    return torch.where(codes > 0, tokens / codes, torch.inf)


def _added(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: sum(d[name] for d in (one, other) if name in d) for name in {**one, **other}}  # type: ignore[misc]


@record
class Chunks(Record):
    """Codes cut into chunks of one length.

    Args:
        values: ``(batch, chunks, chunk_length, dim)``, zero behind each chunk's length.
        lengths: ``(batch, chunks)``, codes in each chunk.
        position, support: ``(batch, chunks, chunk_length)``, of every code, in tokens.
        end: ``(batch, chunks)``, tokens that had to be read before the chunk was complete; ``NEVER`` if it is not.
        tokens: ``(batch,)``.
        losses, statistics: as in :class:`Codes`.
        dense: known without looking: every chunk is complete.
    """

    values: Tensor
    lengths: Tensor
    position: Tensor
    support: Tensor
    end: Tensor
    tokens: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    dense: bool = False

    static: ClassVar[tuple[str, ...]] = ("dense",)

    def __post_init__(self) -> None:
        if self.values.ndim != 4:
            raise ValueError(
                f"Chunks: values has shape {tuple(self.values.shape)}, expected (batch, chunks, chunk_length, dim)"
            )
        shape = tuple(self.values.shape)
        for name, expected in (("lengths", 2), ("end", 2), ("position", 3), ("support", 3), ("tokens", 1)):
            check_shape("Chunks", name, getattr(self, name), shape[:expected])

    @property
    def mask(self) -> Tensor:
        """``(batch, chunks, chunk_length)``: which places hold a code."""
        return torch.arange(self.values.shape[-2], device=self.values.device) < self.lengths[..., None]

    def codes(
        self,
        values: Tensor,
        *,
        mask: Tensor,
        position: Tensor,
        support: Tensor,
        frequency: Tensor,
        level: Tensor,
        index: Tensor,
        losses: dict[str, Tensor] | None = None,
        statistics: dict[str, Tensor] | None = None,
    ) -> Codes:
        """What a compressor made of these chunks, as :class:`Codes` measured in tokens.

        Args:
            values: ``(batch, chunks, slots, dim)``.
            mask, position, support, frequency, level, index: ``(batch, chunks, slots)`` or broadcast to it, measured in
                places of the chunk: place 0 is its first code.
            losses: join those that came with the chunks; those of one name add up.
            statistics: of this compressor; ``places`` and ``kept``, codes in and out of each chunk, are added.
        """
        shape = values.shape[:-1]
        chunks = shape[1]
        place = position.expand(shape).clamp(min=0).minimum((self.lengths[..., None] - 1).clamp(min=0))
        before = place.floor().long()
        after = place.ceil().long()
        # between two places lies the point between their positions
        at_before, at_after = self.position.gather(-1, before), self.position.gather(-1, after)
        stride = self.support.sum(-1, keepdim=True) / self.lengths[..., None].clamp(min=1)
        ids = torch.arange(chunks, device=values.device)[:, None]

        def flat(x: Tensor) -> Tensor:
            return x.expand(shape).flatten(1, 2)

        return Codes(
            values=torch.where(mask[..., None], values, 0).flatten(1, 2),
            mask=flat(mask),
            position=flat(at_before + (place - before) * (at_after - at_before)),
            support=flat(support * stride),
            frequency=flat(frequency / stride.clamp(min=1)),
            level=flat(level + stride.clamp(min=1).log2().round().long()),
            chunk=flat(ids),
            index=flat(index),
            end=flat(self.end[..., None]),
            until=torch.full_like(flat(ids), NEVER),
            tokens=self.tokens,
            losses=_added(self.losses, losses or {}),
            statistics={
                "places": self.lengths,
                "kept": mask.expand(shape).sum(-1),
                **(statistics or {}),
            },
        )
