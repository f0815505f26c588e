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
from safetensors.torch import save_file

from wavecomp.codes import Codes


class BytesPerSecond(Callback):
    """Logs ``train/bytes_per_second`` over the last steps, data included, validation left out.

    Args:
        steps: how many steps the mean goes over.
        every: steps between two values.
    """

    def __init__(self, steps: int = 50, every: int = 10) -> None:
        self.every = every
        self.spans: deque[tuple[float, torch.Tensor | int]] = deque(maxlen=steps)
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
        count = batch["tokens"].numel() if batch["lengths"] is None else batch["lengths"].sum()
        if batch.get("bytes") is not None:
            count = batch["bytes"].sum()
        now = time.perf_counter()
        self.spans.append((now - self.began, count))
        self.began = now
        if trainer.global_step % self.every == 0 or len(self.spans) < 2:
            seconds = sum(span for span, _ in self.spans)
            readers = (trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"]
            total = float(sum(count for _, count in self.spans)) * readers
            pl_module.log("train/bytes_per_second", total / seconds, prog_bar=True, batch_size=1)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: written after every validation and on demand, to resume from.

    Args:
        folder: where it goes.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(dirpath=folder, filename="last", enable_version_counter=False)

    def save_now(self, trainer: L.Trainer) -> Path:
        """Write it as of now."""
        path = Path(self.dirpath or ".") / f"{self.filename}{self.FILE_EXTENSION}"
        trainer.save_checkpoint(path, weights_only=False)
        return path


class SafeStop(Callback):
    """Ctrl-C ends training after the step that runs, with a checkpoint to resume from; a second one ends it at once.

    Args:
        checkpoint: where to save.
    """

    def __init__(self, checkpoint: LastCheckpoint) -> None:
        self.checkpoint = checkpoint
        self.asked = False
        self._previous: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # half of an accumulated gradient would be lost; and all ranks stop at one step
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not whole or not trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            return
        step = trainer.global_step
        for logger in trainer.loggers:
            # Lightning would log this step later, and there is no later
            logger.log_metrics({name: float(value) for name, value in trainer.logged_metrics.items()}, step=step - 1)
            logger.save()
        path = self.checkpoint.save_now(trainer)
        rank_zero_info(f"\nSaved step {step} to {path}. Resume with the same command and --ckpt_path last")
        raise KeyboardInterrupt

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        rank_zero_info("\nStopping after this step. Press Ctrl-C again to stop at once, without a checkpoint.")
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


class SaveCodes(Callback):
    """Writes the codes that ``predict`` makes, one safetensors file per batch.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Codes,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"rank{trainer.global_rank}-batch{batch_idx:06d}.safetensors"
        tensors = {name: getattr(outputs, name).contiguous() for name in ("values", *Codes.per_slot, "tokens")}
        save_file(tensors, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
