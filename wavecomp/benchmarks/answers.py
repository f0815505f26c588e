"""What trained models know of long texts: the part of ``long`` that takes checkpoints."""

from __future__ import annotations

import functools
import hashlib
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from wavecomp.benchmarks import grid
from wavecomp.benchmarks.measure import Run, device
from wavecomp.benchmarks.results import run_name
from wavecomp.benchmarks.tables import markdown, span
from wavecomp.benchmarks.targets import Target, where
from wavecomp.files import CONFIG, fingerprint, load
from wavecomp.files.models import checkpoint_in
from wavecomp.training import PasskeyDataModule, RulerDataModule, SampleDataModule, SortDataModule
from wavecomp.training.data import by_count, effective_length, passkey_match, prompt_and_references, string_match
from wavecomp.training.data.ruler import TASKS
from wavecomp.training.data.tasks import VALIDATION

PASSKEY = {8_192: 34, 65_536: 34, 1_048_576: 4}  # samples by length, in bytes, at each depth
DEPTHS = {"start": 0.0, "middle": 0.5, "end": 1.0}
SORT = {4_000: 100, 8_000: 100, 16_000: 100}  # symbols
RULER = {4_096: 16, 8_192: 16, 16_384: 16, 65_536: 8}


def members(checkpoints: Sequence[str], small: bool) -> dict[str, grid.Member]:
    """By checkpoint what it was trained for: passkey, sort or a task of RULER; all but sort, where it was text.

    Raises:
        FileNotFoundError: a checkpoint that is no run.
    """
    found: dict[str, grid.Member] = {}
    for length, samples in _lengths(SORT, small).items():
        found[f"sort-{length}-simulated"] = functools.partial(simulated, length, samples)
    for checkpoint in checkpoints:
        # one that was trained anew is another
        content = hashlib.sha256(_file(checkpoint).read_bytes()).hexdigest()[:8]
        name = f"{run_name(str(_file(checkpoint).parent)).replace('/', '-')}-{content}"
        for task, more in _tasks(_config(checkpoint)):
            lengths = {"passkey": PASSKEY, "sort": SORT}.get(task, RULER)
            for length, samples in _lengths(lengths, small).items():
                for depth in DEPTHS if task == "passkey" else (None,):
                    member = functools.partial(answers, checkpoint, task, length, depth, samples, more)
                    found["-".join(map(str, filter(None, (task, length, depth, name))))] = member
    return found


def answers(checkpoint: str, task: str, length: int, depth: str | None, samples: int, more: dict[str, Any]) -> Run:
    """The mean score of a model on samples that it was not trained on.

    Args:
        checkpoint: the folder of a run.
        task: ``passkey``, ``sort``, or one of RULER.
        length: bytes, or symbols to be sorted.
        depth: where in the text a passkey is.
        more: settings of the data that the model depends on.
    """
    config, model = _config(checkpoint), load(_file(checkpoint)).to(device())
    data: Any = _data(task, length, depth, more)
    with torch.no_grad():
        scores = [(_sorted if task == "sort" else _said)(model, data, index) for index in range(samples)]
    return {
        "what": "answers",
        "checkpoint": run_name(str(_file(checkpoint).parent)),
        "fingerprint": fingerprint(model)[:16],
        "trained_length": config["data"].get("init_args", {}).get("length"),
        "task": task,
        "length": length,
        "depth": depth,
        "scores": scores,
        "seed": config.get("seed_everything", 0),
    }


def simulated(length: int, samples: int) -> Run:
    """Accuracies in sorting of predictors that know some of what there is to know, on the samples of validation.

    Like a model, each is told the right answers before the one that it gives, and so guesses among those that are left.
    p0 and p1 are the distributions at the beginning and the end of a sample.
    """
    data = SortDataModule(length=length)
    scores: dict[str, list[float]] = {}
    for index in range(samples):
        tokens = data.validation_sample(index).tokens.numpy()
        symbols, target = tokens[:length], tokens[length + 1 :]
        # the first that the generator of a sample draws
        weights = np.random.default_rng([0, VALIDATION, index]).integers(1, 10, size=(2, data.symbols))
        first, second = weights / weights.sum(axis=1, keepdims=True)
        for name, guess in {
            "nothing": np.random.default_rng(index).permutation(data.symbols),
            "the true p0": _falling(first),
            "the true p0 + p1": _falling(first + second),
            "the last 1,024 symbols": by_count(symbols[-1024:], data.symbols),
            "the last 2,048 symbols": by_count(symbols[-2048:], data.symbols),
            "every 8th symbol": by_count(symbols[::8], data.symbols),
            "all counts, ties by number": _falling(np.bincount(symbols, minlength=data.symbols)),
        }.items():
            scores.setdefault(name, []).append(_told_the_places_before(guess, target))
    means = {name: statistics.mean(values) for name, values in scores.items()}
    return {"what": "simulated", "task": "sort", "length": length, "samples": samples, "scores": means, "seed": 0}


