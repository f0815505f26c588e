"""Benchmarks run at tiny sizes, write complete results and compute what they say."""

import json
import logging
import subprocess
import sys

import pytest
import torch

import wavecomp as wc
from wavecomp.benchmarks import dwt, measure, quality


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_prints_a_table_and_writes_every_run(tmp_path):
    output = tmp_path / "dwt.json"
    command = [sys.executable, "-m", "wavecomp.benchmarks", "dwt", "--small", "--repeats", "2", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(output.read_text())
    assert {"versions", "device", "commit", "seeds", "runs"} <= result.keys()
    timed = [run for run in result["runs"] if "seconds" in run]
    assert {run["form"] for run in timed} >= {"matrix", "banded", "ptwt", "pywt", "copy"}
    assert all(len(run["seconds"]) == 2 and min(run["seconds"]) > 0 for run in timed)
    assert {run["what"] for run in result["runs"]} >= {"chunks", "one piece", "time exponent", "training memory"}
    assert done.stdout.count("\n") >= len(result["runs"])
    assert not list(tmp_path.glob("*.partial"))


def test_an_unknown_name_is_refused():
    done = subprocess.run([sys.executable, "-m", "wavecomp.benchmarks", "fft"], capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice: 'fft'" in done.stderr


def test_ratios_are_taken_pair_by_pair():
    assert measure.ratio([4, 9, 100], [2, 3, 1]) == 3


def test_functions_take_turns():
    calls = []
    seconds = measure.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3 and [len(s) for s in seconds.values()] == [2, 2]


def test_exponent_of_quadratic_time_is_two():
    assert measure.exponent([10, 100, 1000], [1, 100, 10000]) == pytest.approx(2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_sees_what_is_freed_again():
    size = 64 * 2**20

    def step():
        torch.ones(size // 4).sum()

    assert 0.9 * size < measure.peak_memory(step) < 1.5 * size


def test_table_compares_within_one_size_only():
    def entry(form, size, seconds):
        return {"what": "w", "size": [size], "dtype": "f", "form": form, "pass": "p", "seconds": seconds, "seed": 0}

    lines = dwt.table([entry("ptwt", 1, [8.0]), entry("matrix", 1, [2.0]), entry("matrix", 2, [1.0])]).splitlines()
    assert lines[2].split()[-1] == "4.00" and len(lines[3].split()) == len(lines[2].split()) - 1


def test_a_member_that_fails_costs_no_other_and_what_is_done_is_not_done_again(tmp_path, monkeypatch, caplog):
    def broken():
        raise RuntimeError("this one is broken")

    makers = {"broken": broken, "mean": lambda: wc.MeanPoolCompressor(count=4)}
    options = measure.Options(small=True, only=("copy", "rate"))
    monkeypatch.setattr(quality, "compressors", lambda ratio: makers)
    monkeypatch.setattr(quality, "FOLDER", tmp_path)
    monkeypatch.setattr(quality, "DIM", 16)
    monkeypatch.setattr(quality, "HEADS", 2)
    level = logging.getLogger("lightning.pytorch").level
    done = quality.run(options)
    assert logging.getLogger("lightning.pytorch").level == level
    assert [run["task"] for run in done] == ["copy", "rate"]
    assert all(run["compressor"] == "mean" and run["ratio"] == 8 and run["bits"] > 1 for run in done)
    assert "this one is broken" in caplog.text and [p.suffix for p in tmp_path.glob("small/*")] == [".json"] * 2
    monkeypatch.setattr(quality, "_body", broken)
    assert quality.run(options) == done
    assert "mean" in quality.table(done)


def test_members_keep_as_many_codes_as_they_are_compared_at():
    for ratio in quality.RATIOS:
        makers = quality.compressors(ratio)
        assert len(makers) > 8
        for name, make in makers.items():
            compressor = make()
            compressor.capacity(quality.CHUNK)
            controlled = any(isinstance(module, wc.RatioController) for module in compressor.modules())
            if not controlled and name not in ("none", "all"):
                assert compressor.capacity(quality.CHUNK) == quality.CHUNK // ratio, name
