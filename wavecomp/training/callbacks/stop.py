"""A checkpoint to resume from, and a stop that loses nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from wavecomp.training.steps import StepWatch


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
        self._watch = StepWatch()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._watch.start(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # half of an accumulated gradient would be lost; and all ranks stop at one step
        if not self._watch.stepped(trainer) or not trainer.strategy.reduce_boolean_decision(self.asked, all=False):
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
