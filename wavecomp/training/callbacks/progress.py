"""How fast training goes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from wavecomp.records import check_count
from wavecomp.training.steps import reader_of


class BytesPerSecond(Callback):
    """Logs ``train/bytes_per_second`` over the last steps, data included, validation left out.

    Args:
        steps: how many steps the mean goes over.
        every: steps between two values.
    """

    def __init__(self, steps: int = 50, every: int = 10) -> None:
        check_count("steps", steps)
        check_count("every", every)
        self.every = every
        self.spans: deque[tuple[float, Tensor | int]] = deque(maxlen=steps)
        self.began = self.paused = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began += time.perf_counter() - self.paused

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        lengths = batch.get("lengths")
        count = batch["tokens"].numel() if lengths is None else lengths.sum()
        if batch.get("bytes") is not None:
            count = batch["bytes"].sum()
        now = time.perf_counter()
        self.spans.append((now - self.began, count))
        self.began = now
        if trainer.global_step % self.every == 0 or len(self.spans) < 2:
            seconds = sum(span for span, _ in self.spans)
            _, readers = reader_of(trainer)
            total = float(sum(count for _, count in self.spans)) * readers
            pl_module.log("train/bytes_per_second", total / seconds, prog_bar=True, batch_size=1)
