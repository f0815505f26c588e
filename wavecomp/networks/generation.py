"""Generation, token by token: what was read once is not read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Codes
from wavecomp.networks.decoder import DecoderState, LocalDecoder
from wavecomp.networks.memory import CodeMemory
from wavecomp.networks.streaming import StreamingEncoder
from wavecomp.pace import LONGEST_OVERLAP, NEVER
from wavecomp.records import check_count, check_lengths, check_type


class Reader(Protocol):
    """Reads a text on, and says what comes next."""

    def read(self, tokens: Tensor) -> Tensor:
        """Further tokens ``(batch, length)``, maybe none at first, to logits of the next, ``(batch, vocabulary)``."""


class StepReader:
    """Reads each token once: the decoder keeps its raw window, chunks become codes as they end.

    Of a prompt the decoder reads the last ``reach`` tokens only; what lies before is there as codes.

    Args:
        model: as :func:`reader` takes it, with a :class:`LocalDecoder` and a Reduce-Network that has ``step``.
        before: codes of a text that lies before all that is read. The text itself is not there: nothing of it is in
            the raw window, and further codes read one another only.
    """

    def __init__(self, model: Any, before: Codes | None = None) -> None:
        self.model = model
        self.before = before
        self.start = 0
        if before is not None:
            # whole chunks in every stage from here on; parts of a stream may say less of what was read than its codes
            read = int(_read_by(before).amax()) if len(before.tokens) else 0
            self.start = -(-read // model.body.spans[-1]) * model.body.spans[-1]
        self.encoder = StreamingEncoder(model, start=self.start)
        self.chunk_length: int = model.body.chunk_length
        self.count = self.start
        self.waiting: Tensor | None = None
        self.state: DecoderState | None = None

    def read(self, tokens: Tensor) -> Tensor:
        """See :class:`Reader`."""
        decoder: LocalDecoder = self.model.decoder
        known, last = self.count, self.count + tokens.shape[1]
        if self.state is None:
            self.memory = CodeMemory(decoder, len(tokens))
            if self.before is not None:
                self.memory.update(for_ever(self.before, self.model.body.overlap), self.start, self.chunk_length)
            place = max(last - decoder.reach, self.start)
        else:
            place = self.state.place
        self.count = last
        self.waiting = tokens if self.waiting is None else torch.cat([self.waiting, tokens], dim=1)
        while place <= last:
            # places up to the next edge see the same codes
            edge = place // self.chunk_length * self.chunk_length
            self._encode(edge)
            behind = min(edge + self.chunk_length, last + 1)
            first = place if self.state is None else place - 1
            embedded = self.model.embedding(tokens[:, first - known : behind - 1 - known])
            states, self.state = decoder.step(embedded, self.memory.read, self.state, start=place)
            place = behind
        return self.model.head(states[:, -1:])[:, 0]

    def _encode(self, edge: int) -> None:
        """Make the codes of what lies before an edge."""
        count = edge - self.encoder.tokens
        if count and self.waiting is not None:
            codes = self.encoder.feed(self.waiting[:, :count])
            self.waiting = self.waiting[:, count:].clone()
            self.memory.update(codes, edge, self.chunk_length)


class WholeReader:
    """Reads everything again for each token: the slow truth, and the way for parts that have no ``step``.

    Args:
        model: tokens ``(batch, length)`` to logits whose place t predicts token t from the tokens before it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tokens: Tensor | None = None

    def read(self, tokens: Tensor) -> Tensor:
        """See :class:`Reader`."""
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], dim=1)
        # the token to be predicted has a place of its own, whatever stands there
        return self.model(F.pad(self.tokens, (0, 1)))[:, -1]


def reader(model: nn.Module, before: Codes | None = None) -> Reader:
    """How this model is read token by token: in steps, if its parts can.

    Args:
        before: codes of a text that lies before all that is read; see :class:`StepReader`.

    Raises:
        ValueError: codes, and parts that have no steps.
    """
    reduce_network = getattr(model.body, "reduce_network", None)
    # a compiled decoder is no LocalDecoder, and has what it has
    needed = ((model.decoder, "step"), (model.decoder, "reach"), (model.body, "step"), (reduce_network, "step"))
    if all(hasattr(part, name) for part, name in needed) and _fills_pooling(model.body):
        return StepReader(model, before)
    if before is not None:
        if not _fills_pooling(model.body):
            raise ValueError(
                "codes go with an input_pooling that each chunk's slots fill; that of the model they do not"
            )
        second = model.body if reduce_network is None else reduce_network
        parts = f"{type(model.decoder).__name__} and {type(second).__name__}"
        raise ValueError(f"codes go with a LocalDecoder and a Reduce-Network that has step; the model has {parts}")
    return WholeReader(model)


def _fills_pooling(body: Any) -> bool:
    """Whether what each stage brings at once fills the chunks of a Reduce-Network's pooling, if there is one."""
    pooling = getattr(getattr(body, "reduce_network", None), "input_pooling", None)
    if pooling is None:
        return True
    length = getattr(pooling, "chunk_length", None)
    return length is not None and all(network.capacity % length == 0 for network in body.chunk_networks)


def for_ever(codes: Codes, overlap: int) -> Codes:
    """The codes of whole chunks of a text that has ended: those that no others came to stand in for stay.

    Args:
        overlap: tokens that codes stay beside those that stand in for them.
    """
    ended = _read_by(codes)[:, None] + min(overlap, LONGEST_OVERLAP)
    until = torch.where(codes.until > ended, NEVER, codes.until)
    return codes.replace(until=until, mask=codes.mask & (codes.end < NEVER))