def table(runs: Sequence[Run]) -> str:
    """A table of each task that is there."""
    found = [entry for entry in runs if entry["what"] == "answers"]
    return "\n\n".join(
        [
            *_passkey_table([entry for entry in found if entry["task"] == "passkey"]),
            *_sort_table([entry for entry in runs if entry["task"] == "sort"]),
            *_ruler_table([entry for entry in found if entry["task"] in TASKS]),
        ]
    )


def targets() -> list[Target]:
    """All passkeys, and sorting beyond those who know two distributions."""
    found = [
        Target(f"passkeys given back in {length:,} bytes", 1.0, functools.partial(_found, length), form=".1%")
        for length in PASSKEY
    ]
    for length in SORT:
        what = f"{length:,} symbols sorted: right beyond who knows the true p0 + p1"
        found.append(Target(what, 0.0, functools.partial(_beyond_true, length), form=".1%"))
    return found


def _found(length: int, runs: Sequence[Run]) -> list[float]:
    """The share at all depths together."""
    scores = [each for entry in where(runs, what="answers", task="passkey", length=length) for each in entry["scores"]]
    return [statistics.mean(scores)] if scores else []


def _beyond_true(length: int, runs: Sequence[Run]) -> list[float]:
    told = where(runs, what="simulated", task="sort", length=length)
    made = where(runs, what="answers", task="sort", length=length)
    return [
        statistics.mean(own["scores"]) - other["scores"]["the true p0 + p1"]
        for own, other in itertools.product(made, told)
    ]


