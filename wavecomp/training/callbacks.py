"""Callbacks: speed, and a stop that loses nothing."""

from __future__ import annotations

import signal
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info


class BytesPerSecond(Callback):
    """Logs ``train/bytes_per_second``: bytes learned from over the time of the last steps, validation left out.

    Args:
        steps: how many steps the mean goes over.
        every: steps between two values.
    """

    def __init__(self, steps: int = 50, every: int = 10) -> None:
        self.every = every
        self.spans: deque[tuple[float, torch.Tensor | int]] = deque(maxlen=steps)
        self.began = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        count = batch["tokens"].numel() if batch["lengths"] is None else batch["lengths"].sum()
        self.spans.append((time.perf_counter() - self.began, count))
        if trainer.global_step % self.every == 0 or len(self.spans) < 2:
            seconds = sum(span for span, _ in self.spans)
            total = float(sum(count for _, count in self.spans)) * trainer.world_size
            pl_module.log("train/bytes_per_second", total / seconds, prog_bar=True, batch_size=1)


class SafeStop(Callback):
    """Ctrl-C ends training after the step that runs, with a checkpoint to resume from; a second one ends it at once."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.asked:
            # this batch is for the run that resumes: without it all counters agree that a step has just ended
            progress = trainer.fit_loop.epoch_loop.batch_progress
            progress.total.ready -= 1
            progress.current.ready -= 1
            path = save_last(trainer)
            if path is not None:
                rank_zero_info(
                    f"\nSaved step {trainer.global_step} to {path}. Resume with the same command and --ckpt_path last"
                )
            raise KeyboardInterrupt

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        rank_zero_info("\nStopping after this step. Press Ctrl-C again to stop at once, without a checkpoint.")
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


def save_last(trainer: L.Trainer) -> Path | None:
    """Write the trainer's first checkpoint as of now: the one to resume from."""
    callback = trainer.checkpoint_callback
    if not isinstance(callback, ModelCheckpoint) or callback.dirpath is None:
        return None
    path = Path(callback.dirpath) / f"{callback.filename}{callback.FILE_EXTENSION}"
    trainer.save_checkpoint(path, weights_only=False)
    return path
