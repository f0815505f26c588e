"""Recall by content: keys with values in noise, asked for later."""

from __future__ import annotations

import numpy as np
import torch

from wavecomp.records import check_count
from wavecomp.training.data.samples import Sample
from wavecomp.training.data.tasks import TaskDataModule


class RecallDataModule(TaskDataModule):
    """Keys with values, scattered in noise; then every key is asked for again, in another order.

    A fact is ``=key`` and its value, a question ``?key`` and its value; keys are two letters, values two digits, noise
    is lower-case letters and spaces that never hold ``=`` or ``?``. The answers are the digits after a question.

    Training may begin easy: over the first ``curriculum`` samples the number of keys and the noise between them grow
    from ``1 / steps`` of their full size to all of it. Validation is at full size from the start.

    Args:
        keys: facts per sample.
        length: bytes from the first fact to the first question, noise included.
        batch_size: rows per batch.
        curriculum: training samples while it grows, the last of them of full size; 0 to start with that.
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
        super().__init__(batch_size=batch_size, curriculum=curriculum, validation_samples=validation_samples, seed=seed)
        if not 1 <= keys <= 26 * 26:
            raise ValueError(f"keys={keys} is out of range; allowed: 1 to {26 * 26}")
        if length < self.fact * keys:
            raise ValueError(f"length={length} does not hold keys={keys}; allowed: {self.fact * keys} and above")
        check_count("steps", steps)
        self.keys = keys
        self.length = length
        self.steps = steps

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
