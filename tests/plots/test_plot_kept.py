import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import wavecomp as wc


def bars(ax):
    counts, edges, _ = ax.patches[0].get_data()
    return np.asarray(counts).tolist(), np.asarray(edges).tolist()


def stage(chunk_length, count):
    return wc.ChunkNetwork(chunk_length=chunk_length, compressor=wc.MeanPoolCompressor(count=count))


def uneven(lengths):
    """Codes of chunks of 8, of which every other keeps half of its own."""
    codes = stage(8, 4)(wc.Codes.from_tokens(torch.randn(len(lengths), max(lengths), 4), torch.tensor(lengths)))
    return codes.replace(mask=codes.mask & ((codes.chunk % 2 == 0) | (torch.arange(codes.mask.shape[1]) % 2 == 0)))


def test_bars_are_the_codes_of_each_chunk_over_its_tokens():
    codes = uneven([32, 21, 3])
    assert bars(wc.plots.plot_kept_codes(codes)) == ([4, 2, 4, 2], [0, 8, 16, 24, 32])
    counts, edges = bars(wc.plots.plot_kept_codes(codes, row=1))
    assert edges == [0, 8, 16, 21]
    assert sum(counts) == int(codes.mask[1].sum())
    assert bars(wc.plots.plot_kept_codes(codes, row=2))[1] == [0, 3]
    ax = wc.plots.plot_kept_codes(codes)
    assert ax.get_title() == "Codes of each chunk, 2.7 tokens per code"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("position (tokens)", "codes per chunk")


def test_a_row_whose_codes_are_all_gone_has_bars_of_none():
    codes = uneven([32])
    ax = wc.plots.plot_kept_codes(codes.hidden())
    assert bars(ax) == ([0, 0, 0, 0], [0, 8, 16, 24, 32])
    assert ax.get_title().endswith("none kept")


def test_bars_begin_where_the_codes_do():
    codes = stage(8, 4)(wc.Codes.from_tokens(torch.randn(1, 16, 4), start=24))
    assert bars(wc.plots.plot_kept_codes(codes)) == ([4, 4], [24, 32, 40])


@pytest.mark.parametrize("keep", ["all", "last"])
def test_stages_are_told_apart(keep):
    reduce_network = wc.ReduceNetwork(dim=4, heads=1, layers=1)
    body = wc.ChunkReduce(chunk_networks=[stage(8, 4), stage(8, 2)], reduce_network=reduce_network, keep=keep)
    codes = body(wc.Codes.from_tokens(torch.randn(1, 44, 4)))
    last = ([2, 2, 2], [0, 16, 32, 44])
    if keep == "last":
        assert bars(wc.plots.plot_kept_codes(codes)) == last
    else:
        assert bars(wc.plots.plot_kept_codes(codes, stage=0)) == ([4] * 5 + [2], [0, 8, 16, 24, 32, 40, 44])
        counts, edges = bars(wc.plots.plot_kept_codes(codes, stage=1))
        assert (counts[:2], edges) == (last[0][:2], last[1])
    with pytest.raises(ValueError, match=r"stage=2 is out of range; allowed: 0"):
        wc.plots.plot_kept_codes(codes, stage=2)


def test_surprisal_is_its_mean_in_each_chunk_on_an_axis_of_its_own():
    codes = uneven([21])
    surprisal = torch.arange(21.0)
    own = Figure().add_subplot()
    ax = wc.plots.plot_kept_codes(codes, surprisal=surprisal, ax=own)
    assert ax is own
    right = ax.figure.axes[1]
    means, edges, _ = right.patches[0].get_data()
    assert np.asarray(means).tolist() == [3.5, 11.5, 18.0]
    assert np.asarray(edges).tolist() == [0, 8, 16, 21]
    assert "bits per byte" in right.get_ylabel()


def test_what_cannot_be_drawn_is_said_in_one_line():
    codes = uneven([16, 0])
    for call, message in (
        (lambda: wc.plots.plot_kept_codes(codes.values), "codes has type Tensor; allowed: Codes"),
        (lambda: wc.plots.plot_kept_codes(codes, row=2), "row=2 is out of range; allowed: 0 to 1"),
        (lambda: wc.plots.plot_kept_codes(codes, row=1), "row=1 holds no tokens; allowed: a row with some"),
        (lambda: wc.plots.plot_kept_codes(codes, surprisal=[1.0] * 16), "surprisal has type list; allowed: Tensor"),
        (lambda: wc.plots.plot_kept_codes(codes, surprisal=torch.ones(15)), "shape (15,), expected (16,)"),
    ):
        with pytest.raises(TypeError if "has type" in message else ValueError) as error:
            call()
        assert message in str(error.value) and "\n" not in str(error.value)


def test_stages_of_a_row_shorter_than_any_chunk_are_told_apart():
    stages = [wc.ChunkNetwork(chunk_length=16, compressor=wc.MeanPoolCompressor(count=4)) for _ in range(2)]
    body = wc.ChunkReduce(chunk_networks=stages, reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1))
    codes = body(wc.Codes.from_tokens(torch.randn(1, 10, 8)))
    for stage, count in enumerate((3, 1)):
        assert wc.plots.plot_kept_codes(codes, stage=stage).patches[0].get_data()[0].tolist() == [count]
