import numpy as np
import pytest
from matplotlib.collections import LineCollection

import wavecomp as wc


def record(compressor, rate, bits, seed, **more):
    return {"compressor": compressor, "codes_per_byte": rate, "bits_per_byte": bits, "seed": seed, **more}


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_a_line_is_the_mean_over_seeds_and_its_bars_are_the_range():
    runs = [
        record("haar", 1 / 4, 2.0, 0),
        record("haar", 1 / 4, 2.2, 1),
        record("haar", 1 / 4, 2.6, 2),
        record("haar", 1 / 8, 3.0, 0),
    ]
    ax = wc.plots.plot_rate_distortion(runs)
    rate, bits = lines(ax)["haar"].get_data()
    assert rate.tolist() == [1 / 8, 1 / 4]
    np.testing.assert_allclose(bits, [3.0, 6.8 / 3])
    upright = [c.get_segments() for c in ax.collections if isinstance(c, LineCollection)]
    spans = [segment[:, 1].tolist() for segments in upright for segment in segments if np.ptp(segment[:, 0]) == 0]
    assert any(span == pytest.approx([2.0, 2.6]) for span in spans)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("codes per byte", "bits per byte")
    assert ax.get_legend().get_title().get_text() == "mean and range\nof 1 or 3 seeds"
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1/8", "1/4"]


def test_runs_that_asked_for_the_same_belong_together_whatever_they_reached():
    runs = [
        record("leaves", rate, bits, seed, asked=asked)
        for asked, rate, bits, seed in ((8, 0.12, 2.0, 0), (8, 0.13, 2.2, 1), (4, 0.24, 1.5, 0), (4, 0.26, 1.7, 1))
    ]
    rate, bits = lines(wc.plots.plot_rate_distortion(runs))["leaves"].get_data()
    np.testing.assert_allclose(rate, [0.125, 0.25])
    np.testing.assert_allclose(bits, [2.1, 1.6])


def test_seeds_that_reached_the_same_have_a_mean_whose_rounding_is_no_spread():
    rate = next(rate for rate in np.random.default_rng(0).random(1000) if np.mean([rate] * 3) < rate)
    ax = wc.plots.plot_rate_distortion([record("mean", rate, 2.0, seed) for seed in range(3)])
    assert lines(ax)["mean"].get_xdata() == pytest.approx([rate])


def test_a_compressor_without_codes_is_a_line_across():
    runs = [record("none", 0, 3.0, 0), record("none", 0, 3.2, 1), record("mean", 0.5, 2.0, 0)]
    none = lines(wc.plots.plot_rate_distortion(runs))["none"]
    assert none.get_ydata() == pytest.approx([3.1, 3.1])
    assert none.get_xdata() == [0, 1] and none.get_marker() in ("", "None")


def test_many_compressors_look_different():
    runs = [record(f"c{number}", 0.25, number, 0) for number in range(20)]
    ax = wc.plots.plot_rate_distortion(runs)
    assert len({(line.get_color(), line.get_marker()) for line in lines(ax).values()}) == 20
    assert ax.get_legend().get_title().get_text() == ""


def test_panels_that_share_names_share_the_colours_of_compressors():
    runs = [record(name, 0.25, 2.0, 0) for name in ("haar", "mean")]
    whole = lines(wc.plots.plot_rate_distortion(runs))
    part = lines(wc.plots.plot_rate_distortion(runs[1:], names=["haar", "mean"]))
    assert list(part) == ["mean"]
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert getattr(part["mean"], look)() == getattr(whole["mean"], look)() != getattr(whole["haar"], look)()
    with pytest.raises(ValueError, match=r"names=\['haar'\] leaves out some of the runs; allowed: at least \['mean'\]"):
        wc.plots.plot_rate_distortion(runs[1:], names=["haar"])


def test_runs_that_cannot_be_drawn_are_named():
    good = record("haar", 0.25, 2.0, 0)
    for runs, message in (
        ([], "runs=[] is empty"),
        ([good, {"compressor": "haar", "seed": 1}], "runs[1] lacks ['codes_per_byte', 'bits_per_byte']"),
        ([good, good], "runs[1] repeats seed=0 of 'haar'; allowed: each once"),
        ([record("none", None, 2.0, 0)], "runs[0] has codes_per_byte=None; allowed: numbers from 0 on"),
        ([record("haar", 0.25, float("nan"), 0)], "runs[0] has bits_per_byte=nan"),
        ([record("haar", -0.25, 2.0, 0)], "runs[0] has codes_per_byte=-0.25"),
    ):
        with pytest.raises(ValueError) as error:
            wc.plots.plot_rate_distortion(runs)
        assert message in str(error.value) and "\n" not in str(error.value)


FULL = """\
epoch,step,train/bits_per_byte,train/bytes_per_second,train/compression_ratio,val/bits_per_byte,val/compression_ratio,\
val/context_gain
0,9,6.5,12000.0,8.0,,,
0,19,5.5,13000.0,7.0,,,
0,19,,,,5.0,7.5,0.25
"""


def test_training_has_a_panel_for_each_figure_that_is_there(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(FULL)
    figure = wc.plots.plot_training(path, target_ratio=8)
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert list(panels) == ["Bits per byte", "Compression ratio", "Context gain", "Speed"]
    bits, ratio = lines(panels["Bits per byte"]), lines(panels["Compression ratio"])
    assert (bits["train"].get_xdata().tolist(), bits["train"].get_ydata().tolist()) == ([9, 19], [6.5, 5.5])
    assert (bits["val"].get_xdata().tolist(), bits["val"].get_ydata().tolist()) == ([19], [5.0])
    assert list(ratio) == ["train", "val", "target"] and ratio["target"].get_ydata() == [8, 8]
    assert list(lines(panels["Context gain"])) == ["val"] and list(lines(panels["Speed"])) == ["train"]
    units = [ax.get_ylabel() for ax in figure.axes]
    assert units == ["bits per byte", "tokens per code", "bits per byte", "bytes per second"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "val", "target"]


def test_panels_whose_columns_are_missing_or_empty_are_not_drawn(tmp_path):
    path = tmp_path / "metrics.csv"
    names = ("answer_accuracy", "answer_bits", "bits_per_byte", "loss")
    path.write_text(f"step,{','.join(f'train/{name}' for name in names)},val/context_gain\n9,0.1,1.5,2.5,3,\n")
    figure = wc.plots.plot_training(str(path))
    assert [ax.get_title() for ax in figure.axes] == ["Bits per byte", "Bits of the answers", "Answers that are right"]


@pytest.mark.parametrize("content", ["", "epoch,step,loss\n0,1,2.0\n", "epoch,train/bits_per_byte\n0,2.0\n"])
def test_a_file_of_something_else_is_said_in_one_line(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"metrics.csv has columns \[.*\]; allowed: step, and train/ or val/") as error:
        wc.plots.plot_training(path)
    assert "\n" not in str(error.value)


def test_a_classifier_has_its_loss_and_what_is_right(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,train/loss,train/accuracy,val/loss,train/compression_ratio\n9,1.5,0.5,,8\n19,1.0,0.75,1.25,8\n"
    )
    figure = wc.plots.plot_training(path)
    assert [ax.get_title() for ax in figure.axes] == ["Loss", "What is right", "Compression ratio"]
