"""Training of language models with Lightning."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

from wavecomp.codes import Codes
from wavecomp.metrics import BitsPerByte, CompressionRatio, ContextGain, ExactMean, bytes_of
from wavecomp.networks import ChunkDecoder, ChunkReduceLM
from wavecomp.networks.embedding import embed_tokens
from wavecomp.training.data import Batch, SampleDataModule
from wavecomp.training.optimisation import CompressionModule, check_share, mean_of, real_places, surprise
from wavecomp.training.steps import reader_of


class LanguageModelModule(CompressionModule):
    """Trains a language model on next bytes, or on the answers of a task, with AdamW, warm-up and a cosine.

    Logs ``bits_per_byte``, ``compression_ratio``, ``context_gain`` and, where a batch marks answers, ``answer_bits``
    and ``answer_accuracy``, under ``val/`` and ``test/``, and all but the context gain under ``train/``. Where a batch
    marks answers, the context gain is theirs. ``loss`` is what is trained on, in bits: the answers where there are
    any, all bytes otherwise.

    With a ``reconstruction``, the codes of complete chunks are also to give back their own tokens, as those of an
    autoencoder are: the codes of the last stage as its Chunk-Network made them, for what is lost there no
    Reduce-Network brings back. How far they do is logged as ``reconstruction_bits``, and is no part of ``loss``.

    Args:
        model: predicts token t from the tokens before it.
        hidden_share: share of the training rows whose codes are hidden. A model that has always seen its codes is
            lost without them, and its context gain would be flattered.
        reconstruction: from codes that are expanded to one per token to logits of these, or ``None`` to ask nothing
            of the kind.
        reconstruction_weight: how much its bits count beside those of the predictions, in training.
        settings: rate, decay and warm-up, as in :class:`CompressionModule`.

    Raises:
        ValueError: a share outside 0 to 1, a weight that is not positive, and what :class:`CompressionModule` refuses.
    """

    shown = ("bits_per_byte", "context_gain", "answer_bits")

    def __init__(
        self,
        *,
        model: ChunkReduceLM,
        hidden_share: float = 0.0625,
        reconstruction: ChunkDecoder | None = None,
        reconstruction_weight: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(model=model, **settings)
        check_share("hidden_share", hidden_share)
        if reconstruction_weight <= 0:
            raise ValueError(f"reconstruction_weight={reconstruction_weight} is out of range; allowed: above 0")
        self.hidden_share = hidden_share
        self.reconstruction = reconstruction
        self.reconstruction_weight = reconstruction_weight

    def metrics(self) -> dict[str, Metric]:
        return {
            "loss": BitsPerByte(),
            "bits_per_byte": BitsPerByte(),
            "context_gain": ContextGain(),
            "compression_ratio": CompressionRatio(),
            "answer_bits": BitsPerByte(),
            "answer_bits_hidden": BitsPerByte(),
            "answer_accuracy": ExactMean(),
            "reconstruction_bits": BitsPerByte(),
        }

    def check_data(self, data: L.LightningDataModule | None) -> None:
        """Besides, that every stage has something to do.

        Raises:
            ValueError: a stage whose chunks are longer than the samples.
        """
        super().check_data(data)
        if not isinstance(data, SampleDataModule):
            return
        samples: Any = data.validation_set()
        body, lengths = self.model.body, [0]
        for stage, span in enumerate(getattr(body, "spans", (body.chunk_length,))):
            while max(lengths) <= span:
                if len(lengths) > len(samples):
                    raise ValueError(
                        f"chunk_networks[{stage}] reads chunks of {span} tokens, the longest validation sample has "
                        f"{max(lengths)}: no token would see its codes; allowed: below {max(lengths)}"
                    )
                lengths.append(len(samples[len(lengths) - 1].tokens))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        codes, read_back = self._context(batch)
        hidden = self._hidden_rows(codes)
        nats, right = self._read(batch, codes.replace(mask=codes.mask & ~hidden))
        asked, valid = self._asked(batch), real_places(batch)
        # figures are of rows that see their codes, unless none does
        shown = ~hidden | hidden.all()
        loss = mean_of(nats, asked) + sum(codes.losses.values())
        seen = valid & shown
        read = bytes_of(seen, batch.get("bytes")).clamp(min=1)
        figures = {"bits_per_byte": torch.where(seen, nats.detach(), 0).sum() / read / math.log(2)}
        if batch.get("answers") is not None:
            figures["answer_bits"] = mean_of(nats.detach(), asked & shown) / math.log(2)
            figures["answer_accuracy"] = mean_of(right.float(), asked & shown)
        if read_back is not None:
            lost = mean_of(*read_back)
            loss = loss + self.reconstruction_weight * lost
            figures["reconstruction_bits"] = lost.detach() / math.log(2)
        self.log_step(codes, figures)
        return loss

    def evaluate(self, batch: Batch, metrics: dict[str, Any]) -> list[str]:
        codes, read_back = self._context(batch)
        nats, right = self._read(batch, codes)
        hidden, _ = self._read(batch, codes.hidden())
        valid, asked = real_places(batch), self._asked(batch)
        metrics["loss"].update(nats, asked)
        metrics["bits_per_byte"].update(nats, valid, batch.get("bytes"))
        metrics["context_gain"].update(nats, hidden, asked, batch.get("bytes"))
        metrics["compression_ratio"].update(codes)
        names = ["loss", "bits_per_byte", "context_gain", "compression_ratio"]
        if batch.get("answers") is not None:
            metrics["answer_bits"].update(nats, asked)
            metrics["answer_bits_hidden"].update(hidden, asked)
            metrics["answer_accuracy"].update(right.float(), asked.float())
            names += ["answer_bits", "answer_bits_hidden", "answer_accuracy"]
        if read_back is not None:
            metrics["reconstruction_bits"].update(*read_back)
            names.append("reconstruction_bits")
        return names

    def _context(self, batch: Batch) -> tuple[Codes, tuple[Tensor, Tensor] | None]:
        """What :meth:`ChunkReduceLM.context` gives; and how far its codes give back their tokens, if that is asked.

        The latter is the negative log-likelihood of each token, and which of them lie in complete chunks:
        ``(batch, length)`` each.
        """
        if self.reconstruction is None:
            return self.model.context(batch["tokens"], batch.get("lengths")), None
        body = self.model.body
        tokens, lengths = self.model.before_last(batch["tokens"], batch.get("lengths"))
        embedded = embed_tokens(self.model.embedding, tokens, lengths)
        stages = body.stages(embedded)
        nats, _ = surprise(self.reconstruction(body.expand(stages[-1], [embedded, *stages[:-1]])), tokens)
        complete = embedded.tokens // body.spans[-1] * body.spans[-1]
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return body.reduce(stages), (nats, place < complete[:, None])

    def _hidden_rows(self, codes: Codes) -> Tensor:
        """``(batch, 1)``: evenly spread over the rows of all steps, so that a run that resumes hides the same."""
        batch = codes.values.shape[0]
        row = self._batches_before() * batch + torch.arange(batch, dtype=torch.float64)
        hidden = ((row + 1) * self.hidden_share).floor() > (row * self.hidden_share).floor()
        return hidden[:, None].to(codes.values.device, non_blocking=True)

    def _batches_before(self) -> int:
        """Training batches of all ranks before this one of this rank."""
        if self._trainer is None:
            return 0
        reader, readers = reader_of(self._trainer)
        return self._trainer.fit_loop.epoch_loop.total_batch_idx * readers + reader

    def _read(self, batch: Batch, codes: Codes) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of each token, and whether it was the likeliest: ``(batch, length)`` each."""
        return surprise(self.model(batch["tokens"], batch.get("lengths"), codes=codes), batch["tokens"])

    def _asked(self, batch: Batch) -> Tensor:
        answers = batch.get("answers")
        return real_places(batch) if answers is None else answers
