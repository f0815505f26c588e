"""What a basis keeps is listed node by node, and the picture must hold exactly those."""

import math

import numpy as np
import pytest
import torch

import wavecomp as wc
from wavecomp.wavelets import Basis, best_basis, wavelet_packet


def image(ax):
    return np.asarray(ax.images[0].get_array())


def lower_edges(ax, chunk):
    segments = np.asarray(ax.collections[0].get_segments())
    across = segments[(segments[:, 0, 1] == segments[:, 1, 1]) & (segments[:, 0, 0] == chunk - 0.5)]
    return sorted(across[:, 0, 1].tolist())


def signals(length=64):
    t = torch.arange(length)
    own = torch.stack([(t == 20).float(), torch.cos(math.pi * t), torch.cos(1.3 * t), torch.randn(length)])
    return own[..., None].expand(-1, -1, 3).contiguous()


def of_nodes(nodes, bins):
    """Column of levels from ``(low edge, high edge, level)``, frequencies in cycles per token."""
    column = np.full(bins, -1)
    for low, high, level in nodes:
        column[round(low * 2 * bins) : round(high * 2 * bins)] = level
    return column


@pytest.mark.parametrize("bank, level", [("haar", 3), ("db4", 4), (wc.MBandFilterBank(3), 2)], ids=["2", "4", "three"])
def test_bands_with_trees_of_their_own_are_tiled_by_the_nodes_that_their_layouts_name(bank, level):
    transform = wc.BestBasis1d(bank, level=level)
    bands = transform(signals()[None])
    ax = wc.plots.plot_packet_tree(bands)
    branches = 3 if isinstance(bank, wc.MBandFilterBank) else 2
    bins = branches**level
    assert image(ax).shape == (bins, 4)
    layout = bands.layout
    for chunk in range(4):
        kept = {layout.names[band] for band in layout.band[0, chunk].tolist()}
        nodes = []
        for name in kept:
            place = 0
            for letter in name:
                branch = int(letter) if branches == 3 else "ad".index(letter)
                place = place * branches + (branches - 1 - branch if place % 2 else branch)
            width = 0.5 / branches ** len(name)
            nodes.append((place * width, (place + 1) * width, len(name)))
        assert image(ax)[:, chunk].tolist() == of_nodes(nodes, bins).tolist()
        np.testing.assert_allclose(lower_edges(ax, chunk), sorted(low for low, _, _ in nodes), atol=1e-7)
    assert len({tuple(column) for column in image(ax).T}) > 1


def test_a_basis_of_packets_is_tiled_by_the_nodes_that_it_marks():
    tree = wavelet_packet(signals(), "haar", level=3, mode="periodization", axis=-2)
    basis = best_basis(tree)
    ax = wc.plots.plot_packet_tree(basis)
    for chunk in range(4):
        for path, mark in basis.kept.items():
            if bool(mark[chunk]):
                place = tree.paths(len(path), order="frequency").index(path)
                width = 8 >> len(path)
                assert (image(ax)[place * width : (place + 1) * width, chunk] == len(path)).all()
        assert len(lower_edges(ax, chunk)) == sum(bool(mark[chunk]) for mark in basis.kept.values())


def test_a_basis_may_be_of_one_signal_or_of_a_batch():
    tree = wavelet_packet(signals(), "haar", level=2, mode="periodization", axis=-2)
    rows = image(wc.plots.plot_packet_tree(best_basis(tree)))
    single = best_basis(wavelet_packet(signals()[1], "haar", level=2, mode="periodization", axis=-2))
    assert image(wc.plots.plot_packet_tree(single)).shape == (4, 1)
    twice = best_basis(
        wavelet_packet(torch.stack([signals()[:2], signals()[1:3]]), "haar", level=2, mode="periodization", axis=-2)
    )
    assert np.array_equal(image(wc.plots.plot_packet_tree(twice, row=1)), rows[:, 1:3])


def test_fixed_trees_are_the_same_in_every_chunk_and_empty_chunks_are_left_out():
    bands = wc.DWT1d("haar", level=3)(torch.randn(2, 3, 16, 2), torch.tensor([[16, 16, 16], [16, 7, 0]]))
    assert image(wc.plots.plot_packet_tree(bands)).T.tolist() == [[3, 3, 2, 2, 1, 1, 1, 1]] * 3
    assert image(wc.plots.plot_packet_tree(bands, row=1)).shape == (8, 2)


def test_colours_stand_for_levels():
    ax = wc.plots.plot_packet_tree(wc.BestBasis1d("haar", level=3)(signals()))
    picture, bar = ax.images[0], ax.figure.axes[1]
    assert picture.get_clim() == (0.5, 3.5) and picture.get_cmap().N == 3
    assert bar.get_ylabel() == "level of the packet"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["1", "2", "3"]
    assert ax.get_ylabel() == "frequency (cycles per token)"
    assert list(picture.get_extent()) == [-0.5, 3.5, 0, 0.5]


def test_what_cannot_be_drawn_is_said_in_one_line():
    bands = wc.BestBasis1d("haar", level=2)(torch.randn(2, 1, 8, 2), torch.tensor([[8], [0]]))
    deep = Basis(kept={"": torch.ones(2, 2, 2, dtype=torch.bool)}, cost=torch.ones(2, 2, 2))
    for call, message in (
        (lambda: wc.plots.plot_packet_tree("aad"), "tree has type str; allowed: Bands or Basis"),
        (lambda: wc.plots.plot_packet_tree(bands, row=2), "row=2 is out of range; allowed: 0 to 1"),
        (lambda: wc.plots.plot_packet_tree(bands, row=1), "row=1 holds no tokens"),
        (lambda: wc.plots.plot_packet_tree(deep), "tree has rows (2, 2, 2); allowed: (batch, chunks), (chunks,) or ()"),
    ):
        with pytest.raises(TypeError if "has type" in message else ValueError) as error:
            call()
        assert message in str(error.value) and "\n" not in str(error.value)
