"""Text from the Hugging Face Hub, streamed, in bytes or in the tokens of a tokenizer."""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from wavecomp.training.data.pieces import text_bytes
from wavecomp.training.data.samples import Generated, Sample, SampleDataModule

# documents that are taken from the stream at once
TAKEN = 64


class Utf8:
    """Text to its bytes."""

    vocabulary = 256

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, and how many bytes of the text each stands for: ``(length,)`` each."""
        tokens = text_bytes(text)
        return tokens, np.ones(len(tokens), dtype=np.int64)


class HubTokenizer:
    """Text to the tokens of a tokenizer.

    Args:
        name: of a tokenizer on the Hub, or the path of a ``tokenizer.json``.

    Raises:
        ImportError: without ``tokenizers``.
        ValueError: a tokenizer that cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        tokenizers = _extra("tokenizers")
        load = tokenizers.Tokenizer.from_file if Path(name).is_file() else tokenizers.Tokenizer.from_pretrained
        try:
            self.tokenizer = load(name)
        except Exception as error:  # the library raises nothing finer
            raise ValueError(
                f"tokenizer={name!r} cannot be loaded ({error}); allowed: a name on the Hub, a tokenizer.json, or None"
            ) from error
        # some files cut every text at the length of their model
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocabulary = max(self.tokenizer.get_vocab().values()) + 1

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, and how many bytes of the text each stands for: ``(length,)`` each."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ends = np.array([end for _, end in encoding.offsets], dtype=np.int64)
        return np.array(encoding.ids, dtype=np.int64), bytes_per_token(text, ends)


def bytes_per_token(text: str, ends: np.ndarray) -> np.ndarray:
    """Bytes of a text that are read up to the end of each token and not before, so that they add up to all of it.

    What a tokenizer drops, such as spaces, counts for the token after it, or for the last; of several tokens that make
    up one character the first counts all of its bytes.

    Args:
        text: of which the tokens are.
        ends: ``(length,)`` characters up to the end of each token.

    Returns:
        ``(length,)`` int64.

    Example:
        >>> bytes_per_token("ein Öl ", np.array([3, 6])).tolist()
        [3, 5]
    """
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (characters[:, None] >= np.array([0x80, 0x800, 0x10000])).sum(axis=1)
    read = np.concatenate([[0], np.cumsum(widths)])[np.maximum.accumulate(ends)]
    read[-1] = widths.sum()
    return np.diff(read, prepend=0)


class HubTextDataModule(SampleDataModule):
    """Text of a data set on the Hugging Face Hub, streamed, for language models. Needs ``pip install 'wavecomp[hub]'``.

    Batches say how many bytes of the text each token stands for, so that bits per byte can be told whatever the
    tokens. Each rank and worker reads its own share of the documents; training never ends, each epoch in another order.
    A run that resumes with as many ranks and workers goes on with the row after the last that it learned from; for
    that it reads again what came before.

    Args:
        dataset: name on the Hub, or a folder of text, JSON lines or Parquet files.
        subset: of the data set, where it has several.
        split: to train on.
        column: that holds the text.
        tokenizer: name on the Hub or path of a ``tokenizer.json``; the bytes of the text in UTF-8 unless given.
        length: tokens per row.
        packed: documents are joined and cut into full rows; otherwise each is a row, cut off at ``length``.
        separator: text behind each document where they are joined, such as ``"<|endoftext|>"``; it counts no bytes.
        batch_size: rows per batch.
        validation_split: to validate on; documents held out of ``split`` unless given.
        validation_share: share of the documents that is held out: those whose text has a low SHA-256, so the same
            ones in any order.
        validation_documents: how many of them to validate on, the first.
        shuffle: documents that are kept to draw the next one from, 0 to take them in order.
        seed: of the order in training.
        num_workers: processes that prepare batches.

    Raises:
        ImportError: without the libraries.
        ValueError: a length or number of documents below 1, a share outside 0 to 1, or a tokenizer, data set, split or
            column that is not there; data sets are looked up when they are first read.
    """

    def __init__(
        self,
        *,
        dataset: str,
        subset: str | None = None,
        split: str = "train",
        column: str = "text",
        tokenizer: str | None = None,
        length: int = 1024,
        packed: bool = True,
        separator: str = "\n\n",
        batch_size: int = 16,
        validation_split: str | None = None,
        validation_share: float = 0.02,
        validation_documents: int = 256,
        shuffle: int = 1000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        for name, value, least in (
            ("length", length, 1),
            ("validation_documents", validation_documents, 1),
            ("shuffle", shuffle, 0),
        ):
            if value < least:
                raise ValueError(f"{name}={value} is too small; allowed: {least} and above")
        if not 0 < validation_share < 1:
            raise ValueError(f"validation_share={validation_share} is out of range; allowed: between 0 and 1")
        _extra("datasets")
        self.dataset = dataset
        self.subset = subset
        self.split = split
        self.column = column
        self.length = length
        self.packed = packed
        self.validation_split = validation_split
        self.validation_share = validation_share
        self.validation_documents = validation_documents
        self.shuffle = shuffle
        self.encode: Callable[[str], tuple[np.ndarray, np.ndarray]]
        self.encode = encoder = Utf8() if tokenizer is None else HubTokenizer(tokenizer)
        self.vocabulary = encoder.vocabulary
        self.separator = encoder(separator)[0]

    def train_stream(self, rank: int, ranks: int) -> IterableDataset[Sample]:
        return _Rows(self, self._train, rank=rank, ranks=ranks)

    def validation_set(self) -> Dataset[Sample]:
        return Generated(self._validation.__getitem__, len(self._validation))

    @functools.cached_property
    def _validation(self) -> list[Sample]:
        split = self.validation_split
        texts = self._texts(self._load(split or self.split).iter(TAKEN))
        chosen = texts if split else filter(self._is_held_out, texts)
        rows = list(self.rows(itertools.islice(chosen, self.validation_documents)))
        if not rows:
            raise ValueError(
                f"validation_share={self.validation_share} holds out no text of dataset={self.dataset!r}, "
                f"split={split or self.split!r}; allowed: a larger share, or a validation_split"
            )
        return rows

    @functools.cached_property
    def _train(self) -> Any:
        loaded = self._load(self.split)
        return loaded.shuffle(seed=self.seed, buffer_size=self.shuffle) if self.shuffle else loaded

    def train_texts(self, loaded: Any, part: int, parts: int) -> Iterator[str]:
        """The documents of one part of a loaded data set, epoch after epoch.

        Raises:
            ValueError: a part without documents.
        """
        for epoch in itertools.count():
            texts = filter(None, self.epoch_texts(loaded, part, parts, epoch))
            first = next(texts, None)
            if first is None:
                raise ValueError(
                    f"dataset={self.dataset!r}, split={self.split!r} has no text for part {part + 1} of {parts}; "
                    "allowed: at least one document for each rank and worker"
                )
            yield first
            yield from texts

    def epoch_texts(self, loaded: Any, part: int, parts: int, epoch: int) -> Iterator[str]:
        """The documents of one part in one epoch; all parts together hold each document once."""
        share = _extra("datasets.distributed").split_dataset_by_node(loaded, rank=part, world_size=parts)
        share.set_epoch(epoch)
        # iter, and not __iter__, for that would leave out what it thinks other workers read
        texts = self._texts(share.iter(TAKEN))
        return texts if self.validation_split else itertools.filterfalse(self._is_held_out, texts)

    def rows(self, texts: Iterable[str]) -> Iterator[Sample]:
        """Documents to rows; of joined ones the last may be short."""
        encoded = (self.encode(text) for text in texts if text)
        if self.packed:
            return pack(encoded, length=self.length, separator=self.separator)
        return (_sample(tokens[: self.length], counts[: self.length]) for tokens, counts in encoded if len(tokens))

    def _load(self, split: str) -> Any:
        try:
            return _extra("datasets").load_dataset(self.dataset, self.subset, split=split, streaming=True)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"dataset={self.dataset!r}, subset={self.subset!r}, split={split!r} cannot be loaded: {error}"
            ) from error

    def _texts(self, taken: Iterable[dict[str, list[Any]]]) -> Iterator[str]:
        for columns in taken:
            if self.column not in columns:
                raise ValueError(
                    f"column={self.column!r} is not in dataset={self.dataset!r}; allowed: {', '.join(columns)}"
                )
            for text in columns[self.column]:
                if not isinstance(text, str):
                    raise ValueError(f"column={self.column!r} holds {type(text).__name__}; allowed: text")
                yield text

    def _is_held_out(self, text: str) -> bool:
        low = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        return low < self.validation_share * 2**64


