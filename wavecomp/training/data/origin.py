"""Pieces of several texts, for classifiers: which of them is a piece from?"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from wavecomp.records import check_count
from wavecomp.training.data.samples import Generated, LabelledBatch, Sample, SampleDataModule, collate_labelled
from wavecomp.training.data.text import PYTHON_STDLIB, Corpus, find_files, split


class OriginDataModule(SampleDataModule):
    """Pieces of several texts, labelled with which of them they are from; each text is drawn equally often.

    Texts are split into training and validation as :class:`TextDataModule` splits them, each by itself: by file where
    it has several, so that none is met again. Batches are :class:`LabelledBatch`.

    Args:
        sources: a file, a folder or a glob pattern for each text; ``"python-stdlib/"`` at its beginning stands for the
            folder of Python's own library.
        length: bytes per piece.
        batch_size: pieces per batch.
        validation_share: share of each text that is kept for validation.
        validation_samples: pieces of each text to validate on, at even distances.
        seed: of what is drawn in training.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: fewer than two sources, a length or a number of samples below 1, a share outside (0, 1), or a text
            too short for a piece.
        FileNotFoundError: no file at a source.
        OSError: a file that cannot be read, by name.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str],
        length: int = 1024,
        batch_size: int = 16,
        validation_share: float = 0.1,
        validation_samples: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        if len(sources) < 2:
            raise ValueError(f"sources={list(sources)} has nothing to tell apart; allowed: two and above")
        for name, value in (("length", length), ("validation_samples", validation_samples)):
            check_count(name, value)
        if not 0 < validation_share < 1:
            raise ValueError(f"validation_share={validation_share} is out of range; allowed: between 0 and 1")
        self.classes = list(sources)
        self.length = length
        self.validation_samples = validation_samples
        self.texts = [split(find_files(_path(source)), validation_share) for source in sources]
        for source, corpora in zip(sources, self.texts):
            for name, corpus in zip(("training", "validation"), corpora):
                if len(corpus) < length:
                    raise ValueError(
                        f"source {source!r} holds {len(corpus)} bytes for {name}, too few for one of length={length}"
                    )

    def train_sample(self, index: int) -> Sample:
        random = np.random.default_rng([self.seed, index])
        label = int(random.integers(len(self.classes)))
        corpus, _ = self.texts[label]
        return self._piece(label, corpus, int(random.integers(len(corpus) - self.length + 1)))

    def validation_sample(self, index: int) -> Sample:
        """Validation piece ``index``: the texts take turns."""
        place, label = divmod(index, len(self.classes))
        _, corpus = self.texts[label]
        return self._piece(label, corpus, place * (len(corpus) - self.length) // max(self.validation_samples - 1, 1))

    def validation_set(self) -> Dataset[Sample]:
        return Generated(self.validation_sample, self.validation_samples * len(self.classes))

    def collate(self, samples: Sequence[Sample]) -> LabelledBatch:
        return collate_labelled(samples, vocabulary=self.vocabulary)

    def _piece(self, label: int, corpus: Corpus, start: int) -> Sample:
        return Sample(torch.from_numpy(corpus.read(start, self.length).astype(np.int64)), label=label)


def _path(source: str) -> str:
    """A source with the folder of Python's library for its name."""
    inside = source.removeprefix(f"{PYTHON_STDLIB}/")
    return source if inside == source else f"{sysconfig.get_path('stdlib')}/{inside}"
