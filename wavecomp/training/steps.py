"""Where training is: whether a batch ended an optimiser's step, and which of the readers of the data this is."""

from __future__ import annotations

from typing import Any

import lightning as L


class StepWatch:
    """Tells batches after which the optimiser stepped from those whose gradients only add up.

    The last batch of an epoch ends a step, however few there are to accumulate, so batches cannot be counted.
    """

    def __init__(self) -> None:
        self._seen = 0

    def start(self, trainer: L.Trainer) -> None:
        """Begin with what was trained before."""
        self._seen = trainer.global_step

    def stepped(self, trainer: L.Trainer) -> bool:
        """Whether there was a step since this was asked before; for ``on_train_batch_end``."""
        before, self._seen = self._seen, trainer.global_step
        return self._seen != before


def validation_is_due(trainer: L.Trainer) -> bool:
    """Whether Lightning validates behind the batch that has just ended; for ``on_train_batch_end``."""
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def is_last_step(trainer: L.Trainer) -> bool:
    """Whether training ends with the step that has just been made."""
    last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or last_epoch


def batches_of(trainer: L.Trainer) -> int:
    """How many batches were trained on, by the runs before a resumed one too."""
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return total.processed


def reader_of(trainer: L.Trainer) -> tuple[int, int]:
    """Which reader of the data this process is, and of how many: ranks that share their rows are one."""
    found = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    return found["rank"], found["num_replicas"]
