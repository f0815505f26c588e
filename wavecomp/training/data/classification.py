"""Labelled documents in memory, for classifiers, and those that lie in a folder per class."""

from __future__ import annotations

import functools
import hashlib
import lzma
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch.utils.data import Dataset

from wavecomp.records import check_count
from wavecomp.training.data.samples import Generated, LabelledBatch, Sample, SampleDataModule, collate_labelled
from wavecomp.training.data.text import below

# what opening a file that is no archive, or half of one, raises
UNREADABLE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, KeyError)  # a link to nothing


@dataclass(frozen=True)
class Document:
    """Tokens ``(length,)`` uint8, the number of their class, and a digest of all that was there."""

    tokens: np.ndarray
    label: int
    digest: bytes


class ClassificationDataModule(SampleDataModule):
    """Serves labelled documents: for training in a new order each epoch, for validation in that of their digests.

    Batches are :class:`LabelledBatch`. Epochs follow each other without a break, and a run that resumes goes on with
    the document after the last that it learned from.

    Args:
        train: documents to learn from.
        validation: documents to validate on.
        classes: names of the classes, by label.
        vocabulary: how many different tokens there are.
        batch_size: documents per batch.
        seed: of the order in training.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        *,
        train: Sequence[Document],
        validation: Sequence[Document],
        classes: Sequence[str],
        vocabulary: int = 256,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        self.train = train
        # mixed, so that the first batches hold all classes
        self.validation = sorted(validation, key=lambda document: document.digest)
        self.classes = list(classes)
        self.vocabulary = vocabulary

    def train_sample(self, index: int) -> Sample:
        epoch, place = divmod(index, len(self.train))
        return _sample(self.train[_order(self.seed, epoch, len(self.train))[place]])

    def validation_sample(self, index: int) -> Sample:
        """Validation document ``index``."""
        return _sample(self.validation[index])

    def validation_set(self) -> Dataset[Sample]:
        return Generated(self.validation_sample, len(self.validation))

    def collate(self, samples: Sequence[Sample]) -> LabelledBatch:
        return collate_labelled(samples, vocabulary=self.vocabulary)


class FolderClassificationDataModule(ClassificationDataModule):
    """Bytes of text files that lie in a folder per class, or in a ``.tar``, ``.tar.gz`` or ``.tar.xz`` of such folders.

    The class of a file is the folder below the source that it lies in, at any depth; a single outermost folder is
    entered, files beside the classes and hidden ones are passed over. All documents are held in memory.

    Args:
        source: a folder or an archive.
        validation_source: another, with the same classes, to validate on; ``validation_share`` of the source unless
            given.
        validation_share: share of each class that is kept for validation: the files whose content has the lowest
            SHA-256, so the same ones on every machine, for every seed and length.
        length: bytes per document at most; the rest is cut off.
        batch_size: documents per batch.
        seed: of the order in training.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: a source that is not there or cannot be read, fewer than two classes, a class without text, other
            classes in validation, a length below 1, or a share outside 0 to 1.
    """

    def __init__(
        self,
        *,
        source: str,
        validation_source: str | None = None,
        validation_share: float = 0.1,
        length: int = 4096,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        check_count("length", length)
        classes, documents = read_classes(source, length)
        if validation_source is None:
            train, validation = hold_out(documents, validation_share, classes)
        else:
            others, validation = read_classes(validation_source, length)
            if others != classes:
                raise ValueError(
                    f"validation_source={validation_source!r} has the classes {', '.join(others)}; "
                    f"allowed: those of source={source!r}, {', '.join(classes)}"
                )
            train = documents
        super().__init__(
            train=train,
            validation=validation,
            classes=classes,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )


def hold_out(
    documents: Sequence[Document], share: float, classes: Sequence[str]
) -> tuple[list[Document], list[Document]]:
    """Training and validation documents: of each class, the share whose digests are the lowest is for validation.

    Documents of one class that say the same are on one side, all of them.

    Raises:
        ValueError: a share outside 0 to 1, or a class with a single document.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation_share={share} is out of range; allowed: between 0 and 1")
    validation: set[int] = set()
    for label in {document.label for document in documents}:
        alike: dict[bytes, list[int]] = {}
        for place, document in enumerate(documents):
            if document.label == label:
                alike.setdefault(document.digest, []).append(place)
        if len(alike) < 2:
            raise ValueError(
                f"class {classes[label]!r} has 1 document, none to validate on; "
                "allowed: 2 different ones and above, or a validation_source"
            )
        wanted, chosen = round(share * sum(map(len, alike.values()))), list[int]()
        for digest in sorted(alike)[:-1]:
            if chosen and len(chosen) >= wanted:
                break
            chosen += alike[digest]
        validation.update(chosen)
    kept = [document for place, document in enumerate(documents) if place not in validation]
    return kept, [documents[place] for place in sorted(validation)]