def _passkey_table(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    rows = []
    for name, length in dict.fromkeys((entry["checkpoint"], entry["length"]) for entry in runs):
        own = {e["depth"]: e["scores"] for e in runs if (e["checkpoint"], e["length"]) == (name, length)}
        cells = [f"{sum(own[depth]):.0f} of {len(own[depth])}" if depth in own else "" for depth in DEPTHS]
        rows.append([_trained_on(name, runs), f"{length:,}", *cells])
    header = ["passkey: trained on", "bytes of the test", *DEPTHS]
    note = (
        "Numbers, each said twice in noise, that were given back exactly, by where they stood; each checkpoint with "
        "the bytes that it was trained at. Infini-attention, a model of a billion parameters trained at 5,000 tokens, "
        "gives back 96, 94 and 100 per cent in a million (arXiv 2404.07143)."
    )
    return [note, markdown(header, rows)]


def _sort_table(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    lengths = sorted({entry["length"] for entry in runs})
    rows: dict[str, dict[int, float]] = {}
    for entry in runs:
        if entry["what"] == "simulated":
            for name, score in entry["scores"].items():
                rows.setdefault(f"knows {name}", {})[entry["length"]] = score
        else:
            row = rows.setdefault(f"trained on {_trained_on(entry['checkpoint'], runs)}", {})
            row[entry["length"]] = statistics.mean(entry["scores"])
    header = ["sort", *(f"{length:,}" for length in lengths)]
    cells = [
        [name, *(f"{100 * row[length]:.1f}" if length in row else "" for length in lengths)]
        for name, row in rows.items()
    ]
    note = (
        f"Answers that are right, in per cent of {_samples(runs)}, by symbols to be sorted. Symbols are "
        "drawn from a distribution that goes from p0 at the beginning of a sample to p1 at its end; what others know "
        "is told them, not learned. All are told the right answers before the one that they give."
    )
    return [note, markdown(header, cells)]


def _ruler_table(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    lengths = sorted({entry["length"] for entry in runs})
    rows = []
    for name, task in dict.fromkeys((entry["checkpoint"], entry["task"]) for entry in runs):
        own = [entry for entry in runs if (entry["checkpoint"], entry["task"]) == (name, task)]
        shares = {entry["length"]: 100 * statistics.mean(entry["scores"]) for entry in own}
        cells = [f"{shares[length]:.1f}" if length in shares else "" for length in lengths]
        rows.append([_trained_on(name, runs), task, *cells, f"{effective_length(shares):,}"])
    header = ["RULER: trained on", "task", *(f"{length:,}" for length in lengths), "effective length"]
    note = (
        f"References that an answer holds, in per cent, of {_samples(runs)}, by bytes of the test; the "
        "effective length is the longest up to which they are more than the 85.6 of Llama 2 at its own."
    )
    return [note, markdown(header, rows)]


def _samples(runs: Sequence[Run]) -> str:
    """How many there were of each length."""
    counts = {entry.get("samples") or len(entry["scores"]) for entry in runs}
    return f"{span([*counts], '.0f')} samples of each length"


def _trained_on(name: str, runs: Sequence[Run]) -> str:
    length = next(entry["trained_length"] for entry in runs if entry.get("checkpoint") == name)
    return name if length is None else f"{name}, {length:,}"


def _file(checkpoint: str) -> Path:
    path = Path(checkpoint)
    path = checkpoint_in(path) if path.is_dir() else path
    if not path.is_file() or not (path.parent / CONFIG).is_file():
        raise FileNotFoundError(f"checkpoint {checkpoint} is no run; allowed: a folder with a checkpoint and {CONFIG}")
    return path


def _config(checkpoint: str) -> dict[str, Any]:
    return yaml.safe_load((_file(checkpoint).parent / CONFIG).read_text())


def _tasks(config: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What a model was trained for, with the settings that it depends on."""
    kind, settings = config["data"]["class_path"].rpartition(".")[2], config["data"].get("init_args", {})
    if kind == PasskeyDataModule.__name__:
        return [("passkey", {})]
    if kind == SortDataModule.__name__:
        return [("sort", {"symbols": settings.get("symbols", 20)})]
    if kind == RulerDataModule.__name__:
        given = settings.get("task", "niah_single_1")
        return [(task, {}) for task in ([given] if isinstance(given, str) else given)]
    return [("passkey", {}), *((task, {}) for task in TASKS)]


def _lengths(lengths: dict[int, int], small: bool) -> dict[int, int]:
    return {min(lengths): 1} if small else lengths


def _data(task: str, length: int, depth: str | None, more: dict[str, Any]) -> SampleDataModule:
    if task == "passkey":
        return PasskeyDataModule(length=length, depth=None if depth is None else DEPTHS[depth])
    if task == "sort":
        return SortDataModule(length=length, **more)
    return RulerDataModule(task=task, length=length)


def _said(model: Any, data: Any, index: int) -> float:
    """Whether a greedy answer gives a passkey, or the share of RULER's references that it holds."""
    sample = data.validation_sample(index)
    prompt, references = prompt_and_references(sample)
    count = len(sample.tokens) - len(prompt)
    whole = model.generate(prompt[None].to(device()), max_new_tokens=count, temperature=0)
    said = bytes(whole[0, len(prompt) :].tolist()).decode(errors="replace")
    if isinstance(data, PasskeyDataModule):
        return float(passkey_match(said, references[0]))
    return string_match(said, references)


def _sorted(model: Any, data: Any, index: int) -> float:
    """The share of the answers that are the likeliest token where the right ones stand before them."""
    sample = data.validation_sample(index)
    likeliest = model(sample.tokens[None].to(device()))[0].argmax(-1).cpu()
    return float((likeliest == sample.tokens)[sample.answers].float().mean())


def _told_the_places_before(guess: np.ndarray, target: np.ndarray) -> float:
    """The share of places whose symbol a guessed order has before all those that come later."""
    rank = guess.argsort()[target]
    return float((rank == np.minimum.accumulate(rank[::-1])[::-1]).mean())


def _falling(weights: np.ndarray) -> np.ndarray:
    return np.argsort(-weights, kind="stable")
