"""Passkey retrieval: one number in a long stretch of noise."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from wavecomp.records import check_count
from wavecomp.training.data.pieces import text_bytes
from wavecomp.training.data.samples import Sample
from wavecomp.training.data.tasks import NOISE, Answer, TaskDataModule, length_growth, write

LARGEST = 50_000
INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)


class PasskeyDataModule(TaskDataModule):
    """A number from 1 to 50,000, said on one line among noise and asked for at the end, as in Landmark Attention.

    The answer is the number and the full stop behind it; :func:`passkey_match` scores what a model says. One number is
    a weak signal to train on: with ``passkeys=12`` there are 12, called ``pass key 1`` to ``pass key 12``, and all are
    asked for, in another order.

    Args:
        length: bytes per sample, question and answer included.
        passkeys: numbers per sample.
        depth: share of the noise before the line with the number, 0 to 1; drawn uniformly unless given.
        ends: share of the samples whose number stands before or behind all noise instead, as often the one as the
            other: places that are rarely drawn, and that tests ask for.
        batch_size: rows per batch.
        curriculum: training samples while it grows, the last of them of full length; 0 to start with that.
        shortest: length that the curriculum starts with, the least that holds the numbers unless given.
        steps: in how many steps it grows, each by the same factor.
        validation_samples: rows of validation.
        seed: of the training samples; validation is the same for all.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: fewer than one passkey, a length that does not hold them, a depth or a share of ends outside 0 to 1,
            or either for several.

    Example:
        >>> from wavecomp.training.data import prompt_and_references
        >>> sample = PasskeyDataModule(length=400, depth=0.5).train_sample(0)
        >>> prompt, references = prompt_and_references(sample)
        >>> bytes(prompt[-38:].tolist()), passkey_match("It is " + references[0], references[0])
        (b'What is the pass key? The pass key is ', True)
    """

    def __init__(
        self,
        *,
        length: int = 1024,
        passkeys: int = 1,
        depth: float | None = None,
        ends: float = 0.0,
        batch_size: int = 16,
        curriculum: int = 0,
        shortest: int | None = None,
        steps: int = 4,
        validation_samples: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            curriculum=curriculum,
            validation_samples=validation_samples,
            seed=seed,
            num_workers=num_workers,
        )
        check_count("passkeys", passkeys)
        if depth is not None and not 0 <= depth <= 1:
            raise ValueError(f"depth={depth} is out of range; allowed: 0 to 1, or None")
        if not 0 <= ends <= 1:
            raise ValueError(f"ends={ends} is out of range; allowed: 0 to 1")
        if depth is not None and passkeys > 1:
            raise ValueError(f"depth={depth} places one passkey, not passkeys={passkeys}; allowed: depth=None")
        if ends and (depth is not None or passkeys > 1):
            raise ValueError(f"ends={ends} is for one passkey at any depth; allowed: 0")
        self.passkeys = passkeys
        self.depth = depth
        self.ends = ends
        self.names = ["pass key"] if passkeys == 1 else [f"pass key {number}" for number in range(1, passkeys + 1)]
        longest = write(*self._parts([LARGEST] * passkeys, range(passkeys), [0] * (passkeys + 1)))
        self.growth = length_growth(
            length=length,
            least=len(longest.tokens),
            holds=f"passkeys={passkeys}",
            shortest=shortest,
            steps=steps,
        )

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        keys = random.integers(1, LARGEST + 1, size=self.passkeys).tolist()
        order = random.permutation(self.passkeys).tolist()
        depths = np.sort(random.random(self.passkeys)) if self.depth is None else np.array([self.depth])
        if self.ends and random.random() < self.ends:
            depths = depths.round()
        without = len(write(*self._parts(keys, order, [0] * (self.passkeys + 1))).tokens)
        noise = self.growth.at(share) - without
        gaps = np.diff(np.round(depths * noise).astype(int), prepend=0, append=noise).tolist()
        return write(*self._parts(keys, order, gaps))

    def _parts(self, keys: Sequence[int], order: Sequence[int], gaps: Sequence[int]) -> list[str | np.ndarray | Answer]:
        """Introduction, noise of ``gaps`` bytes around the keys, and questions in an order."""
        parts: list[str | np.ndarray | Answer] = [INTRODUCTION + "\n", _noise(gaps[0]), "\n"]
        for name, key, gap in zip(self.names, keys, gaps[1:]):
            parts += [f"The {name} is {key}. Remember it. {key} is the {name}.\n", _noise(gap), "\n"]
        for place, number in enumerate(order):
            name = self.names[number]
            parts += ["\n" * (place > 0), f"What is the {name}? The {name} is ", Answer(f"{keys[number]}.")]
        return parts


def _noise(count: int) -> np.ndarray:
    return np.resize(text_bytes(NOISE + b" "), count)


def passkey_match(answer: str, reference: str) -> bool:
    """Whether the first integer of an answer is that of the reference.

    Example:
        >>> passkey_match(" 1234. And 5", "1234."), passkey_match("12345", "1234."), passkey_match("none", "1234.")
        (True, False, False)

    Raises:
        ValueError: a reference without an integer.
    """
    expected = re.search(r"\d+", reference)
    if expected is None:
        raise ValueError(f"reference={reference!r} has no integer; allowed: text with one")
    found = re.search(r"\d+", answer)
    # as text: an answer may go on for more digits than Python makes numbers of
    return found is not None and found[0].lstrip("0") == expected[0].lstrip("0")
