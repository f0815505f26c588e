import pytest

import wavecomp as wc
from wavecomp.benchmarks import pictures, ratio
from wavecomp.plots.style import COLOURS


def entry(name, bits, **more):
    return {"compressor": name, "bits": bits, **more}


def marks(ax):
    return [line for line in ax.lines if line.get_label() == "_seeds"]


def test_a_mark_is_a_seed_and_a_bar_their_mean_with_the_least_on_top():
    runs = [entry("mean", 2.0), entry("haar", 1.0), entry("haar", 1.5), entry("haar", 0.5)]
    ax = wc.plots.plot_bits(runs)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mean", "haar"]
    assert [(list(line.get_xdata()), set(line.get_ydata())) for line in marks(ax)] == [
        ([2.0], {0}),
        ([1, 1.5, 0.5], {1}),
    ]
    assert [list(line.get_xdata()) for line in ax.lines if line.get_label() == "_mean"] == [[2.0, 2.0], [1.0, 1.0]]
    assert ax.get_xlim()[0] == 0 and ax.get_xlabel() == "bits" and ax.get_legend() is None


def test_each_ratio_has_a_colour_and_the_best_of_them_orders_the_rows():
    runs = [entry("b", 1.0, asked=8), entry("b", 3.0, asked=4), entry("a", 2.0, asked=4)]
    ax = wc.plots.plot_bits(runs)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["4", "8"]
    assert {(line.get_xdata()[0], line.get_color()) for line in marks(ax)} == {
        (1.0, COLOURS[1]),
        (3.0, COLOURS[0]),
        (2.0, COLOURS[0]),
    }


def test_the_names_below_the_ratios_are_all_to_be_read():
    names = list(ratio.COMPRESSORS)
    figure = pictures.ratios(
        [{"what": "text", "compressor": name, "asked": 8, "trained": 8.1, "calibrated": 8} for name in names], []
    )
    figure.draw_without_rendering()
    (legend,) = figure.legends
    inside = legend.get_window_extent()
    assert inside.x0 >= 0 and inside.x1 <= figure.bbox.x1 and len(legend.get_texts()) == len(names)


def test_panels_of_one_picture_share_their_colours_and_show_all_marks():
    runs = [
        entry("a", 1.25, asked=16, task="mixed"),
        entry("b", 1.26, asked=16, task="mixed"),
        entry("a", 1.0, asked=8, task="copy"),
        entry("b", 4.0, asked=16, task="copy"),
    ]
    mixed, copy = pictures.bits_by_task(runs, "compressor").axes
    assert {line.get_color() for line in marks(mixed)} == {COLOURS[1]}
    assert [text.get_text() for text in mixed.get_legend().get_texts()] == ["16"]
    assert 1.2 < mixed.get_xlim()[0] < 1.25 and mixed.get_xlim()[1] > 1.26
    assert copy.get_xlim()[0] == 0 and copy.get_xlim()[1] > 4
    with pytest.raises(ValueError, match=r"ratios=\[4\] leaves out some of the runs; allowed: at least \[16\]"):
        wc.plots.plot_bits(runs[:1], ratios=[4])


def test_ratios_are_off_by_per_cent_of_what_was_asked_for():
    runs = [
        {"compressor": name, "asked": asked, "trained": asked * off, "calibrated": asked}
        for name, asked, off in (("leaves", 4, 1.05), ("leaves", 16, 0.98), ("shrinkage", 4, 1.0))
    ]
    ax = wc.plots.plot_ratio_error(runs)
    leaves, shrinkage = ax.lines
    assert list(leaves.get_ydata()) == pytest.approx([5, -2]) and list(shrinkage.get_ydata()) == [0]
    assert leaves.get_xdata()[0] < 4 < shrinkage.get_xdata()[0] < 4.2
    assert [label.get_text() for label in ax.get_xticklabels()] == ["4", "16"]
    assert list(wc.plots.plot_ratio_error(runs, key="calibrated").lines[0].get_ydata()) == [0, 0]


def test_runs_that_cannot_be_drawn_are_named():
    for plot in (wc.plots.plot_bits, wc.plots.plot_ratio_error):
        with pytest.raises(ValueError, match=r"runs=\[\] is empty; give at least one record"):
            plot([])
        with pytest.raises(ValueError, match=r"runs\[1\] lacks \['compressor'\]; allowed: records with"):
            plot([{"compressor": "a", "bits": 1, "asked": 1, "trained": 1}, {"bits": 1, "asked": 1, "trained": 1}])


def test_the_pictures_of_grids_have_a_panel_per_task_and_per_kind_of_text():
    runs = [entry(name, 1.0, task=task) for name in "ab" for task in ("copy", "rate", "text")]
    assert [ax.get_title() for ax in pictures.bits_by_task(runs, "compressor").axes] == ["copy", "rate", "text"]
    runs = [
        {"what": what, "compressor": "a", "asked": 8, "trained": 8.1, "calibrated": 8} for what in ("text", "mixed")
    ]
    titles = ["trained, text", "calibrated, text", "trained, mixed", "calibrated, mixed"]
    points = [{"compressor": "a", "seed": 0, "asked": 4, "codes_per_byte": 0.25, "bits_per_byte": 1.0}]
    both = pictures.ratios(runs, points)
    assert [ax.get_title() for ax in both.axes] == [*titles, "Rate and distortion"]
    assert [ax.get_title() for ax in pictures.ratios([], points).axes] == ["Rate and distortion"]
    runs[1]["compressor"] = "b"
    figure = pictures.ratios(runs, [])
    assert [ax.get_title() for ax in figure.axes] == titles
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    # one compressor has one look in all panels
    drawn = [[line for line in ax.lines if len(line.get_xdata())] for ax in figure.axes]
    assert [[(line.get_label(), line.get_color()) for line in lines] for lines in drawn] == [
        [("a", COLOURS[0])],
        [("a", COLOURS[0])],
        [("b", COLOURS[1])],
        [("b", COLOURS[1])],
    ]
    with pytest.raises(ValueError, match=r"names=\['a'\] leaves out some of the runs; allowed: at least \['b'\]"):
        wc.plots.plot_ratio_error(runs[1:], names=["a"])
