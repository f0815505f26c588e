"""The benchmark of position codes: what it compares, and what its table says of it."""

import pytest
from reading_tables import rows

import wavecomp as wc
from wavecomp.benchmarks import grid, positions, tasks
from wavecomp.benchmarks.measure import Options


def test_encodings_differ_in_nothing_but_how_places_are_told():
    names = positions.members(Options())
    assert len(names) == 2 * positions.SEEDS * len(positions.ENCODINGS) and "text-1-dyadic-2-bits" in names
    made = {name: positions._compressor(name) for name in positions.ENCODINGS}
    assert all(compressor.capacity(tasks.CHUNK) * positions.RATIO == tasks.CHUNK for compressor in made.values())
    assert [made[name].encoding.bits for name in positions.ENCODINGS if "dyadic" in name] == [None, 2]
    assert isinstance(made["rotary"].encoding, wc.RotaryPositionFrequency)


@pytest.mark.slow
def test_recall_is_asked_at_every_length(tmp_path, monkeypatch):
    for module in (positions, tasks):
        monkeypatch.setattr(module, "DIM", 16)
    monkeypatch.setattr(tasks, "HEADS", 2)
    monkeypatch.setattr(positions, "ROWS", 2)
    options = Options(small=True, only=("recall-0-additive",))
    (done,) = grid.run(tmp_path, positions.members(options), options)
    assert len(done["accuracy"]) == len(positions.LONGER) and all(0 <= share < 0.5 for share in done["accuracy"])
    assert rows(positions.table([done]))[0][0] == "additive"
    nothing = done | {"accuracy": [0.0] * len(positions.LONGER)}
    assert rows(positions.table([nothing]))[0][-1] == ""


def test_the_table_says_what_is_kept_at_the_longest():
    runs = [
        {"task": "recall", "encoding": "rotary", "seed": seed, "accuracy": [0.8, 0.7, 0.6 - 0.2 * seed], "bits": 1.0}
        for seed in range(2)
    ]
    (row,) = rows(positions.table(runs))
    at = [f"{accuracy} (2 of 3)" for accuracy in ("0.800 ± 0.000", "0.700 ± 0.000", "0.500 ± 0.100")]
    assert row == ["rotary", "", *at, "62.5%"]
