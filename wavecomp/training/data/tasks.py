"""What all tasks share: samples that are made on the fly from a seed, and cannot be solved without codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wavecomp.records import check_count
from wavecomp.training.data.pieces import text_bytes
from wavecomp.training.data.samples import Generated, Sample, SampleDataModule

TRAINING, VALIDATION, SIZES = 0, 1, 2
NOISE = b"The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


class TaskDataModule(SampleDataModule):
    """Samples that are made from a random generator and a share of their full size, which may grow in training.

    Args:
        batch_size: rows per batch.
        curriculum: training samples while it grows, the last of them of full size; 0 to start with that.
        rehearse: give each batch one of the sizes that were reached so far, each as often, instead of the last: a model
            then learns what holds at all of them.
        validation_samples: rows of validation.
        seed: of the training samples; validation is the same for all.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: a curriculum below 0, or no validation sample.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        curriculum: int,
        rehearse: bool = False,
        validation_samples: int,
        seed: int,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        check_count("curriculum", curriculum, least=0)
        check_count("validation_samples", validation_samples)
        self.curriculum = curriculum
        self.rehearse = rehearse
        self.validation_samples = validation_samples

    def train_sample(self, index: int) -> Sample:
        # all rows of a batch have one size, also where a run goes on in batches of another
        first = index - (index - self._before) % self.rows_per_step
        share = min(1.0, first / self.curriculum) if self.curriculum else 1.0
        if self.rehearse:
            share *= np.random.default_rng([self.seed, SIZES, first]).random()
        return self._sample(np.random.default_rng([self.seed, TRAINING, index]), share)

    def validation_sample(self, index: int) -> Sample:
        """Validation sample ``index``, of full size and the same for every seed."""
        return self._sample(np.random.default_rng([0, VALIDATION, index]), 1.0)

    def validation_set(self) -> Dataset[Sample]:
        return Generated(self.validation_sample, self.validation_samples)

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        raise NotImplementedError


@dataclass(frozen=True)
class Growth:
    """A length that grows in training from ``shortest`` to ``length`` in ``steps``, each by the same factor.

    Raises:
        ValueError: a shortest length outside 1 to length, or fewer than one step.

    Example:
        >>> growth = Growth(shortest=100, length=1600, steps=2)
        >>> [growth.at(share) for share in (0.0, 0.5, 1.0)]
        [100, 400, 1600]
    """

    shortest: int
    length: int
    steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.length:
            raise ValueError(f"shortest={self.shortest} is out of range; allowed: 1 to length={self.length}")
        check_count("steps", self.steps)

    def at(self, share: float) -> int:
        """The length when a share of the curriculum is done."""
        done = min(self.steps, int(share * (self.steps + 1))) / self.steps
        return round(self.shortest * (self.length / self.shortest) ** done)


def length_growth(*, length: int, least: int, holds: str, shortest: int | None, steps: int) -> Growth:
    """The growth of a task whose samples cannot be shorter than ``least``, where it starts unless told otherwise.

    Raises:
        ValueError: a length, or a shortest one, below the least.
    """
    for name, value in (("length", length), ("shortest", shortest)):
        if value is not None and value < least:
            raise ValueError(f"{name}={value} does not hold {holds}; allowed: {least} and above")
    return Growth(shortest=least if shortest is None else shortest, length=length, steps=steps)


@dataclass(frozen=True)
class Answer:
    """Text that a task asks for."""

    text: str


def write(*parts: str | np.ndarray | Answer) -> Sample:
    """Text, bytes and answers in a row, with the answers marked.

    Example:
        >>> sample = write("2 + 2 = ", Answer("4"), ".")
        >>> bytes(sample.tokens.tolist()), sample.answers.nonzero().tolist()
        (b'2 + 2 = 4.', [[8]])
    """
    data = [_bytes(part) for part in parts]
    asked = [np.full(len(piece), isinstance(part, Answer)) for part, piece in zip(parts, data)]
    return Sample(
        tokens=torch.from_numpy(np.concatenate(data).astype(np.int64)), answers=torch.from_numpy(np.concatenate(asked))
    )


def _bytes(part: str | np.ndarray | Answer) -> np.ndarray:
    if isinstance(part, np.ndarray):
        return part
    return text_bytes(part.text if isinstance(part, Answer) else part)


def prompt_and_references(sample: Sample) -> tuple[Tensor, list[str]]:
    """What a model is given to go on from, and what it should then say.

    Returns:
        The tokens before the first answer, and each stretch of marked tokens as text.

    Raises:
        ValueError: a sample that asks for nothing, or for its first token.

    Example:
        >>> prompt, references = prompt_and_references(write("They are ", Answer("a"), ", ", Answer("b")))
        >>> bytes(prompt.tolist()), references
        (b'They are ', ['a', 'b'])
    """
    marked = np.zeros(0, dtype=bool) if sample.answers is None else sample.answers.numpy()
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
    if not len(edges) or not edges[0]:
        raise ValueError("the sample has no answer after a prompt; allowed: answers that mark a token after the first")
    tokens = sample.tokens.numpy().astype(np.uint8)
    stretches: Sequence[tuple[int, int]] = list(zip(edges[::2], edges[1::2]))
    return sample.tokens[: edges[0]], [tokens[start:stop].tobytes().decode() for start, stop in stretches]