class _Rows(IterableDataset[Sample]):
    """Rows of one rank without end, after those that it has learned from; whole batches go round the workers."""

    def __init__(self, data: HubTextDataModule, loaded: Any, *, rank: int, ranks: int) -> None:
        self.data, self.loaded = data, loaded
        self.rank, self.ranks = rank, ranks

    def __iter__(self) -> Iterator[Sample]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        batches = self.data.position() // (self.ranks * self.data.batch_size)
        # the first worker serves the next batch: it takes over from the one whose turn it was
        turn = (worker + batches) % workers
        done = len(range(turn, batches, workers)) * self.data.batch_size
        texts = self.data.train_texts(self.loaded, self.rank * workers + turn, self.ranks * workers)
        return itertools.islice(self.data.rows(texts), done, None)


def pack(documents: Iterable[tuple[np.ndarray, np.ndarray]], *, length: int, separator: np.ndarray) -> Iterator[Sample]:
    """Join documents, each with a separator behind it, and cut them into rows.

    Args:
        documents: tokens and bytes per token of each, ``(count,)``.
        length: tokens per row; the last row may be short.
        separator: tokens between documents, which count no bytes.

    Example:
        >>> documents = [(np.array([5, 6, 7]), np.array([1, 2, 1])), (np.array([8]), np.array([4]))]
        >>> [(row.tokens.tolist(), row.bytes.tolist()) for row in pack(documents, length=4, separator=np.array([0]))]
        [([5, 6, 7, 0], [1, 2, 1, 0]), ([8, 0], [4, 0])]
    """
    tokens, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for document, widths in documents:
        tokens = np.concatenate([tokens, document, separator])
        counts = np.concatenate([counts, widths, np.zeros_like(separator)])
        full = len(tokens) // length * length
        for start in range(0, full, length):
            yield _sample(tokens[start : start + length], counts[start : start + length])
        tokens, counts = tokens[full:], counts[full:]
    if len(tokens):
        yield _sample(tokens, counts)


def _sample(tokens: np.ndarray, counts: np.ndarray) -> Sample:
    return Sample(
        tokens=torch.from_numpy(tokens.astype(np.int64)), bytes=torch.from_numpy(counts.astype(np.int64, copy=False))
    )


def _extra(module: str) -> Any:
    """A module of the optional libraries.

    Raises:
        ImportError: when it is not there.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"{module} is not installed; to read from the Hub: pip install 'wavecomp[hub]'") from error
