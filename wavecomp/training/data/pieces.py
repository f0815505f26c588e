"""Text as arrays of bytes: words, numbers and lists of them, made without a loop over bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WIDTHS = {"words": 6, "numbers": 7, "uuids": 36}


def text_bytes(text: str | bytes) -> np.ndarray:
    """Text as uint8."""
    return np.frombuffer(text.encode() if isinstance(text, str) else text, dtype=np.uint8)


def draw(random: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """``count`` different words, numbers of seven digits, or uuids: ``(count, width)`` bytes."""
    if kind == "words":
        return letters(random, count)
    if kind == "numbers":
        return digits(random.choice(9_000_000, size=count, replace=False) + 1_000_000, 7)
    figures = random.integers(16, size=(count, 32))
    figures[:, 12] = 4  # the version and variant of random uuids
    figures[:, 16] = 8 + figures[:, 16] % 4
    return np.insert(text_bytes(b"0123456789abcdef")[figures], [8, 12, 16, 20], ord("-"), axis=1)


def letters(random: np.random.Generator, count: int, width: int = 6) -> np.ndarray:
    """``count`` different words of lower-case letters: ``(count, width)`` bytes."""
    numbers = random.choice(26**width, size=count, replace=False)
    return (numbers[:, None] // 26 ** np.arange(width) % 26 + ord("a")).astype(np.uint8)


def digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Decimal numbers, ``(count, width)`` bytes; zero bytes stand before short ones."""
    powers = 10 ** np.arange(width)[::-1]
    figures = numbers[:, None] // powers
    return np.where(figures > 0, figures % 10 + ord("0"), 0).astype(np.uint8)


def columns(*parts: str | np.ndarray) -> np.ndarray:
    """``(count, width)`` bytes side by side, with the same text between them in each row."""
    count = next(len(part) for part in parts if isinstance(part, np.ndarray))
    wide = [np.broadcast_to(text_bytes(part), (count, len(part))) if isinstance(part, str) else part for part in parts]
    return np.concatenate(wide, axis=1)


def without_zeros(rows: np.ndarray) -> np.ndarray:
    """All rows as one text; zero bytes fill up rows of unequal width and are left out."""
    return rows[rows != 0]


def decode(word: np.ndarray) -> str:
    """Bytes to text."""
    return word.tobytes().decode()


def hide(
    random: np.random.Generator, text: np.ndarray, lines: np.ndarray | Sequence[np.ndarray], places: np.ndarray
) -> np.ndarray:
    """Lines in order, at random places of a text: its beginning, or one of ``places``."""
    starts = np.sort(random.choice(np.concatenate([[0], places]), size=len(lines)))
    pieces = np.split(text, starts)
    return np.concatenate([pieces[0], *[part for line, piece in zip(lines, pieces[1:]) for part in (line, piece)]])
