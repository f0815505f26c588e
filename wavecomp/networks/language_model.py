"""The language model: codes of the past, a local decoder, next-token logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.files import Pretrained
from wavecomp.networks.chunk import check_codes
from wavecomp.networks.chunk_reduce import ChunkReduce
from wavecomp.networks.embedding import check_places, check_tokens, embed_tokens
from wavecomp.networks.generation import Sampler, generate, stream


class ChunkReduceLM(Pretrained):
    """Causal language model whose distant past is codes: ``logits[:, t]`` predicts token t from tokens before t.

    Args:
        embedding: a module from tokens ``(batch, length)`` to ``(batch, length, dim)``, one token at a time.
        body: Codes to Codes, with attributes ``causal`` and ``chunk_length``.
        decoder: a module that is called with embeddings and codes and whose state at t has read tokens before t.
        head: a module from ``(batch, length, dim)`` to ``(batch, length, vocabulary)``.

    Raises:
        ValueError: a body that is not causal, or a decoder whose ``period`` is another than its chunk length.
    """

    def __init__(self, *, embedding: nn.Module, body: ChunkReduce, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name in ("causal", "chunk_length"):
            if not hasattr(body, name):
                raise TypeError(f"body {type(body).__name__} has no {name}; allowed: ChunkReduce, or what has both")
        _check_causal(body)
        period = getattr(decoder, "period", None)
        if period not in (None, body.chunk_length):
            raise ValueError(
                f"decoder has period={period}, but chunks are {body.chunk_length} long; allowed: "
                f"period={body.chunk_length} or None"
            )
        self.embedding = embedding
        self.body = body
        self.decoder = decoder
        self.head = head

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        *,
        codes: Codes | Literal["hidden"] | None = None,
        start: int = 0,
    ) -> Tensor:
        """Next-token logits.

        Args:
            tokens: ``(batch, length)`` int64.
            lengths: ``(batch,)``, tokens in each row; all unless given. What lies behind them is not read.
            codes: the past as codes, if :meth:`context` or :meth:`encode` made them already; ``"hidden"`` to
                predict without.
            start: the place of the first token given. Where it is not 0 the codes must be given, and logits are those
                of the whole sequence from ``decoder.reach`` places behind it on.

        Returns:
            ``(batch, length, vocabulary)``; behind a row's length they have no meaning.

        Raises:
            ValueError: shapes that do not fit, or lengths beyond the tensor (values are checked on the CPU only).
        """
        if isinstance(codes, str) and codes != "hidden":
            raise ValueError(f"codes={codes!r} is unknown; allowed: Codes, 'hidden' or None")
        if start and codes is None:
            raise ValueError(f"start={start} skips tokens that codes are made of; give codes")
        embedded = embed_tokens(self.embedding, tokens, lengths)
        if codes is None:
            codes = self.context(tokens, lengths)
        elif isinstance(codes, str):
            codes = embedded.part(0, 0)
        elif len(codes.values) != len(tokens):
            raise ValueError(f"codes are of {len(codes.values)} rows, tokens of {len(tokens)}; allowed: as many")
        else:
            codes = codes.replace(values=codes.values.to(embedded.values.dtype))
        states = self.decoder(embedded.values, codes, **({"start": start} if start else {}))
        return self.head(states if start else check_places("decoder", self.decoder, states, tokens))

    if TYPE_CHECKING:
        __call__ = forward

    def encode(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes of all tokens, those of a short last chunk included (which no prediction sees).

        Raises:
            ValueError: a body that is no longer causal; and as :meth:`forward`.
        """
        if not torch.compiler.is_compiling():  # a part may have been put into the place of another
            _check_causal(self.body)
        return check_codes("body", self.body, self.body(embed_tokens(self.embedding, tokens, lengths)))

    def context(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes that a prediction within these rows can see: those of :meth:`before_last`."""
        return self.encode(*self.before_last(tokens, lengths))

    def before_last(self, tokens: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The chunks that end before the last token, ``(batch, shorter length)``, and how much of them rows fill."""
        check_tokens(tokens, lengths)
        length = max(tokens.shape[1] - 1, 0) // self.body.chunk_length * self.body.chunk_length
        return tokens[:, :length], None if lengths is None else lengths.clamp(max=length)

    def generate(
        self,
        prompt: Tensor,
        lengths: Tensor | None = None,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        codes: Codes | None = None,
    ) -> Tensor:
        """Continue a prompt by sampling. What was read once is not read again. Put the model into eval mode.

        Args:
            prompt: ``(batch, length)`` int64; may be empty.
            lengths: ``(batch,)``, tokens in each row; all unless given.
            max_new_tokens: how many tokens to add.
            temperature: divides the logits; 0 takes the likeliest token.
            top_k: sample among this many likeliest tokens; all unless given.
            top_p: then among the likeliest that together have this probability; all unless given.
            generator: of the random numbers; torch's own unless given.
            codes: of a text that lies before the prompt, such as :func:`wavecomp.load_codes` gives. The text itself is
                not needed: the prompt and what follows are read from codes, and the raw window begins with the prompt.

        Returns:
            ``(batch, length + max_new_tokens)``, prompt included; new tokens follow each row's own prompt, then zeros.

        Raises:
            ValueError: a negative count or temperature, a top_k below 1, a top_p that is not above 0 and up to 1,
                shapes that do not fit, codes of other rows, or beside lengths, or for parts that have no steps.
        """
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        return generate(self, prompt, lengths, max_new_tokens=max_new_tokens, sampler=sampler, codes=codes)

    def stream(
        self,
        prompt: Tensor,
        lengths: Tensor | None = None,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        codes: Codes | None = None,
    ) -> Iterator[Tensor]:
        """The new tokens of :meth:`generate` one by one as they come, ``(batch,)`` each."""
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        return stream(self, prompt, lengths, max_new_tokens=max_new_tokens, sampler=sampler, codes=codes)


def _check_causal(body: ChunkReduce) -> None:
    if not body.causal:
        raise ValueError(_who_is_not_causal(body))


def _who_is_not_causal(body: nn.Module) -> str:
    """The innermost module that says that it is not, or the part of a ChunkReduce that says nothing."""
    *_, innermost = [module for module in body.modules() if not getattr(module, "causal", True)] or [body]
    silent = getattr(innermost, "reduce_network", innermost)
    if silent is not innermost and not hasattr(silent, "causal"):
        return (
            f"body.reduce_network {type(silent).__name__} does not say whether it is causal; allowed: ReduceNetwork, "
            "ReduceAdapter(network=..., causal=True), or what has causal=True"
        )
    return (
        f"body holds a {type(innermost).__name__}, which is not causal or does not say; "
        "allowed: modules whose attribute causal is True"
    )
