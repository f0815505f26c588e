"""Texts of several kinds: trained on by turns, told of one by one."""

import lzma

import numpy as np
import pytest
import torch
from reading_tables import rows

from wavecomp.benchmarks import tasks, texts
from wavecomp.benchmarks.measure import Options


@pytest.fixture
def folder(tmp_path):
    """Two texts that have no byte in common."""
    for name, low in (("lower.txt", ord("a")), ("upper.txt", ord("A"))):
        letters = np.random.default_rng(low).integers(low, low + 8, size=20_000)
        (tmp_path / name).write_bytes(bytes(letters.tolist()))
    return tmp_path


def test_each_file_is_a_text_and_the_library_is_one(folder):
    assert texts.sources(str(folder)) == [str(folder / "lower.txt"), str(folder / "upper.txt")]
    assert texts.sources(None) == texts.sources("python-stdlib") == ["python-stdlib"]


def test_rows_come_by_turns_and_all_texts_are_validated_on(folder):
    each = [tasks.data_of("rate", 0, source) for source in texts.sources(str(folder))]
    data = texts.ByTurns(each)
    upper = [bool((data.train_sample(index).tokens < ord("a")).all()) for index in range(6)]
    assert upper == [False, True] * 3
    assert not torch.equal(data.train_sample(0).tokens, data.train_sample(2).tokens)
    assert len(data.validation_set()) == sum(len(text.validation_set()) for text in each) == 4


@pytest.mark.slow
def test_a_member_tells_of_each_text(folder):
    members = texts.members(Options(small=True, source=str(folder)))
    for name in ("rate-0-lowpass+channel", "text-0-lowpass+channel"):
        entry = members[name]()
        lower, upper = entry["texts"]["lower.txt"], entry["texts"]["upper.txt"]
        assert lower["ratio"] == upper["ratio"] == texts.RATIO and lower["bits"] != upper["bits"]
        assert (lower["gain"] is None) == (entry["task"] == "rate")
    xz = members["xz"]()["texts"]["upper.txt"]
    assert xz == {"bits": pytest.approx(len(lzma.compress((folder / "upper.txt").read_bytes(), preset=9)) / 2500, 0.01),
                  "bytes": 20_000}  # fmt: skip


RUNS = [
    {"task": "rate", "compressor": name, "seed": seed, "texts": {
        "a.txt": {"bits": bits + seed / 10, "ratio": 6.0, "gain": None},
        "b.txt": {"bits": bits + 1, "ratio": 10.0, "gain": None},
    }}
    for name, bits in (("partial+channel", 1.0), ("lowpass+channel", 1.5), ("wide-strided", 2.0))
    for seed in range(3)
]  # fmt: skip


def test_the_table_has_a_column_for_each_text():
    language = {"task": "text", "compressor": "lowpass+channel", "seed": 0, "texts": {
        "a.txt": {"bits": 3.0, "gain": 0.25, "ratio": 8.0}, "b.txt": {"bits": 2.0, "gain": 0.5, "ratio": 8.0},
    }}  # fmt: skip
    xz = {"task": "xz", "compressor": "xz", "seed": 0, "texts": {"a.txt": {"bits": 2.5}, "b.txt": {"bits": 1.5}}}
    found = rows(texts.table([*RUNS, language, xz]))
    assert found[0] == ["partial+channel", "bits", "1.100 ± 0.100", "2.000 ± 0.000"]
    assert found[1] == ["partial+channel", "tokens per code", "6.00 ± 0.00", "10.00 ± 0.00"]
    assert found[-3:] == [
        ["lowpass+channel", "bits of the next byte", "3.000 (1 of 3)", "2.000 (1 of 3)"],
        ["lowpass+channel", "gain", "0.250 (1 of 3)", "0.500 (1 of 3)"],
        ["xz", "bits", "2.500", "1.500"],
    ]


def test_the_lead_is_over_the_best_that_does_not_adapt_less_the_spread():
    (target,) = texts.targets()
    assert target.values(RUNS) == [pytest.approx(0.5 - 0.05)]
    assert target.values(RUNS[1:]) == []
