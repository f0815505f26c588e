"""Training of autoencoders with Lightning."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from wavecomp.codes import Codes
from wavecomp.metrics import BitsPerByte, CodesPerByte, CompressionRatio, ExactMean
from wavecomp.networks import ChunkReduceAutoencoder
from wavecomp.training.data import Batch
from wavecomp.training.optimisation import CompressionModule, mean_of, real_places, surprise


class AutoencoderModule(CompressionModule):
    """Trains an autoencoder to give back each byte, with AdamW, warm-up and a cosine.

    Logs ``bits_per_byte`` of the reconstruction, ``accuracy`` (the share of the bytes that come back right),
    ``compression_ratio`` and ``codes_per_byte`` under ``val/`` and ``test/``, and the first three under ``train/``.
    ``loss`` is that of the reconstruction, in bits.

    Args:
        model: gives logits of the tokens themselves.
        settings: rate, decay and warm-up, as in :class:`CompressionModule`.

    Raises:
        ValueError: what :class:`CompressionModule` refuses.
    """

    shown = ("bits_per_byte", "accuracy")

    def __init__(self, *, model: ChunkReduceAutoencoder, **settings: Any) -> None:
        super().__init__(model=model, **settings)

    def metrics(self) -> dict[str, Metric]:
        return {
            "loss": BitsPerByte(),
            "bits_per_byte": BitsPerByte(),
            "accuracy": ExactMean(),
            "compression_ratio": CompressionRatio(),
            "codes_per_byte": CodesPerByte(),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        codes, nats, right = self._read(batch)
        valid = real_places(batch)
        lost = mean_of(nats, valid)
        accuracy = mean_of(right.float(), valid)
        self.log_step(codes, {"bits_per_byte": lost.detach() / math.log(2), "accuracy": accuracy})
        return lost + sum(codes.losses.values())

    def evaluate(self, batch: Batch, metrics: dict[str, Any]) -> list[str]:
        codes, nats, right = self._read(batch)
        valid = real_places(batch)
        metrics["loss"].update(nats, valid)
        metrics["bits_per_byte"].update(nats, valid)
        metrics["accuracy"].update(right.float(), valid.float())
        metrics["compression_ratio"].update(codes)
        metrics["codes_per_byte"].update(codes)
        return list(metrics)

    def _read(self, batch: Batch) -> tuple[Codes, Tensor, Tensor]:
        """Codes, the negative log-likelihood of each token, and whether it was the likeliest."""
        *before, codes = self.model.stages(batch["tokens"], batch.get("lengths"))
        return codes, *surprise(self.model.decode(codes, before), batch["tokens"])
