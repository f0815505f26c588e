"""Benchmarks run at tiny sizes, write complete results and compute what they say."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from reading_tables import rows

from wavecomp.allocator import keep_freed_memory
from wavecomp.benchmarks import dwt, measure


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_prints_a_table_and_writes_every_run(tmp_path):
    output = tmp_path / "dwt.json"
    command = [sys.executable, "-m", "wavecomp.benchmarks", "dwt", "--small", "--repeats", "2", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(output.read_text())
    assert {"versions", "device", "commit", "seeds", "runs"} <= result.keys()
    assert result["command"] == "python -m wavecomp.benchmarks dwt --small --repeats 2"
    timed = [run for run in result["runs"] if "seconds" in run]
    assert {run["form"] for run in timed} >= {"matrix", "cascade", "banded", "ptwt", "pywt", "copy"}
    installed = importlib.util.find_spec("pytorch_wavelets") is not None
    assert installed == any(run["form"] == "pytorch_wavelets" for run in timed)
    assert installed == ("pytorch_wavelets" in result["versions"]) and {"torch", "python"} <= result["versions"].keys()
    assert all(len(run["seconds"]) == 2 and min(run["seconds"]) > 0 for run in timed)
    assert {run["what"] for run in result["runs"]} >= {"chunks", "one piece", "time exponent", "training memory"}
    own = {(run["what"], *run["size"], run["dtype"], run["form"]) for run in timed if run["form"] not in dwt.PEERS}
    peaks = [run for run in result["runs"] if "memory" in run]
    assert {run["form"] for run in peaks} >= {"matrix", "cascade", "banded", "ptwt"}
    assert len({tuple(row[:3]) for row in rows(done.stdout)}) == len(own) and "time exponent" in done.stdout
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

    try:
        keep_freed_memory(False)
        assert 0.9 * size < measure.peak_memory(step) < 1.5 * size
    finally:
        keep_freed_memory()
    step()  # the next one takes the same block
    assert 0.9 * size < measure.peak_memory(step) < 1.5 * size


def test_table_compares_within_one_size_only():
    def entry(form, size, seconds, **more):
        return {
            "what": "w", "size": [size], "dtype": "f", "form": form, "pass": "forward", "seconds": seconds, "seed": 0,
        } | more  # fmt: skip

    runs = [
        entry("ptwt", 1, [8.0, 9.0]),
        entry("pywt", 1, [4.0, 2.0]),
        entry("pytorch_wavelets", 1, [5.0, 5.0]),
        entry("matrix", 1, [2.0, 2.0]),
        entry("matrix", 2, [1.0]),
        entry("matrix", 2, [3.0], **{"pass": "both"}, memory=2.5),
        entry("ptwt", 2, [6.0], **{"pass": "both"}, memory=7.125),
        entry("ptwt", 3, [6.0], **{"pass": "both"}, memory=9.0),
    ]
    one, two, peaks = rows(dwt.table(runs))
    assert peaks == ["w, 2", "f", "matrix", "2.50", "7.12", ""]
    assert one == ["w, 1", "f", "matrix", "2,000.00", "4.25", "1.50", "2.50", "", "", "", ""]
    assert two == ["w, 2", "f", "matrix", "1,000.00", "", "", "", "", "3,000.00", "2.00", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_benchmark_began_ends_with_it(tmp_path, jobs):
    def trainings():
        return [path for path in Path("/proc").glob("[0-9]*") if training(path)]

    def training(path):
        try:
            return b"wavecomp.cli" in (path / "cmdline").read_bytes() and (path / "cwd").resolve() == tmp_path
        except OSError:  # it has ended
            return False

    members = ["quickstart-0", "quickstart-1", "quickstart-2"]
    command = [sys.executable, "-m", "wavecomp.benchmarks", "recipes", "--jobs", str(jobs), "--only", *members]
    bench = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while len(trainings()) < jobs:
            assert bench.poll() is None and time.monotonic() - begun < 120
            time.sleep(0.05)
        bench.terminate()
        assert bench.wait(timeout=60) == 128 + signal.SIGTERM
        assert not trainings()
    finally:
        bench.kill()
        for path in trainings():
            os.kill(int(path.name), signal.SIGKILL)
