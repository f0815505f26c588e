"""The benchmark of training steps compares equals, runs at tiny sizes and says what it did not run."""

import json
import subprocess
import sys

import pytest
import torch
from reading_tables import rows

from wavecomp.benchmarks import step

CPU = torch.device("cpu")
MODELS = ["wavelet", "stacked", "mean", "window", "flat"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_prints_a_table_and_writes_every_run(tmp_path):
    output = tmp_path / "step.json"
    command = [sys.executable, "-m", "wavecomp.benchmarks", "step", "--small", "--repeats", "2", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    runs = json.loads(output.read_text())["runs"]
    pairs = [(run["model"], run["length"]) for run in runs]
    assert len(pairs) == len(set(pairs)) == 2 * len(MODELS) and {name for name, _ in pairs} == set(MODELS)
    assert all(len(run["seconds"]) == 2 and min(run["seconds"]) > 0 for run in runs)
    assert {run["bytes"] for run in runs} == {512} and all(run["memory"] > 2**20 for run in runs)
    assert len(rows(done.stdout)) == len(runs)


def test_models_have_equally_many_parameters():
    counts = {name: sum(p.numel() for p in make().parameters()) for name, make in step.models_on(CPU).items()}
    assert list(counts) == MODELS
    assert max(counts.values()) < 1.02 * min(counts.values()), counts


@pytest.mark.parametrize("name", MODELS)
def test_models_predict_from_the_past_and_look_as_far_back_as_they_say(name):
    model = step.models_on(CPU)[name]()
    tokens = torch.randint(256, (1, 640))
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.embedding.register_forward_hook(lambda module, given, out: embedded[:, : out.shape[1]])
    logits = model(tokens)
    assert logits.shape == (1, 640, 256)
    (gradient,) = torch.autograd.grad(logits[0, 600].sum(), embedded)
    read = gradient[0].abs().sum(-1) > 0
    assert not read[600:].any() and read[599]
    # eight layers of 64 and a convolution of 4
    assert read[0] == (name != "window") and int(read.int().argmax()) <= 600 - 8 * 63


def test_a_step_learns_and_starts_from_no_gradient():
    torch.manual_seed(0)
    model, tokens = step.models_on(CPU)["window"](), torch.zeros(1, 128, dtype=torch.int64)
    train, seen = step.step_of(model), []
    for _ in range(3):
        with torch.no_grad():
            seen.append(-model(tokens).log_softmax(-1)[..., 0].mean())
        train(tokens)
        seen.append(sum(p.grad.norm() for p in model.parameters() if p.grad is not None))
    assert seen[0] > seen[2] > seen[4] and seen[5] < 2 * seen[1]


def entry(name, length, seconds, **more):
    size = {"bytes": 16384, "memory": 2**20, "parameters": 1_670_000}
    return {"model": name, "length": length, "seconds": seconds} | size | more


def test_what_would_take_too_long_is_not_run_and_says_why():
    def call():
        raise AssertionError("was run")

    known = entry("flat", 16384, [120.0])
    longer = {"model": "flat", "length": 65536, "bytes": 65536, "seed": 0, "parameters": 1_670_000}
    assert step.first_run(call, longer, known) is known
    assert "seconds" not in longer and longer["not_run"].startswith("up to 1920 s a step, by that of 16384; the limit")
    table = step.table([entry("flat", 4096, [1.0]), longer])
    assert len(rows(table)) == 1 and "Not run: flat at 65,536, up to 1920 s a step" in table


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_first_run_measures_time_and_memory_and_becomes_the_known_one():
    size = 2**26
    new = {"model": "flat", "length": 8, "bytes": 8}
    assert step.first_run(lambda: torch.ones(size // 4).sum(), new, {}) is new
    assert new["seconds"][0] > 0 and 0.9 * size < new["memory"] < 1.5 * size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_does_not_fit_is_not_run():
    def call():
        raise torch.OutOfMemoryError("out of memory\nand more")

    new, known = {"length": 16, "bytes": 16}, entry("flat", 8, [1.0])
    assert step.first_run(call, new, known) is known and new["not_run"] == "out of memory"


def test_the_table_takes_ratios_pair_by_pair():
    runs = [
        entry("wavelet", 4096, [1.0, 2.0, 10.0]),
        entry("wavelet", 65536, [8.0, 12.0, 20.0], bytes=65536),
        entry("flat", 4096, [2.0, 8.0, 30.0]),
        entry("flat", 65536, [400.0], bytes=65536),
    ]
    lines = rows(step.table(runs))
    assert lines[0] == ["wavelet", "4,096", "8,192", "1", "3.00", "1.00"]
    assert lines[1] == ["wavelet", "65,536", "5,461", "1", "50.00", "1.50"]
    assert lines[3][-2:] == ["1.00", "50.00"]
