"""Copying: the task that needs every detail."""

from __future__ import annotations

import numpy as np
import torch

from wavecomp.training.data.samples import Sample
from wavecomp.training.data.tasks import TaskDataModule


class CopyDataModule(TaskDataModule):
    """Random symbols, then the same again: the second half can be known from the first alone.

    Training may begin with short copies: over the first ``curriculum`` samples the length grows in even steps of
    ``step`` symbols. Validation is at full length from the start.

    Args:
        symbols: how many different symbols, so that chance is ``log2(symbols)`` bits.
        length: symbols before they repeat; longer than what the decoder's raw windows reach together.
        batch_size: rows per batch.
        curriculum: training samples while it grows, the last of them of full length; 0 to start with that.
        shortest: length that the curriculum starts with.
        step: by how much the curriculum grows.
        validation_samples: rows of validation.
        seed: of the training samples; validation is the same for all.

    Raises:
        ValueError: symbols outside 2 to 256, or a length that is not positive.
    """

    def __init__(
        self,
        *,
        symbols: int = 16,
        length: int = 128,
        batch_size: int = 16,
        curriculum: int = 0,
        shortest: int = 32,
        step: int = 32,
        validation_samples: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, curriculum=curriculum, validation_samples=validation_samples, seed=seed)
        if not 2 <= symbols <= 256:
            raise ValueError(f"symbols={symbols} is out of range; allowed: 2 to 256")
        if min(length, shortest, step) < 1:
            raise ValueError(f"length={length}, shortest={shortest}, step={step}; allowed: 1 and above")
        self.vocabulary = symbols
        self.length = length
        self.shortest = min(shortest, length)
        self.step = step

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        steps = -(-(self.length - self.shortest) // self.step)
        length = min(self.length, self.shortest + round(share * steps) * self.step)
        symbols = random.integers(self.vocabulary, size=length)
        return Sample(tokens=torch.from_numpy(symbols).repeat(2), answers=torch.arange(2 * length) >= length)
