"""Samples and batches, and the data module that serves them: a stream that resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from wavecomp.records import check_count
from wavecomp.training.steps import batches_of, reader_of


class Batch(TypedDict):
    """What a language-model step takes.

    ``tokens (batch, length)`` int64; ``lengths (batch,)``, ``None`` or absent where all rows are whole; ``answers
    (batch, length)`` marks the tokens that a task asks for, ``None`` or absent for plain text; ``bytes (batch,
    length)`` int64 says how many bytes of the text each token stands for, and is absent where every token is a byte.
    Any loader will do that gives such a dict: ``{"tokens": ...}`` is one.
    """

    tokens: Tensor
    lengths: NotRequired[Tensor | None]
    answers: NotRequired[Tensor | None]
    bytes: NotRequired[Tensor]


class LabelledBatch(TypedDict):
    """What a classifier's step takes: ``tokens`` and ``lengths`` as in :class:`Batch`, ``labels (batch,)`` int64."""

    tokens: Tensor
    lengths: NotRequired[Tensor | None]
    labels: Tensor


@dataclass(frozen=True)
class Sample:
    """One row of a batch: ``tokens (length,)`` and what comes with them.

    Args:
        tokens: ``(length,)`` int64.
        answers: ``(length,)`` bool, of a task.
        bytes: ``(length,)`` int64, where tokens are not bytes.
        label: class of the row, for a classifier.
    """

    tokens: Tensor
    answers: Tensor | None = None
    bytes: Tensor | None = None
    label: int | None = None


def collate(samples: Sequence[Sample], *, vocabulary: int = 256) -> Batch:
    """Pad samples to one length; zeros stand behind a row's end.

    Raises:
        ValueError: a token outside 0 to vocabulary - 1, or answers or bytes in some samples only.
    """
    tokens, lengths = _rows(samples, vocabulary)
    answers = _of_all("answers", [sample.answers for sample in samples])
    counts = _of_all("bytes", [sample.bytes for sample in samples])
    batch = Batch(tokens=tokens, lengths=lengths, answers=_padded(answers) if answers else None)
    if counts:
        batch["bytes"] = _padded(counts)
    return batch


def collate_labelled(samples: Sequence[Sample], *, vocabulary: int = 256) -> LabelledBatch:
    """Pad labelled samples to one length; zeros stand behind a row's end.

    Raises:
        ValueError: a token outside 0 to vocabulary - 1, or a sample without a label.
    """
    tokens, lengths = _rows(samples, vocabulary)
    labels = [sample.label for sample in samples if sample.label is not None]
    if len(labels) < len(samples):
        raise ValueError(f"{len(labels)} of {len(samples)} samples have a label; allowed: all")
    return LabelledBatch(tokens=tokens, lengths=lengths, labels=torch.tensor(labels))


def _rows(samples: Sequence[Sample], vocabulary: int) -> tuple[Tensor, Tensor | None]:
    """Tokens, checked and padded, and the lengths of rows that differ."""
    for sample in samples:
        if not len(sample.tokens) or not 0 <= sample.tokens.min() <= sample.tokens.max() < vocabulary:
            span = f"{int(sample.tokens.min())} to {int(sample.tokens.max())}" if len(sample.tokens) else "none"
            raise ValueError(
                f"tokens of a sample are out of range: {span}; allowed: at least one, 0 to {vocabulary - 1}"
            )
    lengths = torch.tensor([len(sample.tokens) for sample in samples])
    ragged = bool((lengths != lengths[0]).any())
    return _padded([sample.tokens for sample in samples]), lengths if ragged else None


def _of_all(name: str, values: list[Tensor | None]) -> list[Tensor]:
    given = [value for value in values if value is not None]
    if len(given) not in (0, len(values)):
        raise ValueError(f"{len(given)} of {len(values)} samples mark {name}; allowed: all or none")
    return given