def _read_by(codes: Codes) -> Tensor:
    """``(batch,)``: tokens that were read when the last code came to exist, or that are said to have been."""
    if not codes.values.shape[1]:
        return codes.tokens
    return codes.tokens.maximum(torch.where(codes.mask & (codes.end < NEVER), codes.end, 0).amax(-1))


class Sampler:
    """Draws tokens from logits ``(batch, vocabulary)``.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample among this many likeliest tokens; all unless given.
        top_p: then among the likeliest that together have this probability; all unless given.
        generator: of the random numbers; torch's own unless given.

    Raises:
        ValueError: a negative temperature, a top_k below 1, a top_p that is not above 0 and up to 1.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature} is out of range; allowed: 0 (the likeliest token) and above")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k} is too small; allowed: 1 and above, or None")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p={top_p} is out of range; allowed: above 0 and up to 1, or None")
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.generator = generator

    def __call__(self, logits: Tensor) -> Tensor:
        """``(batch,)``."""
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits.float()
        # the likeliest stays finite, and of one that is impossible nothing is left at any temperature
        logits = logits - logits.amax(-1, keepdim=True)
        logits = torch.where(logits > -torch.inf, logits / max(self.temperature, 1e-30), -torch.inf)
        if self.top_k is not None:
            found = logits.topk(min(self.top_k, logits.shape[-1]))
            logits = torch.full_like(logits, -torch.inf).scatter(-1, found.indices, found.values)
        chances = logits.softmax(-1)
        if self.top_p is not None:
            chances = nucleus(chances, self.top_p)
        return torch.multinomial(chances, 1, generator=self.generator)[:, 0]


def nucleus(chances: Tensor, share: float) -> Tensor:
    """The fewest likeliest of ``chances (batch, vocabulary)`` that together reach a share; 0 for the rest.

    Example:
        >>> nucleus(torch.tensor([[0.2, 0.5, 0.3]]), 0.6)
        tensor([[0.0000, 0.5000, 0.3000]])
    """
    ordered, order = chances.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(chances).scatter(-1, order, torch.where(before < share, ordered, 0))


def generate(
    model: nn.Module,
    prompt: Tensor,
    lengths: Tensor | None,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    codes: Codes | None = None,
) -> Tensor:
    """See :meth:`wavecomp.ChunkReduceLM.generate`."""
    steps = list(stream(model, prompt, lengths, max_new_tokens=max_new_tokens, sampler=sampler, codes=codes))
    new = torch.stack(steps, dim=1) if steps else prompt[:, :0]
    if lengths is None:
        return torch.cat([prompt, new], dim=1)
    place = torch.arange(prompt.shape[1], device=prompt.device)
    whole = F.pad(torch.where(place < lengths[:, None], prompt, 0), (0, max_new_tokens)).to(new.dtype)
    return whole.scatter(1, lengths[:, None] + torch.arange(max_new_tokens, device=prompt.device), new)


def stream(
    model: nn.Module,
    prompt: Tensor,
    lengths: Tensor | None,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    codes: Codes | None = None,
) -> Iterator[Tensor]:
    """See :meth:`wavecomp.ChunkReduceLM.stream`. Bad arguments raise here, not at the first token."""
    check_count("max_new_tokens", max_new_tokens, least=0)
    check_type("prompt", prompt, Tensor, hint=" (batch, length) of int64")
    if prompt.ndim != 2:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}, expected (batch, length)")
    if prompt.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"prompt is of {prompt.dtype}; allowed: torch.int64 or torch.int32")
    if lengths is not None:
        check_lengths("generate", lengths, tuple(prompt.shape[:1]), prompt.shape[1])
    if codes is not None and (lengths is not None or len(codes.values) != len(prompt)):
        raise ValueError(
            f"codes of {len(codes.values)} rows do not go with a prompt of {len(prompt)}"
            f"{'' if lengths is None else ' and lengths'}; allowed: as many, and no lengths"
        )
    codes = None if codes is None else codes.to(prompt.device, next(model.parameters()).dtype)
    groups = rows_of_one_length(prompt, lengths)
    return _stream([reader(model, codes) for _ in groups], groups, max_new_tokens, sampler)


@torch.no_grad()
def _stream(
    readers: Sequence[Reader], groups: Sequence[tuple[Tensor, Tensor]], count: int, sampler: Sampler
) -> Iterator[Tensor]:
    """Tokens of all rows, in the order that these have in the prompt."""
    places = torch.cat([rows for rows, _ in groups]).argsort()
    further = [text for _, text in groups]
    for _ in range(count):
        logits = torch.cat([one.read(text) for one, text in zip(readers, further)])[places]
        tokens = sampler(logits)
        yield tokens
        further = [tokens[rows][:, None] for rows, _ in groups]


def rows_of_one_length(tokens: Tensor, lengths: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Ragged rows in groups: which rows each is of, ``(rows,)``, and their tokens, ``(rows, length)``.

    Example:
        >>> rows_of_one_length(torch.arange(6).view(3, 2), torch.tensor([2, 1, 2]))
        [(tensor([0, 2]), tensor([[0, 1],
                [4, 5]])), (tensor([1]), tensor([[2]]))]
    """
    if lengths is None or not len(tokens):
        return [(torch.arange(len(tokens), device=tokens.device), tokens)]
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(int(length), []).append(row)
    indices = {length: torch.tensor(rows, device=tokens.device) for length, rows in groups.items()}
    return [(rows, tokens[rows, :length]) for length, rows in indices.items()]
