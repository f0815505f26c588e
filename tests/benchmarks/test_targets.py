"""What is aimed at: each benchmark's targets are rows of one table, and say of runs what is true of them."""

import importlib
import json
from pathlib import Path

import pytest

from wavecomp.benchmarks import __main__ as command
from wavecomp.benchmarks import curves, ratio, targets

RESULTS = Path(__file__).parents[2] / "recipes" / "results"
MODULES = {name: importlib.import_module(f"wavecomp.benchmarks.{name}") for name in command.BENCHMARKS}
TARGETS = [
    (name, target) for name, module in MODULES.items() if hasattr(module, "targets") for target in module.targets()
]


def runs_of(name):
    return json.loads((RESULTS / f"{name}-cpu.json").read_text())["runs"]


def row_of(table, what):
    _, table = table.split("<details>")
    (row,) = (line for line in table.splitlines() if f"| {what} " in line)
    return [cell.strip() for cell in row.strip("|").split("|")]


def table_of(**runs):
    return targets.table({name.replace("_", "-"): each for name, each in runs.items()}, command.BENCHMARKS)


def test_every_target_has_a_row_and_none_is_met_unmeasured():
    table = table_of()
    assert f"Of {len(TARGETS)} targets 0 are measured, and 0 of those are met" in table
    for name, target in TARGETS:
        assert row_of(table, target.what)[0] == f"`{name}`"
        assert row_of(table, target.what)[3:] == ["not yet", ""]
    assert len({target.what for _, target in TARGETS}) == len(TARGETS) >= 50


def test_the_targets_of_a_cpu_are_not_those_of_a_gpu():
    step = runs_of("step")
    on_cpu, on_gpu = table_of(step_cpu=step), table_of(step_h200=step)
    for name, target in TARGETS:
        for table, gpu in ((on_cpu, False), (on_gpu, True)):
            measured = row_of(table, target.what)[4] != ""
            assert measured == (name == "step" and target.gpu == gpu), target.what


def seeds(values, key="bits", **same):
    return [same | {"seed": seed, key: value} for seed, value in enumerate(values)]


def timed(**seconds):
    same = {"what": "chunks", "size": [1, 1, 64, 1], "dtype": "float32", "pass": "forward"}
    return [same | {"form": form, "seconds": each} for form, each in seconds.items()]


def quality(**bits):
    same = {"task": "copy", "asked": 8}
    return [run for name, each in bits.items() for run in seeds(each, compressor=name.replace("_", "+"), **same)]


OURS = [0.1, 0.3, 0.2]
WINDOW = [{"task": "text", "asked": 8, "compressor": "window", "seed": seed, "bits": 2.0} for seed in (1, 2)]
STACKED = seeds([9.0, 2.02, 2.06], task="text", asked=8, compressor="stacked")
LONG_WINDOW = [entry | {"task": "text-16k", "bits": 9.0, "equal_time": {"bits": 2.0}} for entry in WINDOW]
LONG_STACKED = [entry | {"task": "text-16k"} for entry in STACKED]
STEPS = [
    {"model": model, "length": length, "bytes": length, "seconds": [seconds * length]}
    for model, length, seconds in (("wavelet", 4096, 1.0), ("wavelet", 2**14, 1.5), ("flat", 2**14, 9.0))
]
COST = [
    {"compressor": "stride", "seconds": [1.0, 1.0, 1.0], "alone": None},
    {"compressor": "Shrinkage", "seconds": [2.0, 1.25, 2.0], "alone": [0.1, 0.1, 0.1]},
    {"compressor": "DyadicLeaves", "seconds": [1.0, 1.0, 1.0], "alone": [0.1, 0.2, 0.3]},
]
READ = [
    {"what": "generation", "contexts": [10_000, 100_000, 1_000_000], "seconds": [[1.0], [2.0], [times]]}
    for times in (3.0, 12.0)
]
STREAM = [
    {"what": "stream", "length": length, "memory": memory, "seconds": {"stream": [50.0, 50.0]}}
    for length, memory in ((500_000, 10**6), (5_000_000, 3 * 10**6))
]
PASSKEYS = [
    {"what": "answers", "task": "passkey", "length": 8192, "scores": scores} for scores in ([1.0, 1.0], [1.0, 0.0])
]
SORTED = [
    {"what": "answers", "task": "sort", "length": 4000, "scores": [0.5, 0.7]},
    {"what": "simulated", "task": "sort", "length": 4000, "scores": {"the true p0 + p1": 0.65}},
]
RECALL = [
    {"task": "recall", "encoding": "dyadic, 2 bits", "seed": seed, "accuracy": accuracy}
    for seed, accuracy in enumerate(([0.5, 0.5, 0.5], [0.5, 0.4, 0.4]))
]
TEXT = seeds([2.0, 2.0], task="text", encoding="dyadic, full precision")
COARSE = seeds([2.02, 2.04], task="text", encoding="dyadic, 2 bits")
RATIOS = [
    {"what": "text", "compressor": "Shrinkage", "asked": asked, "trained": trained, "calibrated": 2 * asked}
    for asked, trained in ((4.0, 4.1), (8.0, 8.0), (32.0, 64.0))
]
PROSE = seeds([30.0, 60.0], key="prose", what="mixed", compressor="Shrinkage-price", sentence=10.0)
CURVES = [
    {
        "what": "curve",
        "compressor": name,
        "seed": seed,
        "points": [{"asked": r, "bits": b + off} for r, b in bits.items()],
    }
    for name, bits in (
        ("same for all", {ratio: 2.0 for ratio in curves.RATIOS}),
        ("PartialSynthesis", dict(zip(curves.RATIOS, (1.0, 1.5, 1.25)))),
    )
    for seed, off in enumerate((-0.1, 0.0, 0.1))
]
UNEVEN = quality(**{"partial-predicted_channel": OURS, "lowpass_channel": [0.8, 0.4, 0.6], "dct": [0.0] * 3})
LINE = [
    run | {"task": "uneven", "compressor": name, "asked": asked}
    for asked, name, bits in (
        (8, "lowpass+channel", [0.0, 0.2, 0.1]),
        (12.8, "partial-predicted+channel", [0.2, 0.2, 0.2]),
        (16, "lowpass+channel", [1.0, 1.2, 1.1]),
    )
    for run in seeds(bits)
]
RECIPE = [{"recipe": "quickstart", "seed": 0, "metrics": {"val/loss": 2.95}, "took": 270.0}]