def read_classes(source: str, length: int) -> tuple[list[str], list[Document]]:
    """The names of the classes of a folder or archive, sorted, and all documents, each cut at ``length`` bytes.

    Raises:
        ValueError: a source that is not there or cannot be read, fewer than two classes, or a class without text.
    """
    folders: set[PurePosixPath] = set()
    files: dict[PurePosixPath, tuple[bytes, bytes]] = {}
    try:
        for path, content in _contents(Path(source)):
            if content is None:
                folders.add(path)
            else:
                files[path] = content[:length], hashlib.sha256(content).digest()
            folders.update(path.parents)
    except UNREADABLE as error:
        raise ValueError(
            f"source={source!r} cannot be read ({reason(error)}); allowed: a folder, .tar, .tar.gz or .tar.xz"
        ) from error
    root = _root(folders)
    classes = sorted(folder.name for folder in folders if folder.parent == root != folder)
    if len(classes) < 2:
        raise ValueError(
            f"source={source!r} has {len(classes)} class folders{''.join(f' {name!r}' for name in classes)}; "
            "allowed: two and above"
        )
    depth = len(root.parts)
    inside = [path for path in sorted(files) if len(path.parts) > depth + 1]
    empty = [str(path) for path in inside if not files[path][0]]
    documents = [
        Document(np.frombuffer(files[path][0], dtype=np.uint8), classes.index(path.parts[depth]), files[path][1])
        for path in inside
        if files[path][0]
    ]
    filled = {document.label for document in documents}
    missing = [name for label, name in enumerate(classes) if label not in filled]
    if missing:
        raise ValueError(f"source={source!r} has classes without text: {', '.join(missing)}; allowed: a file in each")
    if empty:
        warnings.warn(f"{len(empty)} empty files are left out: {', '.join(empty[:10])}", stacklevel=2)
    return classes, documents


def reason(error: Exception) -> str:
    """Why something could not be read, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(":")


def _contents(source: Path) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    """Paths and contents of all files, and folders with ``None``; hidden ones are passed over."""
    for path, content in _folder(source) if source.is_dir() else _archive(source):
        if not any(part.startswith(".") for part in path.parts):
            yield path, content


def _folder(source: Path) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    for path in below(source):
        inside = PurePosixPath(path.relative_to(source).as_posix())
        if path.is_dir():
            yield inside, None
        elif path.is_file():
            yield inside, path.read_bytes()


def _archive(source: Path) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isdir():
                yield PurePosixPath(member.name), None
            elif (file := archive.extractfile(member)) is not None:
                yield PurePosixPath(member.name), file.read()


def _root(folders: set[PurePosixPath]) -> PurePosixPath:
    """The folder that the classes lie in: below outermost folders that stand alone."""
    root = PurePosixPath(".")
    while True:
        inner = [folder for folder in folders if folder.parent == root != folder]
        if len(inner) != 1 or not any(folder.parent == inner[0] for folder in folders):
            return root
        root = inner[0]


def _sample(document: Document) -> Sample:
    return Sample(torch.from_numpy(document.tokens.astype(np.int64)), label=document.label)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
