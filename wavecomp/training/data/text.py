"""Bytes of text files, memory-mapped."""

from __future__ import annotations

import bisect
import functools
import glob
import hashlib
import itertools
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from wavecomp.records import check_count
from wavecomp.training.data.samples import Sample, SampleDataModule

PYTHON_STDLIB = "python-stdlib"


@dataclass(frozen=True)
class Piece:
    """A stretch of one file, in bytes."""

    path: Path
    start: int
    stop: int


class Stamp(NamedTuple):
    """What changes with the content of a file."""

    device: int
    node: int
    size: int
    time: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """That of a file as it is now."""
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Corpus:
    """Stretches of files, read as one long sequence of bytes. Nothing is held in memory.

    Args:
        pieces: in reading order.
    """

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = [Piece(piece.path.absolute(), piece.start, piece.stop) for piece in pieces]
        self.stamps = {piece.path: Stamp.of(piece.path) for piece in self.pieces}
        self.starts = [0, *itertools.accumulate(piece.stop - piece.start for piece in pieces)]

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, count: int) -> np.ndarray:
        """Bytes ``start`` to ``start + count``, as uint8.

        Raises:
            ValueError: a file that was changed since, when it is opened.
        """
        parts = []
        at = bisect.bisect_right(self.starts, start) - 1
        while count > 0:
            piece = self.pieces[at]
            begin = piece.start + start - self.starts[at]
            parts.append(_mapped(piece.path, self.stamps[piece.path])[begin : min(begin + count, piece.stop)])
            start, count, at = start + len(parts[-1]), count - len(parts[-1]), at + 1
        return np.concatenate(parts)


@functools.lru_cache(maxsize=64)
def _mapped(path: Path, stamp: Stamp) -> np.memmap:
    if Stamp.of(path) != stamp:
        raise ValueError(f"{path} was changed since it was looked at; build the data module again")
    return np.memmap(path, dtype=np.uint8, mode="r")


class TextDataModule(SampleDataModule):
    """Bytes of text, cut at random places for training and one after another for validation.

    Several files are split by file, one file (or a folder that one file makes up) by its tail; the split is the same
    on every run. Validation counts every byte of its share, or of ``validation_samples`` samples at even distances.

    Args:
        source: ``"python-stdlib"`` for the sources of Python's own library, a file, a folder (all files in it), or a
            glob pattern.
        length: bytes per sample.
        batch_size: samples per batch.
        validation_share: share of the bytes that is kept for validation.
        validation_samples: how many samples to validate on; all unless given.
        seed: of the places where training samples are cut.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: a length below 1, a share outside (0, 1), an empty corpus, or one too short for a sample.
        FileNotFoundError: no file at the source.
        OSError: a file that cannot be read, by name.
    """

    def __init__(
        self,
        *,
        source: str = PYTHON_STDLIB,
        length: int = 1024,
        batch_size: int = 16,
        validation_share: float = 0.1,
        validation_samples: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        check_count("length", length)
        if not 0 < validation_share < 1:
            raise ValueError(f"validation_share={validation_share} is out of range; allowed: between 0 and 1")
        if validation_samples is not None and validation_samples < 1:
            raise ValueError(f"validation_samples={validation_samples} is too small; allowed: 1 and above, or None")
        self.source = source
        self.length = length
        self.validation_share = validation_share
        self.validation_samples = validation_samples
        self.train, self.validation = split(find_files(source), validation_share)
        for name, corpus in (("training", self.train), ("validation", self.validation)):
            if len(corpus) < length:
                raise ValueError(
                    f"source={source!r} holds {len(corpus)} bytes for {name}, too few for one sample of length={length}"
                )

    def train_sample(self, index: int) -> Sample:
        place = np.random.default_rng([self.seed, index]).integers(len(self.train) - self.length + 1)
        return Sample(_tokens(self.train.read(int(place), self.length)))

    def validation_set(self) -> Dataset[Sample]:
        return _Segments(self.validation, self.length, self.validation_samples)


class _Segments(Dataset[Sample]):
    """A corpus, cut into samples without overlap; the last may be short."""

    def __init__(self, corpus: Corpus, length: int, count: int | None) -> None:
        every = -(-len(corpus) // length)
        self.corpus, self.length = corpus, length
        self.chosen = range(every) if count is None or count >= every else [i * every // count for i in range(count)]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        start = self.chosen[index] * self.length
        return Sample(_tokens(self.corpus.read(start, min(self.length, len(self.corpus) - start))))


def _tokens(data: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(data.astype(np.int64))


def find_files(source: str) -> list[Path]:
    """The files that a source names, sorted; empty files are left out with a warning that names them.

    Raises:
        FileNotFoundError: when there are none.
        ValueError: when all are empty.
        OSError: when one cannot be read, naming it.
    """
    if source == PYTHON_STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
        paths = [p for p in root.rglob("*.py") if not skipped & set(p.relative_to(root).parts)]
    elif Path(source).is_dir():
        paths = [p for p in below(Path(source)) if p.is_file()]
    else:
        paths = [Path(source)] if Path(source).is_file() else [Path(p) for p in glob.glob(source, recursive=True)]
        paths = [p for p in paths if p.is_file()]
    if not paths:
        raise FileNotFoundError(
            f"source={source!r} names no file; allowed: {PYTHON_STDLIB!r}, a file, a folder or a glob"
        )
    once = {path.resolve(): path for path in sorted(paths, reverse=True)}  # two links to a file are one text
    sizes = {path: _size(path) for path in sorted(once.values())}
    filled = [path for path, size in sizes.items() if size]
    empty = [str(path) for path, size in sizes.items() if not size]
    if not filled:
        raise ValueError(
            f"source={source!r} holds no bytes; empty: {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}"
        )
    if empty and source != PYTHON_STDLIB:
        warnings.warn(f"{len(empty)} empty files are left out: {', '.join(empty[:10])}", stacklevel=2)
    return filled


def below(folder: Path) -> Iterator[Path]:
    """All folders and files in a folder and in those, links to folders included; a folder that comes again is left
    out."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(here) / name for name in (*folders, *files))


def _size(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return file.seek(0, 2)
    except OSError as error:
        raise type(error)(error.errno, f"cannot read {path}: {error.strerror}") from error


def split(paths: list[Path], validation_share: float) -> tuple[Corpus, Corpus]:
    """Training and validation: by file, in an order that the files' names alone decide.

    Files that would take validation far beyond its share are passed over; what is then missing is the tail of the
    largest training file, which for one file is all there is to it.
    """
    root = paths[0].parent
    while not all(path.is_relative_to(root) for path in paths):
        root = root.parent
    shuffled = sorted(paths, key=lambda p: hashlib.sha256(p.relative_to(root).as_posix().encode()).digest())
    sizes = {path: _size(path) for path in shuffled}
    wanted = round(validation_share * sum(sizes.values()))
    chosen: dict[Path, None] = {}  # as a set, in order
    taken = 0
    for path in shuffled:
        if len(paths) > 1 and taken < wanted and taken + sizes[path] <= 1.25 * wanted:
            chosen[path] = None
            taken += sizes[path]
    validation = [Piece(path, 0, sizes[path]) for path in chosen]
    training = {path: Piece(path, 0, sizes[path]) for path in shuffled if path not in chosen}
    missing = wanted - sum(piece.stop for piece in validation)
    if missing > 0.25 * wanted:
        largest = max(training, key=lambda p: sizes[p])
        edge = max(sizes[largest] - missing, 0)
        training[largest] = Piece(largest, 0, edge)
        validation.append(Piece(largest, edge, sizes[largest]))
    return Corpus(list(training.values())), Corpus(validation)