@pytest.mark.parametrize(
    "name, what, runs, measured, met",
    [
        ("dwt", "chunks of 64, forward: speed", timed(matrix=[1.0, 2.0, 1.0], ptwt=[8.0, 9.0, 9.0]), "8.00", "yes"),
        ("dwt", "the matrix of chunks", [{"what": "matrix of 128, with backward", "value": 5.5}], "5.50", "no"),
        ("step", "wavelet, training at 16,384 bytes: speed", STEPS, "6.00", "yes"),
        ("step", "wavelet, time per byte at 16,384", STEPS, "1.50", "no"),
        (
            "quality",
            "copy, ratio 8",
            quality(partial_channel=OURS, max=[1.0] * 3, dct=[0.8, 0.4, 0.6]),
            "0.200",
            "yes",
        ),
        ("quality", "copy, ratio 8", quality(partial_channel=OURS, max=[0.25] * 3, dct=[0.0]), "-0.050", "no"),
        ("quality", "half one sentence, ratio 8", [run | {"task": "uneven"} for run in UNEVEN], "0.200", "yes"),
        ("quality", "half one sentence, ratio 12.8", LINE, "0.550", "yes"),
        ("quality", "text, 8 bytes for each code", [*STACKED, *WINDOW], "2.0% ± 1.0% (2 of 3)", "no"),
        ("quality", "rows of 16,384 bytes, 8 for", [*LONG_STACKED, *LONG_WINDOW], "2.0% ± 1.0% (2 of 3)", "no"),
        ("cost", "Shrinkage", COST, "50.0%", "no"),
        ("cost", "DyadicLeaves", COST, "20.0%", "no"),
        ("long", "a new byte after", READ, "12.00", "no"),
        ("long", "bytes per second", STREAM, "50,000", "yes"),
        ("long", "memory beyond", STREAM, "2.0", "yes"),
        ("long", "passkeys given back in 8,192", PASSKEYS, "75.0%", "no"),
        ("long", "4,000 symbols sorted", SORTED, "-5.0%", "no"),
        ("positions", "accuracy at 16 times", RECALL, "90.0%", "no"),
        ("positions", "beyond full precision", [*TEXT, *COARSE], "1.50% ± 0.50% (2 of 3)", "no"),
        (
            "ratio",
            "PartialSynthesis-predicted, half",
            [run | {"compressor": ratio.PREDICTED} for run in PROSE],
            "4.5 ± 1.5 (2 of 3)",
            "yes",
        ),
        ("ratio", "Shrinkage in training", RATIOS, "2.50%", "no"),
        ("ratio", "Shrinkage calibrated", RATIOS, "100.00%", "no"),
        ("ratio", "Shrinkage-price, half of the text one sentence", PROSE, "4.5 ± 1.5 (2 of 3)", "yes"),
        ("ratio", "rate and distortion, PartialSynthesis:", CURVES, "0.400", "yes"),
        ("recipes", "quickstart: bits", RECIPE, "2.950 (1 of 3)", "no"),
        ("recipes", "quickstart: minutes", RECIPE, "4.5 (1 of 3)", "yes"),
    ],
)
def test_a_figure_is_that_of_the_runs(name, what, runs, measured, met):
    (target,) = (each for each in MODULES[name].targets() if what in each.what and not each.gpu)
    row = row_of(table_of(**{f"{name}_cpu": runs}), target.what)
    assert row[3:] == [measured, met]


def test_what_is_missed_is_in_sight():
    steps = [entry | {"seconds": [entry["length"] * 3.0]} if entry["model"] == "flat" else entry for entry in STEPS]
    missed, folded = table_of(step_cpu=steps).split("<details>")
    for what, count in (("training at 16,384 bytes", 1), ("time per byte at 16,384 bytes", 1), ("at 65,536 bytes", 0)):
        assert missed.count(what) == count, what
        assert what in folded


def test_only_what_was_measured_on_all_sizes_is_the_least_of_them():
    (target,) = (each for each in MODULES["dwt"].targets() if each.gpu and "ptwt" in each.what)
    runs = [entry | {"pass": "both", "size": [1, 1, 64, 1]} for entry in timed(triton=[1.0], ptwt=[20.0])]
    assert target.values(runs) == []
    for size, seconds in ((128, 12.0), (256, 15.0)):
        runs += [entry | {"pass": "both", "size": [1, 1, size, 1]} for entry in timed(triton=[1.0], ptwt=[seconds])]
    assert target.values(runs) == [12.0] and target.met(runs)
