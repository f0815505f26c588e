"""Short runs from code: no log, no checkpoint, no progress bar."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning says nothing but errors, and speaks again afterwards."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


class _AfterStep(L.Callback):
    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        training = pl_module.training
        pl_module.eval()
        self.call(trainer.global_step)
        pl_module.train(training)


def seed_everything(seed: int) -> None:
    """Seeds of Python, numpy and torch."""
    L.seed_everything(seed, verbose=False)


def train(
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    steps: int,
    after_step: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Train for some steps, then validate.

    Args:
        after_step: called with the number of steps done, the module in evaluation mode.

    Returns:
        What the validation logged.
    """
    callbacks: list[L.Callback] = [] if after_step is None else [_AfterStep(after_step)]
    with _quiet():
        trainer = _trainer(max_steps=steps, limit_val_batches=0, gradient_clip_val=1.0, callbacks=callbacks)
        trainer.fit(module, datamodule=data)
    return validate(module, data)


def validate(module: L.LightningModule, data: L.LightningDataModule) -> dict[str, float]:
    """What the validation logs."""
    with _quiet():
        (found,) = _trainer().validate(module, datamodule=data, verbose=False)
    return dict(found)


def _trainer(**settings: Any) -> L.Trainer:
    return L.Trainer(
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
