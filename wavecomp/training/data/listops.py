"""ListOps of the Long Range Arena: nested lists of digits to be worked out."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
from pathlib import Path

import numpy as np

from wavecomp.training.data.classification import (
    UNREADABLE,
    ClassificationDataModule,
    Document,
    hold_out,
    reason,
)

TOKENS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "[MIN", "[MAX", "[MED", "[SM", "]")
FIRST_OPENING, CLOSING = 10, 14
HEADER = [b"Source", b"Target"]
VALUES = [b"%d" % value for value in range(10)]
SILENT = 255  # a byte that is no token
WORDS = re.compile(rb"(?:[ ()\]]++|\d(?!\d)|\[(?:MIN|MAX|MED|SM))*+")


def _codes() -> np.ndarray:
    """A token, or none, for each byte: one letter of each opening names it."""
    codes = np.full(256, SILENT, dtype=np.uint8)
    codes[list(b"0123456789")] = np.arange(10)
    codes[list(b"IAES]")] = np.arange(FIRST_OPENING, CLOSING + 1)
    return codes


CODES = _codes()


class ListOpsDataModule(ClassificationDataModule):
    """Nested lists such as ``[MAX 4 3 [MIN 2 3 ] 1 0 ]`` with their value, one of ten classes.

    Files are those of the Long Range Arena: lines of ``Source`` and ``Target`` with a tab between, below a header that
    says so; also as ``.xz`` or ``.gz``. Tokens are ten digits, four openings of a list (``[MIN``, ``[MAX``, ``[MED``
    for the median, ``[SM`` for the sum modulo 10) and its end, 15 in all. Round brackets are left out: they repeat
    what the square ones say, and published lengths (500 to 2,000) do not count them. Lists are never cut, for that
    would change their value.

    Args:
        source: a file.
        validation_source: another to validate on; ``validation_share`` of the source unless given.
        validation_share: share of each class that is kept for validation: the lines whose content has the lowest
            SHA-256.
        batch_size: lists per batch.
        seed: of the order in training.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: a file that is not there or cannot be read, one without header or lines, a line that is no list
            with a value, or a share outside 0 to 1.
    """

    def __init__(
        self,
        *,
        source: str,
        validation_source: str | None = None,
        validation_share: float = 0.1,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        documents = list(read_lists(source))
        if validation_source is None:
            train, validation = hold_out(documents, validation_share, TOKENS[:10])
        else:
            train, validation = documents, list(read_lists(validation_source))
        super().__init__(
            train=train,
            validation=validation,
            classes=TOKENS[:10],
            vocabulary=len(TOKENS),
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )


def read_lists(source: str) -> list[Document]:
    """The lists of a file and their values.

    Raises:
        ValueError: a file that is not there or cannot be read, one without header or lines, or a line that is no list
            with a value.
    """
    try:
        content = _open(Path(source))
    except UNREADABLE as error:
        raise ValueError(
            f"source={source!r} cannot be read ({reason(error)}); allowed: a file, .xz and .gz too"
        ) from error
    header, *lines = content.splitlines() or [b""]
    if header.split(b"\t") != HEADER:
        raise ValueError(f"source={source!r} opens with {header[:40]!r}; allowed: a header of Source, a tab and Target")
    if not lines:
        raise ValueError(f"source={source!r} has a header and nothing else; allowed: one list and above")
    return [_document(source, number, line) for number, line in enumerate(lines, start=2)]


def _open(source: Path) -> bytes:
    if source.suffix == ".xz":
        return lzma.decompress(source.read_bytes())
    return gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes()


def _document(source: str, number: int, line: bytes) -> Document:
    text, _, value = line.partition(b"\t")
    codes = CODES[np.frombuffer(text, dtype=np.uint8)]
    tokens = codes[codes != SILENT]
    if not WORDS.fullmatch(text) or not _is_one_list(tokens):
        raise ValueError(
            f"source={source!r}, line {number} holds {text[:40]!r}, which is no list; "
            f"allowed: {' '.join(TOKENS)} and round brackets"
        )
    if value not in VALUES:
        raise ValueError(
            f"source={source!r}, line {number} has Target={value.decode(errors='replace')!r}; allowed: 0 to 9"
        )
    return Document(tokens, int(value), hashlib.sha256(text).digest())


def _opens(tokens: np.ndarray) -> np.ndarray:
    return (tokens >= FIRST_OPENING) & (tokens < CLOSING)


def _is_one_list(tokens: np.ndarray) -> bool:
    """Whether it opens first and closes last, and no list within is empty."""
    depth = np.cumsum(_opens(tokens).astype(int) - (tokens == CLOSING))
    empty = _opens(tokens[:-1]) & (tokens[1:] == CLOSING)
    return len(tokens) > 0 and bool((depth[:-1] > 0).all()) and depth[-1] == 0 and not empty.any()
