"""Training of language models with Lightning."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from wavecomp.codes import Codes
from wavecomp.compressors import RatioController
from wavecomp.metrics import BitsPerByte, CompressionRatio, ContextGain
from wavecomp.networks import ChunkReduceLM
from wavecomp.training.data import Batch


class LanguageModelModule(L.LightningModule):
    """Trains a language model on next bytes, or on the answers of a task, with AdamW, warm-up and a cosine.

    Logs ``bits_per_byte``, ``compression_ratio``, ``context_gain`` and, where a batch marks answers, ``answer_bits``
    and ``answer_accuracy``, under ``val/`` and ``test/``, and all but the context gain under ``train/``. Where a batch
    marks answers, the context gain is theirs. ``loss`` is what is trained on, in bits: the answers where there are
    any, all bytes otherwise.

    Args:
        model: predicts token t from the tokens before it.
        learning_rate: at its peak.
        weight_decay: of matrices; vectors and scalars have none.
        betas: of AdamW.
        warmup_steps: steps until the peak.
        final_share: share of the peak that is left at the end of the cosine.
        hidden_share: share of the training rows whose codes are hidden. A model that has always seen its codes is
            lost without them, and its context gain would be flattered.

    Raises:
        ValueError: a rate that is not positive, a negative decay or warm-up, a share outside 0 to 1.
    """

    def __init__(
        self,
        *,
        model: ChunkReduceLM,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        warmup_steps: int = 50,
        final_share: float = 0.1,
        hidden_share: float = 0.0625,
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise ValueError(f"learning_rate={learning_rate} is out of range; allowed: above 0")
        if weight_decay < 0:
            raise ValueError(f"weight_decay={weight_decay} is negative; allowed: 0 and above")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps={warmup_steps} is negative; allowed: 0 and above")
        for name, share in (("final_share", final_share), ("hidden_share", hidden_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share} is out of range; allowed: 0 to 1")
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas = betas
        self.warmup_steps = warmup_steps
        self.final_share = final_share
        self.hidden_share = hidden_share
        self._counts: dict[str, Tensor] = {}
        self.val_metrics = _metrics()
        self.test_metrics = _metrics()

    def setup(self, stage: str) -> None:
        self.check(getattr(getattr(self.trainer, "datamodule", None), "vocabulary", 1))

    @torch.no_grad()
    def check(self, vocabulary: int) -> None:
        """Try a few tokens before any work.

        Args:
            vocabulary: how many tokens the data has.

        Raises:
            ValueError: parts of the model that do not fit together, or tokens that it does not know.
        """
        device = next(self.model.parameters()).device
        tokens = torch.full((1, self.model.body.chunk_length + 1), vocabulary - 1, device=device)
        embedded = getattr(self.model.embedding, "num_embeddings", vocabulary)
        if vocabulary > embedded:
            raise ValueError(
                f"the data has tokens up to {vocabulary - 1}, the model's embedding allows 0 to {embedded - 1}"
            )
        try:
            logits = self.model(tokens)
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"the parts of the model do not fit together: {error}") from error
        if logits.shape[-1] < vocabulary:
            raise ValueError(
                f"the data has tokens up to {vocabulary - 1}, the model's head predicts 0 to {logits.shape[-1] - 1}"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        codes = self.model.context(batch["tokens"], batch["lengths"])
        hidden = self._hidden_rows(codes)
        nats, right = self._read(batch, codes.replace(mask=codes.mask & ~hidden))
        asked, valid = self._asked(batch), self._valid(batch)
        # figures are of rows that see their codes, unless none does
        shown = ~hidden | hidden.all()
        loss = _mean(nats, asked) + sum(codes.losses.values())
        figures = {
            "bits_per_byte": _mean(nats.detach(), valid & shown) / math.log(2),
            "compression_ratio": codes.ratio,
        }
        if batch["answers"] is not None:
            figures["answer_bits"] = _mean(nats.detach(), asked & shown) / math.log(2)
            figures["answer_accuracy"] = _mean(right.float(), asked & shown)
        overflow = [value.sum() for name, value in codes.statistics.items() if name.endswith(".overflow")]
        if overflow:
            figures["overflow"] = torch.stack(overflow).sum().float()
        self._count(codes)
        for name, value in figures.items():
            self.log(f"train/{name}", value, prog_bar=name not in ("answer_accuracy", "overflow"), batch_size=len(nats))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Move the ratio controllers, once the optimiser has stepped, by the codes of all ranks."""
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            for path, controller in self._controllers().items():
                tokens, kept = self.trainer.strategy.reduce(self._counts[path], reduce_op="sum")
                controller.update(tokens=tokens, codes=kept)
            self._counts = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Codes:
        """The codes of a batch."""
        return self.model.encode(batch["tokens"], batch["lengths"])

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        others = [p for p in self.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
            betas=self.betas,
        )
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            raise ValueError("trainer.max_steps=-1 leaves the cosine without an end; give a number of steps")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step, int(steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step: a straight line up, then half a cosine down."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    def _evaluate(self, batch: Batch, stage: str, modules: nn.ModuleDict) -> None:
        metrics: dict[str, Any] = dict(modules.items())
        codes = self.model.context(batch["tokens"], batch["lengths"])
        nats, right = self._read(batch, codes)
        hidden, _ = self._read(batch, codes.hidden())
        valid, asked = self._valid(batch), self._asked(batch)
        metrics["loss"].update(nats, asked)
        metrics["bits_per_byte"].update(nats, valid)
        metrics["context_gain"].update(nats, hidden, asked)
        metrics["compression_ratio"].update(codes)
        names = ["loss", "bits_per_byte", "context_gain", "compression_ratio"]
        if batch["answers"] is not None:
            metrics["answer_bits"].update(nats, asked)
            metrics["answer_bits_hidden"].update(hidden, asked)
            metrics["answer_accuracy"].update(right.float(), asked.float())
            names += ["answer_bits", "answer_bits_hidden", "answer_accuracy"]
        for name in names:
            bar = name in ("bits_per_byte", "context_gain", "answer_bits")
            self.log(f"{stage}/{name}", metrics[name], on_step=False, on_epoch=True, prog_bar=bar)

    def _controllers(self) -> dict[str, RatioController]:
        body = self.model.body
        return body.controllers() if hasattr(body, "controllers") else {}

    def _count(self, codes: Codes) -> None:
        for path in self._controllers():
            counted = torch.stack([codes.statistics[f"{path}.{name}"].sum() for name in ("places", "kept")])
            self._counts[path] = self._counts.get(path, 0) + counted

    def _hidden_rows(self, codes: Codes) -> Tensor:
        """``(batch, 1)``: evenly spread over the rows of all steps, so that a run that resumes hides the same."""
        batch = codes.values.shape[0]
        row = self.global_step * batch + torch.arange(batch, device=codes.values.device)
        return (((row + 1) * self.hidden_share).floor() > (row * self.hidden_share).floor())[:, None]

    def _read(self, batch: Batch, codes: Codes) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of each token, and whether it was the likeliest: ``(batch, length)`` each."""
        tokens = batch["tokens"]
        logits = self.model(tokens, batch["lengths"], codes=codes).float()
        nats = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
        return nats, logits.argmax(-1) == tokens

    @staticmethod
    def _valid(batch: Batch) -> Tensor:
        tokens, lengths = batch["tokens"], batch["lengths"]
        if lengths is None:
            return torch.ones_like(tokens, dtype=torch.bool)
        return torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]

    def _asked(self, batch: Batch) -> Tensor:
        return self._valid(batch) if batch["answers"] is None else batch["answers"]


def _mean(nats: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, nats, 0).sum() / mask.sum()


def _metrics() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "loss": BitsPerByte(),
            "bits_per_byte": BitsPerByte(),
            "context_gain": ContextGain(),
            "compression_ratio": CompressionRatio(),
            "answer_bits": BitsPerByte(),
            "answer_bits_hidden": BitsPerByte(),
            "answer_accuracy": MeanMetric(),
        }
    )