def _padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class SampleDataModule(L.LightningDataModule):
    """Serves :meth:`train_sample` without end and :meth:`validation_set` once.

    Training sample i depends on the seed and i alone, whoever asks for it: ranks take every n-th, and a run that
    resumes, on however many ranks and in batches of whatever size, goes on with the sample after the last of those
    that were read. Data that can only be read in order give :meth:`train_stream` instead. With ``overfit_batches``
    every epoch reads the same samples. Validation on several ranks reads some samples twice where they do not come out
    even: Lightning's sampler fills up. Measure on one for exact figures.

    Args:
        batch_size: rows per batch and rank.
        seed: of the training samples.
        num_workers: processes that prepare batches, 0 for the training process itself.

    Raises:
        ValueError: a batch size below 1, or a negative number of workers.
    """

    vocabulary: int = 256

    def __init__(self, *, batch_size: int, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("num_workers", num_workers, least=0)
        check_count("seed", seed, least=0)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self._before = 0
        self._counted: tuple[L.Trainer, int] | None = None
        self._told: tuple[int, int] | None = None

    def train_sample(self, index: int) -> Sample:
        """Training sample ``index``."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        # workers are given the data, not the trainer that holds it, and what is asked of that
        known = {"trainer": None, "_before": self.position(), "_counted": None, "_told": self._reader()}
        return {**self.__dict__, **known}

    @property
    def rows_per_step(self) -> int:
        """Samples that all ranks together take at once: these have one length in tasks that grow."""
        return self.batch_size * self._reader()[1]

    def validation_set(self) -> Dataset[Sample]:
        """The same samples on every run."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        self.position()  # counts from here on, also for workers that first look in a later epoch
        return self._loader(self.train_stream(*self._reader()))

    def _reader(self) -> tuple[int, int]:
        """See :func:`~wavecomp.training.steps.reader_of`."""
        if not self.trainer:
            return self._told or (0, 1)
        return reader_of(self.trainer)

    def train_stream(self, rank: int, ranks: int) -> IterableDataset[Sample]:
        """Training samples of one rank without end, whenever it is begun after those that were read."""
        return _Stream(self, rank=rank, ranks=ranks)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.validation_set())

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def _loader(self, samples: Dataset[Sample]) -> DataLoader[Any]:
        return DataLoader(samples, batch_size=self.batch_size, collate_fn=self.collate, num_workers=self.num_workers)

    def collate(self, samples: Sequence[Sample]) -> Batch | LabelledBatch:
        """Samples to a batch, checked against the vocabulary."""
        return collate(samples, vocabulary=self.vocabulary)

    def position(self) -> int:
        """The next training sample: all ranks have read as many. The first one where an epoch is as the one before."""
        if not self.trainer:
            return self._before
        if getattr(self.trainer, "overfit_batches", 0):
            return 0
        batches = batches_of(self.trainer)
        if self._counted is None or self._counted[0] is not self.trainer:
            self._counted = self.trainer, batches  # by the runs before this one
        # a trainer that resumes may ask before its own progress is restored, which is this data's last
        return self._before + max(batches - self._counted[1], 0) * self.rows_per_step

    def state_dict(self) -> dict[str, int]:
        """How many samples all ranks have read, in how many batches; kept in checkpoints."""
        return {"position": self.position(), "batches": batches_of(self.trainer) if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        # checkpoints had the samples of each rank before, and no batches
        self._before = state_dict.get("position", state_dict.get("samples", 0) * self._reader()[1])
        counted = state_dict.get("batches")
        self._counted = None if self.trainer is None or counted is None else (self.trainer, counted)


class _Stream(IterableDataset[Sample]):
    """Every ``ranks``-th sample without end, after those that were read; whole batches go round the workers."""

    def __init__(self, data: SampleDataModule, *, rank: int, ranks: int) -> None:
        self.data, self.rank, self.ranks = data, rank, ranks

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        batch, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first = self.data.position()  # an epoch goes on where the last one ended
        while True:
            for row in range(batch * self.data.batch_size, (batch + 1) * self.data.batch_size):
                yield self.data.train_sample(first + row * self.ranks + self.rank)
            batch += workers


class Generated(Dataset[Sample]):
    """Validation samples that a task makes by number."""

    def __init__(self, make: Callable[[int], Sample], count: int) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        return self.make(index)
