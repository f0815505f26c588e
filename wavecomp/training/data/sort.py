"""Sorting symbols by how often they come: the task that needs counts, a low-pass statistic."""

from __future__ import annotations

import numpy as np
import torch

from wavecomp.records import check_count
from wavecomp.training.data.samples import Sample
from wavecomp.training.data.tasks import TaskDataModule, length_growth


class SortDataModule(TaskDataModule):
    """A long row of symbols whose frequencies drift; then all symbols, the most frequent first.

    Two distributions are drawn for each sample, integers from 1 to 9 for each symbol, normalised. Place j of L is drawn
    from their mixture: the first at the beginning, the second at the end. Then a separator, and the symbols by falling
    count (see :func:`by_count`), which are the answers. The score is the accuracy of the answers, each read with the
    right ones before it: ``answer_accuracy``. It is the task of the infinity-former, which takes 20 symbols, lengths of
    4,000, 8,000 and 16,000, and 800 rows of validation.

    Args:
        symbols: how many different symbols; the separator is one more.
        length: symbols to be sorted.
        batch_size: rows per batch.
        curriculum: training samples while it grows, the last of them of full length; 0 to start with that.
        shortest: length that the curriculum starts with, ``symbols`` unless given.
        steps: in how many steps it grows, each by the same factor.
        rehearse: give each batch one of the lengths that were reached so far, each as often, instead of the last.
        validation_samples: rows of validation.
        seed: of the training samples; validation is the same for all.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: fewer than two symbols, or a length below their number.
    """

    def __init__(
        self,
        *,
        symbols: int = 20,
        length: int = 4000,
        batch_size: int = 16,
        curriculum: int = 0,
        shortest: int | None = None,
        steps: int = 4,
        rehearse: bool = False,
        validation_samples: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            curriculum=curriculum,
            rehearse=rehearse,
            validation_samples=validation_samples,
            seed=seed,
            num_workers=num_workers,
        )
        check_count("symbols", symbols, least=2)
        self.growth = length_growth(
            length=length, least=symbols, holds=f"symbols={symbols}", shortest=shortest, steps=steps
        )
        self.symbols = symbols
        self.vocabulary = symbols + 1

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        length = self.growth.at(share)
        weights = random.integers(1, 10, size=(2, self.symbols))
        first, second = (random.choice(self.symbols, size=length, p=row / row.sum()) for row in weights)
        drift = np.arange(1, length + 1) / length
        symbols = np.where(random.random(length) < drift, second, first)
        line = np.concatenate([symbols, [self.symbols], by_count(symbols, self.symbols)])
        return Sample(tokens=torch.from_numpy(line), answers=torch.arange(len(line)) > length)


def by_count(values: np.ndarray, count: int) -> np.ndarray:
    """The symbols 0 to count - 1, the most frequent first; of equals the one that came first, missing ones last.

    Args:
        values: ``(length,)`` integers from 0 to count - 1.
        count: how many symbols there are.

    Returns:
        ``(count,)`` int64.

    Example:
        >>> by_count(np.array([3, 1, 1, 3, 2]), 5).tolist()
        [3, 1, 2, 0, 4]
    """
    first = np.full(count, len(values))
    # of several places that a symbol has, the last that is written stays: the first in the row
    first[values[::-1]] = np.arange(len(values))[::-1]
    return np.lexsort((np.arange(count), first, -np.bincount(values, minlength=count)))
