"""Training of classifiers with Lightning."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from torch import Tensor
from torchmetrics import Metric

from wavecomp.codes import Codes
from wavecomp.metrics import CompressionRatio, ExactMean
from wavecomp.networks import ChunkReduceClassifier
from wavecomp.training.data import LabelledBatch, SampleDataModule
from wavecomp.training.optimisation import CompressionModule, surprise


class ClassifierModule(CompressionModule):
    """Trains a classifier of whole rows, with AdamW, warm-up and a cosine.

    Logs ``loss``, the cross-entropy of the labels in bits, ``accuracy`` and ``compression_ratio`` under ``val/`` and
    ``test/``, and the same under ``train/``.

    Args:
        model: gives logits of the classes.
        settings: rate, decay and warm-up, as in :class:`CompressionModule`.

    Raises:
        ValueError: what :class:`CompressionModule` refuses.
    """

    shown = ("loss", "accuracy")

    def __init__(self, *, model: ChunkReduceClassifier, **settings: Any) -> None:
        super().__init__(model=model, **settings)

    def metrics(self) -> dict[str, Metric]:
        return {"loss": ExactMean(), "accuracy": ExactMean(), "compression_ratio": CompressionRatio()}

    def check_data(self, data: L.LightningDataModule | None) -> None:
        """Besides, that there are labels.

        Raises:
            ValueError: a data module of samples without labels.
        """
        if isinstance(data, SampleDataModule) and not hasattr(data, "classes"):
            raise ValueError(f"{type(data).__name__} has no labels; allowed: one that has, as ClassificationDataModule")
        self.check(getattr(data, "vocabulary", 1), classes=len(getattr(data, "classes", [0])))

    def check(self, vocabulary: int, *, classes: int = 1) -> None:
        """Try a few tokens before any work.

        Args:
            vocabulary: how many tokens the data has.
            classes: how many labels it has.

        Raises:
            ValueError: parts of the model that do not fit together, tokens or labels that it does not know.
        """
        known = self.try_model(vocabulary).shape[-1]
        if known < classes:
            raise ValueError(f"the data has labels up to {classes - 1}, the model's head knows 0 to {known - 1}")

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        codes, nats, right = self._read(batch)
        self.log_step(codes, {"loss": nats.detach().mean() / math.log(2), "accuracy": right.float().mean()})
        return nats.mean() + sum(codes.losses.values())

    def evaluate(self, batch: LabelledBatch, metrics: dict[str, Any]) -> list[str]:
        codes, nats, right = self._read(batch)
        metrics["loss"].update(nats / math.log(2))
        metrics["accuracy"].update(right.float())
        metrics["compression_ratio"].update(codes)
        return list(metrics)

    def _read(self, batch: LabelledBatch) -> tuple[Codes, Tensor, Tensor]:
        """Codes, the negative log-likelihood of each label, and whether it was the likeliest."""
        codes = self.model.encode(batch["tokens"], batch.get("lengths"))
        return codes, *surprise(self.model.classify(codes), batch["labels"])
