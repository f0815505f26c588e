"""A checkpoint to resume from, and a stop that loses nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from wavecomp.training.steps import StepWatch, is_last_step, validation_is_due

EVERY = 20  # steps between two looks at the clock


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: written after every validation, every few minutes and on demand, to resume from.

    Args:
        folder: where it goes.
        minutes: after which it is written again where nothing was validated.

    Attributes:
        validated: the step of the last validation, ``None`` before any.
        after_validation: what is called when it was written after one.
    """

    def __init__(self, folder: str | Path, *, minutes: float = 10.0) -> None:
        super().__init__(dirpath=folder, filename="last", enable_version_counter=False)
        self.minutes = minutes
        self._written = time.monotonic()
        self._own_watch = StepWatch()
        self._whole = self._waits = False
        self.validated: int | None = None
        self.after_validation: Callable[[L.Trainer], None] = lambda trainer: None

    def save_now(self, trainer: L.Trainer) -> Path:
        """Write it as of now."""
        path = Path(self.dirpath or ".") / f"{self.filename}{self.FILE_EXTENSION}"
        trainer.save_checkpoint(path, weights_only=False)
        self._written, self._waits = time.monotonic(), False
        return path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._written = time.monotonic()
        self._own_watch.start(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if fitting:
            self.validated = trainer.global_step
            if not self._whole:
                self._waits = True  # half of an accumulated gradient would be lost
                return
        super().on_validation_end(trainer, pl_module)
        self._written = time.monotonic()
        if fitting:
            self.after_validation(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._whole = self._own_watch.stepped(trainer)
        if not self._whole or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._waits:
            self.save_now(trainer)
        # clocks of ranks differ, and to ask them all takes time
        elif trainer.global_step % EVERY == 0:
            due = time.monotonic() - self._written > 60 * self.minutes
            if trainer.strategy.reduce_boolean_decision(due, all=False):
                self.save_now(trainer)


class SafeStop(Callback):
    """Ctrl-C ends training after the step that runs, with a checkpoint to resume from; a second one ends it at once.

    So does SIGTERM, with which schedulers take a machine back.

    A validation that is due at that step takes place before, and of the last step training ends as it would have.

    Args:
        checkpoint: where to save.
    """

    def __init__(self, checkpoint: LastCheckpoint) -> None:
        self.checkpoint = checkpoint
        checkpoint.after_validation = self._stop_if_asked
        self.asked = self.terminated = False
        self._previous: dict[int, Any] = {}
        self._watch = StepWatch()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.asked = self.terminated = False
        self._listen(signal.SIGINT)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._watch.start(trainer)
        # instead of Lightning's own, which stops wherever training is and saves nothing
        self._listen(signal.SIGTERM)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # half of an accumulated gradient would be lost
        if not self._watch.stepped(trainer) or not self._to_stop(trainer):
            return
        if validation_is_due(trainer):
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self.checkpoint.save_now(trainer)  # who sent SIGTERM may not wait for it
            return
        figures = {name: float(value) for name, value in trainer.logged_metrics.items() if not name.startswith("val/")}
        for logger in trainer.loggers:
            # Lightning would log this step later, and there is no later
            logger.log_metrics(figures, step=trainer.global_step - 1)
        self._stop(trainer)

    def _to_stop(self, trainer: L.Trainer) -> bool:
        """Whether any rank was asked, and there is more to come: all stop at one step."""
        return not is_last_step(trainer) and trainer.strategy.reduce_boolean_decision(self.asked, all=False)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if self._to_stop(trainer):
            self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        for logger in trainer.loggers:
            logger.save()
        step = trainer.global_step
        path = self.checkpoint.save_now(trainer)
        rank_zero_info(f"\nSaved step {step} to {path}. Resume with the same command and --ckpt_path last")
        terminated = trainer.strategy.reduce_boolean_decision(self.terminated, all=False)
        raise SIGTERMException if terminated else KeyboardInterrupt

    def _listen(self, signum: int) -> None:
        if threading.current_thread() is threading.main_thread():  # which alone is told of signals
            self._previous[signum] = signal.signal(signum, self._ask)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.asked, self.terminated = True, signum == signal.SIGTERM
        rank_zero_info("\nStopping after this step. Press Ctrl-C again to stop at once, without a checkpoint.")
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}
