"""Tasks that cannot be solved without codes, generated on the fly from a seed."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from wavecomp.training.data.samples import Generated, Sample, SampleDataModule

TRAINING, VALIDATION = 0, 1


class _Task(SampleDataModule):
    """Samples that are made from a random generator and a share of their full size, which may grow in training."""

    curriculum: int
    validation_samples: int

    def train_sample(self, index: int) -> Sample:
        # all rows of a batch have one size
        first = index // self.rows_per_step * self.rows_per_step
        share = min(1.0, first / self.curriculum) if self.curriculum else 1.0
        return self._sample(np.random.default_rng([self.seed, TRAINING, index]), share)

    def validation_sample(self, index: int) -> Sample:
        """Validation sample ``index``, of full size and the same for every seed."""
        return self._sample(np.random.default_rng([0, VALIDATION, index]), 1.0)

    def validation_set(self) -> Dataset[Sample]:
        return Generated(self.validation_sample, self.validation_samples)

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        raise NotImplementedError


class CopyDataModule(_Task):
    """Random symbols, then the same again: the second half can be known from the first alone.

    Training may begin with short copies: over the first ``curriculum`` samples the length grows in even steps of
    ``step`` symbols. Validation is at full length from the start.

    Args:
        symbols: how many different symbols, so that chance is ``log2(symbols)`` bits.
        length: symbols before they repeat; longer than what the decoder's raw windows reach together.
        batch_size: rows per batch.
        curriculum: training samples until the full length is reached, 0 to start with it.
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
        super().__init__(batch_size=batch_size, seed=seed)
        if not 2 <= symbols <= 256:
            raise ValueError(f"symbols={symbols} is out of range; allowed: 2 to 256")
        if min(length, shortest, step, validation_samples) < 1 or curriculum < 0:
            raise ValueError(
                f"length={length}, shortest={shortest}, step={step}, validation_samples={validation_samples}, "
                f"curriculum={curriculum}; allowed: 1 and above, curriculum from 0"
            )
        self.vocabulary = symbols
        self.length = length
        self.curriculum = curriculum
        self.shortest = min(shortest, length)
        self.step = step
        self.validation_samples = validation_samples

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        steps = -(-(self.length - self.shortest) // self.step)
        length = min(self.length, self.shortest + round(share * steps) * self.step)
        symbols = torch.from_numpy(random.integers(self.vocabulary, size=length))
        return Sample(tokens=symbols.repeat(2), answers=torch.arange(2 * length) >= length)


class RecallDataModule(_Task):
    """Keys with values, scattered in noise; then every key is asked for again, in another order.

    A fact is ``=key`` and its value, a question ``?key`` and its value; keys are two letters, values two digits, noise
    is lower-case letters and spaces that never hold ``=`` or ``?``. The answers are the digits after a question.

    Training may begin easy: over the first ``curriculum`` samples the number of keys and the noise between them grow
    from ``1 / steps`` of their full size to all of it. Validation is at full size from the start.

    Args:
        keys: facts per sample.
        length: bytes from the first fact to the first question, noise included.
        batch_size: rows per batch.
        curriculum: training samples until the full size is reached, 0 to start with it.
        steps: in how many steps it grows.
        validation_samples: rows of validation.
        seed: of the training samples; validation is the same for all.

    Raises:
        ValueError: fewer than one or more than 676 keys, or a length that does not hold them.
    """

    fact = 5  # bytes: a mark, two letters, two digits

    def __init__(
        self,
        *,
        keys: int = 12,
        length: int = 384,
        batch_size: int = 16,
        curriculum: int = 0,
        steps: int = 4,
        validation_samples: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        if not 1 <= keys <= 26 * 26:
            raise ValueError(f"keys={keys} is out of range; allowed: 1 to {26 * 26}")
        if length < self.fact * keys:
            raise ValueError(f"length={length} does not hold keys={keys}; allowed: {self.fact * keys} and above")
        if curriculum < 0 or steps < 1 or validation_samples < 1:
            raise ValueError(
                f"curriculum={curriculum}, steps={steps}, validation_samples={validation_samples}; "
                "allowed: curriculum from 0, the others from 1"
            )
        self.keys = keys
        self.length = length
        self.curriculum = curriculum
        self.steps = steps
        self.validation_samples = validation_samples

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        share = min(self.steps, 1 + int(share * self.steps)) / self.steps
        count = max(1, round(self.keys * share))
        length = max(count * self.fact, round(self.length * share))
        numbers = random.choice(26 * 26, size=count, replace=False)
        names = np.stack([numbers // 26, numbers % 26], axis=1) + ord("a")
        values = random.integers(10, size=(count, 2)) + ord("0")
        pairs = np.concatenate([names, values], axis=1)
        order = random.permutation(count)
        story = self._scatter(random, _marked("=", pairs), length)
        questions = _marked("?", pairs[order])
        answers = np.zeros_like(questions, dtype=bool)
        answers[:, 3:] = True
        return Sample(
            tokens=torch.from_numpy(np.concatenate([story, questions.ravel()])),
            answers=torch.from_numpy(np.concatenate([np.zeros(len(story), dtype=bool), answers.ravel()])),
        )

    @staticmethod
    def _scatter(random: np.random.Generator, facts: np.ndarray, length: int) -> np.ndarray:
        """Facts in order, at random places of noise, ``length`` bytes in all."""
        letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz      ", dtype=np.uint8).astype(np.int64)
        story = random.choice(letters, size=length)
        count, width = facts.shape
        gaps = np.sort(random.integers(length - count * width + 1, size=count))
        starts = gaps + np.arange(count) * width
        story[starts[:, None] + np.arange(width)] = facts
        return story


def _marked(mark: str, pairs: np.ndarray) -> np.ndarray:
    """``(count, 4)`` keys and values to ``(count, 5)`` bytes that open with the mark."""
    return np.concatenate([np.full((len(pairs), 1), ord(mark)), pairs], axis=1)
