"""The curves of rate and distortion: one model, several ratios."""

import pytest
import torch
from reading_tables import rows

from wavecomp.benchmarks import curves, tasks


def entry(name, seed, bits, ratios=curves.RATIOS, what="curve"):
    points = [{"asked": asked, "ratio": ratio, "bits": bits} for asked, ratio in zip(curves.RATIOS, ratios)]
    return {"what": what, "compressor": name, "seed": seed, "points": points}


def test_a_row_per_compressor_with_the_worst_ratio_of_all():
    runs = [entry("a", 0, 1.0), entry("a", 1, 2.0, ratios=(4, 5.6, 8)), entry("b", 0, 3.0)]
    one, two = rows(curves.table(runs))
    assert one == ["a", *["1.500 ± 0.500 (2 of 3)"] * 3, "5.00%"]
    assert two == ["b", *["3.000 (1 of 3)"] * 3, "0.00%"]
    assert curves.table([]) == ""
    mixed = [*runs, entry("a", 0, 4.0, what="uneven")]
    assert rows(curves.table(mixed)) == [one, two, ["a", *["4.000 (1 of 3)"] * 3, "0.00%"]]
    assert curves.points(mixed) == curves.points(runs)
    points = curves.points(runs)
    assert len(points) == 9 and points[4]["codes_per_byte"] == 1 / 5.6 and points[4]["asked"] == 32 / 6


@pytest.mark.parametrize("name", curves.COMPRESSORS)
def test_every_ratio_that_is_asked_for_is_within_reach(name):
    model = tasks.autoencoder(curves.COMPRESSORS[name](curves.TRAINED_AT))
    capacity = model.body.chunk_networks[0].capacity
    assert capacity >= tasks.CHUNK / curves.RATIOS[0]


@pytest.mark.slow
@pytest.mark.parametrize("what, name", [("curve", curves.FIXED), ("curve", "DyadicLeaves"), ("uneven", curves.FIXED)])
def test_a_member_is_one_model_at_all_ratios(what, name, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "TEXT_LENGTH", 128)
    text = torch.randint(97, 123, (60_000,), generator=torch.Generator().manual_seed(0))
    (tmp_path / "text").write_bytes(bytes(text.tolist()))
    run = curves._curve(what, name, 0, 2, str(tmp_path / "text"))
    assert [point["asked"] for point in run["points"]] == [4, 32 / 6, 8]
    if name == curves.FIXED:
        assert [point["ratio"] for point in run["points"]] == pytest.approx([4, 32 / 6, 8])
    else:  # letters at random are loud everywhere, so the ratio may jump
        ratios = [point["ratio"] for point in run["points"]]
        assert ratios == sorted(ratios) and ratios[0] < ratios[-1]
    assert all(point["bits"] > 3 for point in run["points"]) and run["what"] == what
