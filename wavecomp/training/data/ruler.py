"""RULER: needles in haystacks, chains of variables, and words to count, at any length."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wavecomp.training.data.pieces import (
    WIDTHS,
    columns,
    decode,
    digits,
    draw,
    hide,
    letters,
    text_bytes,
    without_zeros,
)
from wavecomp.training.data.samples import Sample
from wavecomp.training.data.tasks import NOISE, Answer, TaskDataModule, length_growth, write
from wavecomp.training.data.text import PYTHON_STDLIB, Corpus, Piece, find_files


@dataclass(frozen=True)
class Needles:
    """What is hidden where: ``keys`` keys with ``values`` values each, of which ``queries`` keys are asked for."""

    haystack: str  # noise, essay, or needles: nothing but other needles
    key: str = "words"
    value: str = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1


NEEDLES = {
    "niah_single_1": Needles("noise"),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", value="uuids"),
    "niah_multikey_1": Needles("essay", keys=4),
    "niah_multikey_2": Needles("needles"),
    "niah_multikey_3": Needles("needles", key="uuids", value="uuids"),
    "niah_multivalue": Needles("essay", values=4),
    "niah_multiquery": Needles("essay", keys=4, queries=4),
}
TASKS = (*NEEDLES, "vt", "cwe", "fwe")
COMMON, COMMON_COUNT, OTHER_COUNT = 10, 30, 3
HOPS = 4
# from here on ranks 2 to 5 of the frequent words differ in count
FEWEST_WORDS = 53


class RulerDataModule(TaskDataModule):
    """The tasks of RULER, with its templates, in bytes.

    - ``niah_single_1`` to ``3``, ``niah_multikey_1`` to ``3``, ``niah_multivalue``, ``niah_multiquery``: needles such
      as "One of the special magic numbers for kwopzt is: 4190352." in noise, in an essay or among other needles.
    - ``vt``: a chain of five variables of one value; all five names are asked for.
    - ``cwe``: ten words that come 30 times among others that come three times.
    - ``fwe``: words of which that of rank k comes ``n / k^2`` times; ranks 2 to 4 are asked for, the first is noise.

    The answers are values, names or words; :func:`string_match` scores what a model says. Several values of one key
    are given as they come in the text, names along the chain, common words as they first come, frequent words by rank.
    What differs from the original: all words are six random letters, so that no list of words is needed, there is no
    worked example before a question, and the essay is any text. Question answering is left out, for it needs a data
    set.

    Args:
        task: one of the above, or several, of which each sample draws its own.
        source: text of the essay, as in :class:`TextDataModule`; the sources of Python's library unless given. Only
            for tasks with an essay.
        length: bytes per sample, question and answers included; lists end with the last entry that fits.
        batch_size: rows per batch.
        curriculum: training samples while it grows, the last of them of full length; 0 to start with that.
        shortest: length that the curriculum starts with, for each task the least that holds it unless given.
        steps: in how many steps it grows, each by the same factor.
        validation_samples: rows of validation.
        seed: of the training samples; validation is the same for all.
        num_workers: processes that prepare batches.

    Raises:
        ValueError: no task, an unknown one, a source where none has an essay, or a length that does not hold all.

    Example:
        >>> from wavecomp.training.data import prompt_and_references
        >>> prompt, references = prompt_and_references(RulerDataModule(task="vt", length=1024).train_sample(0))
        >>> bytes(prompt[-11:].tolist()), len(references)
        (b' they are: ', 5)
        >>> string_match(" ".join(references[:4]), references)
        0.8
    """

    def __init__(
        self,
        *,
        task: str | Sequence[str] = "niah_single_1",
        source: str | None = None,
        length: int = 4096,
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
        self.tasks = (task,) if isinstance(task, str) else tuple(task)
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise ValueError(f"task={task!r} is unknown; allowed: {', '.join(TASKS)}, or several of them")
        essay = any(NEEDLES[name].haystack == "essay" for name in self.tasks if name in NEEDLES)
        if source is not None and not essay:
            raise ValueError(f"source={source!r} is of no use to task={task!r}, which has no essay; allowed: None")
        self.essay = _whole(source or PYTHON_STDLIB) if essay else None
        # all parts but the haystack have one size, whatever is drawn
        self.frames = {name: len(self._fill(np.random.default_rng(0), name, 0).tokens) for name in self.tasks}
        self.growths = {
            name: length_growth(length=length, least=frame, holds=f"task={name!r}", shortest=shortest, steps=steps)
            for name, frame in self.frames.items()
        }

    def _sample(self, random: np.random.Generator, share: float) -> Sample:
        task = self.tasks[random.integers(len(self.tasks))]
        return self._fill(random, task, self.growths[task].at(share) - self.frames[task])

    def _fill(self, random: np.random.Generator, task: str, room: int) -> Sample:
        """A sample whose haystack takes up to ``room`` bytes."""
        if task == "vt":
            return variable_tracking(random, room)
        if task == "cwe":
            return common_words(random, room)
        if task == "fwe":
            return frequent_words(random, room)
        hidden = NEEDLES[task]
        return needles(random, room, hidden, self.essay if hidden.haystack == "essay" else None)


def needles(random: np.random.Generator, room: int, task: Needles, essay: Corpus | None) -> Sample:
    """Needles in a haystack of up to ``room`` bytes, and the question for some of them."""
    among_needles = task.haystack == "needles"
    mark = f"One of the special magic {task.value} for "
    width = len(mark) + WIDTHS[task.key] + len(" is: ") + WIDTHS[task.value] + len(".\n")
    keys = draw(random, task.key, task.keys + (room // width if among_needles else 0))
    values = draw(random, task.value, len(keys) * task.values)
    order = random.permutation(len(values))
    lines = columns(mark, keys[order // task.values], " is: ", values[order], ".", " " if essay else "\n")
    if among_needles:
        context = lines.ravel()[:-1]
    elif essay:
        text = _excerpt(random, essay, room)
        context = hide(random, text, lines, np.flatnonzero(np.isin(text, text_bytes(b" \n"))) + 1)
    else:
        context = _in_noise(random, room, lines)
    asked = random.choice(len(keys), size=task.queries, replace=False)
    found = [values[order[order // task.values == key]] for key in asked]
    answers = [decode(value) for each in found for value in each]
    return _ask_for_needles(context, task.value, [decode(keys[key]) for key in asked], answers)


def _ask_for_needles(context: np.ndarray, kind: str, keys: list[str], answers: list[str]) -> Sample:
    asked = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
    some, are, are_all = "Some", "are", "are all"
    if len(answers) == 1:
        kind, some, are, are_all = kind.removesuffix("s"), "A", "is", "is"
    return write(
        f"{some} special magic {kind} {are} hidden within the following text. Make sure to memorize it. "
        f"I will quiz you about the {kind} afterwards.\n",
        context,
        f"\nWhat {are_all} the special magic {kind} for {asked} mentioned in the provided text? "
        f"The special magic {kind} for {asked} mentioned in the provided text {are} ",
        *_listed(answers, ", "),
    )


def variable_tracking(random: np.random.Generator, room: int) -> Sample:
    """A chain ``VAR B = VAR A`` in ``room`` bytes of noise, and the question for all of its names."""
    names = [decode(name).upper() for name in letters(random, HOPS + 1, width=5)]
    value = random.integers(10_000, 100_000)
    chain = [f"VAR {name} = {'VAR ' + before if before else value}\n" for before, name in zip(["", *names], names)]
    context = _in_noise(random, room, [text_bytes(line) for line in chain])
    return write(
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n",
        context,
        f"\nQuestion: Find all variables that are assigned the value {value} in the text above. "
        "Answer: According to the chain(s) of variable assignment in the text above, "
        f"{len(names)} variables are assigned the value {value}, they are: ",
        *_listed(names, " "),
    )


def common_words(random: np.random.Generator, room: int) -> Sample:
    """A numbered list with ten common words and ``room`` bytes of others, and the question for the common ones."""
    always = COMMON * COMMON_COUNT

    def size(others: int) -> int:
        return _numbered_size(always + OTHER_COUNT * others) - _numbered_size(always)

    others = bisect.bisect_right(range(room + 1), room, key=size) - 1
    words = letters(random, COMMON + others)
    line = np.repeat(np.arange(COMMON + others), [COMMON_COUNT] * COMMON + [OTHER_COUNT] * others)
    random.shuffle(line)
    numbers = np.arange(1, len(line) + 1)
    listed = without_zeros(columns(digits(numbers, len(str(len(line)))), ". ", words[line], " "))[:-1]
    first_places = [int(np.argmax(line == word)) for word in range(COMMON)]
    answers = [decode(words[word]) for word in np.argsort(first_places)]
    return write(
        "Below is a numbered list of words. In these words, some appear more often than others. "
        "Memorize the ones that appear most often.\n",
        listed,
        "\nQuestion: What are the 10 most common words in the above list? "
        "Answer: The top 10 words that appear most often in the list are:",
        *[part for number, word in enumerate(answers, start=1) for part in (f" {number}. ", Answer(word))],
    )


def frequent_words(random: np.random.Generator, room: int) -> Sample:
    """Words by Zipf's law, ``room`` bytes above the fewest, and the question for ranks 2 to 4."""
    least = _zipf_size(FEWEST_WORDS)
    count = bisect.bisect_right(range(room // 2 + 1), room, key=lambda n: _zipf_size(FEWEST_WORDS + n) - least) - 1
    counts = zipf_counts(FEWEST_WORDS + count)
    words = letters(random, len(counts))
    words[0] = 0
    words[0, :3] = text_bytes(b"...")
    line = np.repeat(np.arange(len(counts)), counts)
    random.shuffle(line)
    return write(
        "Read the following coded text and track the frequency of each coded word. "
        "Find the three most frequently appeared coded words. ",
        without_zeros(columns(words[line], " "))[:-1],
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text? "
        "Answer: According to the coded text above, the three most frequently appeared words are: ",
        *_listed([decode(word) for word in words[1:4]], " "),
    )


def zipf_counts(count: int) -> np.ndarray:
    """How often each of about ``count`` words comes: rank k ``count / k^2 / zeta(2)`` times, down to once."""
    share = count / (math.pi**2 / 6)
    return (share / np.arange(1, max(2, math.isqrt(int(share)) + 1)) ** 2).astype(int)


def _zipf_size(count: int) -> int:
    counts = zipf_counts(count)
    return int(7 * counts.sum() - 3 * counts[0])


def _numbered_size(count: int) -> int:
    """Bytes of a list of ``count`` words: ``1. abcdef 2. abcdef``."""
    figures = sum(max(0, count - 10**power + 1) for power in range(len(str(count))))
    return figures + count * len(". abcdef ")


def _in_noise(random: np.random.Generator, room: int, lines: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    noise = text_bytes(NOISE + b"\n")
    text = np.resize(noise, room)
    return hide(random, text, lines, np.arange(len(noise), room + 1, len(noise)))


def _whole(source: str) -> Corpus:
    return Corpus([Piece(path, 0, path.stat().st_size) for path in find_files(source)])


def _excerpt(random: np.random.Generator, essay: Corpus, count: int) -> np.ndarray:
    """``count`` bytes of a text, said again where it is shorter."""
    start = int(random.integers(max(1, len(essay) - count + 1)))
    return np.resize(essay.read(start, min(max(count, 1), len(essay))), count)


def _listed(answers: Sequence[str], separator: str) -> list[str | Answer]:
    parts: list[str | Answer] = [Answer(answers[0])]
    for answer in answers[1:]:
        parts += [separator, Answer(answer)]
    return parts


def string_match(answer: str, references: Sequence[str]) -> float:
    """Share of the references that an answer holds, whatever their case.

    Example:
        >>> string_match("The values are 12 and ABC.", ["12", "abc", "13", "14"])
        0.5

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("references are empty; allowed: one and above")
    return sum(reference.lower() in answer.lower() for reference in references) / len(references)


def effective_length(scores: Mapping[int, float], *, threshold: float = 85.6) -> int:
    """The longest length up to which all scores lie above a threshold; 0 where not even the first does.

    Args:
        scores: per cent, by length.
        threshold: what Llama 2 (7B) reaches at its 4k.

    Example:
        >>> effective_length({4096: 96.0, 8192: 90.1, 16384: 70.0, 32768: 86.0})
        8192
    """
    reached = 0
    for length in sorted(scores):
        if scores[length] <= threshold:
            break
        reached = length
    return reached
