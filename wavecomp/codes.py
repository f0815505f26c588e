"""Codes: a sequence of vectors that stand for tokens; Chunks: the same, cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from wavecomp.pace import LONGEST_OVERLAP, NEVER, Pace, slots_before, slots_between
from wavecomp.records import Record, check_count, check_lengths, check_shape, record


@record
class Codes(Record):
    """A sequence of codes, whoever made it: an embedding, a wavelet, a pool, a second stage.

    A prediction of token t may use a code only if ``end <= t < until`` (:meth:`visible`). Codes lie in order of
    ``end``, so by chunk; inside a chunk as the compressor has them: from coarse to fine and by position inside a band,
    or, where each stands for a place of its own, from left to right.

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
        pace: known without looking: how the codes of each stage that is here come and go; empty if that is not known.
        first: slots of the same sequence that lie before these.
        prefix: known without looking: the codes of each row fill its first slots.
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
    pace: tuple[Pace, ...] = ()
    first: int = 0
    prefix: bool = False

    static: ClassVar[tuple[str, ...]] = ("dense", "pace", "first", "prefix")
    measures: ClassVar[tuple[str, ...]] = ("position", "support", "frequency", "statistics")
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

    @classmethod
    def restored(cls, context: Any) -> tuple[Any, ...]:
        known = dict(zip(cls.static, super().restored(context)))
        return tuple((known | {"pace": tuple(Pace(*pace) for pace in known["pace"])}).values())

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
            position=_exact(start + place),
            support=torch.ones_like(place, dtype=torch.float32),
            frequency=torch.full_like(place, 0.25, dtype=torch.float32),
            level=torch.zeros_like(place),
            chunk=torch.zeros_like(place),
            index=place,
            end=torch.where(mask, start + place + 1, NEVER),
            until=torch.full_like(place, NEVER),
            tokens=tokens,
            dense=lengths is None,
            pace=(Pace(1, 1),),
            first=start,
            prefix=True,
        )

    @property
    def ratio(self) -> Tensor:
        """Compression ratio, tokens over codes, sum over sum; infinite where there are no codes."""
        return compression_ratio(self.tokens.sum(), self.mask.sum())

    def replace(self, **changes: Any) -> Codes:
        """A copy with some fields changed.

        What was known without looking is forgotten, unless it is given: with another ``mask`` ``dense`` and ``prefix``,
        with another ``until`` how long codes stay, with another ``end`` all of ``pace``.
        """
        known: dict[str, Any] = {"dense": False, "prefix": False} if "mask" in changes else {}
        if "until" in changes:
            known["pace"] = tuple(pace._replace(stay=NEVER) for pace in self.pace)
        if "end" in changes:
            known["pace"] = ()
        return super().replace(**known | changes)

    def visible(self, token: Tensor, slots: int | Tensor | None = None) -> Tensor:
        """The rule of ``end``: which codes a prediction of these tokens may use.

        Args:
            token: ``(length,)`` or ``(batch, length)``, the places of the predicted tokens.
            slots: look at so many first slots only, or at these; at all unless given.

        Returns:
            ``(batch, length, slots)``.
        """
        token = token.expand(self.values.shape[0], -1)[..., None]
        rule = (self.mask, self.end, self.until)
        looked_at = (x[:, slots] if isinstance(slots, Tensor) else x[:, :slots] for x in rule)
        mask, end, until = (x[:, None] for x in looked_at)
        return mask & (end <= token) & (token < until)

    def seen(self, token: Tensor) -> Tensor:
        """How many codes :meth:`visible` says that each of these tokens may use, without a mask of all of them.

        Args:
            token: ``(length,)``, the places of the predicted tokens.

        Returns:
            ``(batch, length)``.
        """
        token = token.expand(len(self.values), -1).contiguous()
        # those that have come to exist less those that were replaced
        came, went = (
            torch.searchsorted(torch.where(self.mask, at, NEVER).sort(dim=-1).values, token, right=True)
            for at in (self.end, self.until)
        )
        return came - went

    def hidden(self) -> Codes:
        """The same slots, all empty: what a model sees that is to do without its codes."""
        return self.replace(mask=torch.zeros_like(self.mask))

    def slots_for(self, first: int, last: int) -> int | Tensor:
        """Where all codes lie that predictions of the tokens from ``first`` to ``last`` may use, without looking.

        Returns:
            So many first slots, or ``(slots,)``, which: fewer, where coarser codes stand in for most of the finer ones.
        """
        slots = self.values.shape[1]
        if not self.pace:
            return slots
        before = slots_before(self.pace, last) - self.first
        if self.first or before > slots or all(pace.stay >= first for pace in self.pace):
            return min(slots, max(before, 0))
        return slots_between(self.pace, first, last, device=self.values.device)

    def pack(self) -> tuple[Tensor, Tensor]:
        """The codes of all rows one after another, for kernels on variable lengths. Waits for the device.

        Returns:
            ``(codes, dim)`` and ``cu_seqlens (batch + 1,)``, where each row starts.
        """
        counts = self.mask.sum(-1)
        return self.values[self.mask], F.pad(counts.cumsum(0), (1, 0)).int()

    def cut(self, chunk_length: int) -> Chunks:
        """Cut the slots into chunks. Inside a chunk the codes move to the front, and empty slots behind them.

        The last chunk of each row may be short; it never exists for a causal reader.

        Raises:
            ValueError: a chunk length below 1.
        """
        check_count("chunk_length", chunk_length)
        batch, slots, dim = self.values.shape
        chunks = -(-slots // chunk_length)
        missing = chunks * chunk_length - slots

        def shaped(x: Tensor) -> Tensor:
            return F.pad(x, (0, missing)).view(batch, chunks, chunk_length)

        values = F.pad(self.values, (0, 0, 0, missing)).view(batch, chunks, chunk_length, dim)
        mask, position, support = shaped(self.mask), shaped(self.position), shaped(self.support)
        if not self.dense:
            order = codes_first(mask)
            values = values.gather(-2, order[..., None].expand_as(values))
            mask, position, support = (x.gather(-1, order) for x in (mask, position, support))
        end = torch.cat([self.end, self.end.new_full((batch, missing), NEVER)], dim=1)
        span, count, _ = self.pace[0] if len(self.pace) == 1 else Pace(0, 1)
        return Chunks(
            values=values,
            lengths=mask.sum(-1),
            position=position,
            support=support * mask,
            end=end.view_as(mask).amax(-1),
            tokens=self.tokens,
            losses=self.losses,
            statistics=self.statistics,
            dense=self.dense and not missing,
            span=0 if chunk_length % count or self.first % chunk_length else span * chunk_length // count,
            first=self.first // chunk_length,
            ragged=not (self.dense or self.prefix),
        )

    def replaced_after(self, span: int, overlap: int = 0) -> Codes:
        """The same codes of one stage, with ``until``: coarser ones stand in for them every ``span`` tokens.

        Args:
            span: tokens per chunk of the coarser stage, a multiple of those of this one.
            overlap: tokens that they stay beside the coarser ones.

        Raises:
            ValueError: codes of several stages or of an unknown one, a span that does not fit, or a negative overlap.
        """
        check_count("overlap", overlap, least=0)
        if len(self.pace) != 1 or span < 1 or span % self.pace[0].span:
            raise ValueError(f"span={span} does not go with codes of pace={self.pace}; allowed: one stage, a multiple")
        own = self.pace[0].span
        per = span // own
        overlap = min(overlap, LONGEST_OVERLAP)
        until = self.end + (per - 1 - self.chunk % per) * own + overlap
        pace = self.pace[0]._replace(stay=span - own + overlap)
        return self.replace(until=torch.where(self.end == NEVER, NEVER, until), pace=(pace,))

    def part(self, first: int, last: int) -> Codes:
        """The slots from ``first`` up to ``last``, counted among these; ``tokens`` stays what it is."""
        part = self._per_slot(lambda x: x[:, first:last])
        return part.replace(dense=self.dense, prefix=self.prefix, first=self.first + first)

    @staticmethod
    def join(parts: Sequence[Codes]) -> Codes:
        """The codes of consecutive stretches of one sequence, as a stream gives them.

        ``tokens`` are those of all, and so are statistics ``(batch, chunks, ...)``; losses, and statistics of another
        kind, are those of the last part.

        Example:
            >>> parts = [wc.Codes.from_tokens(torch.randn(1, 3, 8), start=start) for start in (0, 3)]
            >>> wc.Codes.join(parts).tokens
            tensor([6])
        """
        found: dict[str, list[Tensor]] = {}
        for part in parts:
            for name, value in part.statistics.items():
                found.setdefault(name, []).append(value)
        statistics = {name: torch.cat(each, dim=1) if each[0].ndim > 1 else each[-1] for name, each in found.items()}
        tokens = torch.stack([part.tokens for part in parts]).sum(0)
        return Codes.cat(parts).replace(tokens=tokens, statistics=statistics)

    @staticmethod
    def cat(parts: Sequence[Codes]) -> Codes:
        """The slots of several one after another; ``tokens``, losses and statistics are those of the last."""
        filled = [codes for codes in parts if codes.values.shape[1]] or list(parts)
        paces = {codes.pace for codes in filled}
        return parts[-1].replace(
            **{
                name: torch.cat([getattr(codes, name) for codes in parts], dim=1)
                for name in ("values", *Codes.per_slot)
            },
            dense=all(codes.dense for codes in parts),
            pace=paces.pop() if len(paces) == 1 else (),
            first=filled[0].first,
        )

    @staticmethod
    def merge(stages: Sequence[Codes]) -> Codes:
        """The codes of several stages in one sequence, in order of ``end``; losses and statistics of the last one.

        Behind them lie slots that will never hold a code, so that a row has its codes in the same slots in any batch.
        """
        if len(stages) == 1:
            return stages[0]
        joined = Codes.cat(stages)
        # how many slots lie behind the end of a row depends on the longest one: they come last
        order = (joined.end - (joined.mask & (joined.end == NEVER)).long()).argsort(dim=1, stable=True)
        known = all(codes.pace for codes in stages)
        pace = tuple(pace for codes in stages for pace in codes.pace) if known else ()
        first = sum(codes.first for codes in stages)
        return joined._per_slot(lambda x: _taken(x, order)).replace(pace=pace, first=first)

    def _per_slot(self, change: Callable[[Tensor], Tensor]) -> Codes:
        fields = {name: change(getattr(self, name)) for name in ("values", *self.per_slot)}
        return self.replace(**fields, dense=self.dense, pace=self.pace)


def _exact(place: Tensor) -> Tensor:
    """Places as real numbers, to the last digit: of fp32 a million tokens leave a sixteenth. MPS has no fp64."""
    return place.float() if place.device.type == "mps" else place.double()


def codes_first(mask: Tensor) -> Tensor:
    """``(..., slots)``: the slots that hold a code, in the order that they have, and then the empty ones."""
    return (~mask).int().argsort(dim=-1, stable=True)


def compression_ratio(tokens: Tensor, codes: Tensor) -> Tensor:
    """Tokens over codes; infinite where there are no codes."""
    return torch.where(codes > 0, tokens / codes, torch.inf)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order if x.ndim == 2 else order[..., None].expand_as(x))


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
        span: known without looking: tokens that a complete chunk stands for; 0 if that is not known.
        first: chunks of the same sequence that lie before these.
        ragged: known without looking: chunks other than the last of a row may be short.
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
    span: int = 0
    first: int = 0
    ragged: bool = False

    static: ClassVar[tuple[str, ...]] = ("dense", "span", "first", "ragged")
    measures: ClassVar[tuple[str, ...]] = ("position", "support", "statistics")

    def __post_init__(self) -> None:
        if self.values.ndim != 4:
            raise ValueError(
                f"Chunks: values has shape {tuple(self.values.shape)}, expected (batch, chunks, chunk_length, dim)"
            )
        shape = tuple(self.values.shape)
        for name, expected in (("lengths", 2), ("end", 2), ("position", 3), ("support", 3), ("tokens", 1)):
            check_shape("Chunks", name, getattr(self, name), shape[:expected])

    def replace(self, **changes: Any) -> Chunks:
        """A copy with some fields changed; with other ``lengths`` nothing is known of them, unless it is given."""
        return super().replace(**({"dense": False, "ragged": True} if "lengths" in changes else {}) | changes)

    @property
    def mask(self) -> Tensor:
        """``(batch, chunks, chunk_length)``: which places hold a code."""
        return torch.arange(self.values.shape[-2], device=self.values.device) < self.lengths[..., None]

    @property
    def stride(self) -> Tensor:
        """``(batch, chunks, 1)``: tokens that a place stands for, on average: all that are covered, each once."""
        half = self.support / 2
        first = torch.where(self.mask, self.position - half, torch.inf).amin(-1, keepdim=True)
        last = torch.where(self.mask, self.position + half, -torch.inf).amax(-1, keepdim=True)
        # codes of several levels lie over one another, and others may leave something out
        covered = self.support.sum(-1, keepdim=True).minimum((last - first).clamp(min=0).to(self.support.dtype))
        return covered / self.lengths[..., None].clamp(min=1)

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
        stride = self.stride
        ids = self.first + torch.arange(chunks, device=values.device)[:, None]

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
            pace=(Pace(self.span, shape[-1]),) if self.span else (),
            first=self.first * shape[-1],
        )
