"""Heat maps are compared by the numbers they show; energies of the bands by those of the transform."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import wavecomp as wc
from wavecomp.plots.style import FLOOR


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def bands_of(transform, *, length=16, lengths=None):
    return transform(torch.randn(2, 3, length, 4), lengths)


def stage(transform, *, chunk_length=16):
    compressor = wc.WaveletCompressor(transform=transform, pruner=wc.KeepLowpass(4))
    return wc.ChunkNetwork(chunk_length=chunk_length, compressor=compressor)


def codes_of(*stages):
    body = wc.ChunkReduce(chunk_networks=stages, reduce_network=wc.ReduceNetwork(dim=8, heads=2, layers=1))
    return body(wc.Codes.from_tokens(torch.randn(2, 64, 8)))


@pytest.mark.parametrize(
    "transform, names",
    [
        (wc.DWT1d("haar", level=3), ["cA3", "cD3", "cD2", "cD1"]),
        (wc.DWT1d(wc.MBandFilterBank(3), level=1), ["cA1", "cD1.1", "cD1.2"]),
        (wc.WaveletPackets1d("db2", level=2), ["aa", "ad", "dd", "da"]),
    ],
    ids=["dyadic", "three-bands", "packets"],
)
def test_band_energy_of_bands_is_their_energy_in_decibels_under_their_names(transform, names):
    bands = bands_of(transform)
    ax = wc.plots.plot_band_energy(bands, row=1)
    assert labels(ax) == names
    np.testing.assert_allclose(shown(ax), 10 * bands.energy()[1].T.log10().detach().numpy(), rtol=1e-5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("chunk", "band")
    assert ax.figure.axes[1].get_ylabel() == "energy (dB)"
    assert shown(wc.plots.plot_band_energy(transform(torch.ones(5, 16, 4)))).shape == (len(names), 5)


def test_band_energy_of_codes_is_that_of_their_statistics():
    network = stage(wc.DWT1d("db2", level=2))
    direct, through = network(wc.Codes.from_tokens(torch.randn(2, 64, 8))), codes_of(network)
    for codes, key in ((direct, "band_energy"), (through, "chunk_networks.0.band_energy")):
        ax = wc.plots.plot_band_energy(codes, row=1)
        assert labels(ax) == ["cA2", "cD2", "cD1"]
        np.testing.assert_allclose(shown(ax), 10 * codes.statistics[key][1].T.log10().numpy(), rtol=1e-5)


def test_names_of_other_trees_come_from_their_layout_or_not_at_all():
    packets = wc.WaveletPackets1d("haar", level=2)
    codes = codes_of(stage(packets))
    assert labels(wc.plots.plot_band_energy(codes)) == ["band 0", "band 1", "band 2", "band 3"]
    assert labels(wc.plots.plot_band_energy(codes, layout=packets.layout(16))) == ["aa", "ad", "dd", "da"]
    with pytest.raises(ValueError, match="layout names 8 bands, the codes have energies of 4"):
        wc.plots.plot_band_energy(codes, layout=wc.WaveletPackets1d("haar", level=3).layout(16))


def test_as_many_names_are_shown_as_have_room():
    bands = wc.WaveletPackets1d("haar", level=5)(torch.randn(1, 1, 32, 2))
    ax = wc.plots.plot_band_energy(bands)
    assert labels(ax) == list(bands.layout.names[::2])
    assert ax.get_yticks().tolist() == list(range(0, 32, 2))


def test_stages_have_energies_of_their_own():
    codes = codes_of(stage(wc.DWT1d("haar", level=2)), stage(wc.DWT1d("haar", level=1), chunk_length=8))
    for number in (0, 1):
        ax = wc.plots.plot_band_energy(codes, stage=number)
        energy = codes.statistics[f"chunk_networks.{number}.band_energy"][0]
        assert shown(ax).shape == tuple(energy.T.shape)
        assert labels(ax)[0] == "band 0"  # levels of several stages do not tell
    with pytest.raises(ValueError, match=r"no 'band_energy' of stage=2; found: chunk_networks.0.band_energy, chunk"):
        wc.plots.plot_band_energy(codes, stage=2)
    with pytest.raises(ValueError, match="text goes with the chunks of stage=0, not with those of stage=1"):
        wc.plots.plot_band_energy(codes, stage=1, text="x" * 64)


def test_chunks_without_tokens_are_left_out_and_silence_is_the_floor():
    lengths = torch.tensor([[16, 16, 16], [16, 5, 0]])
    bands = bands_of(wc.DWT1d("haar", level=2), lengths=lengths)
    assert shown(wc.plots.plot_band_energy(bands, row=1)).shape == (3, 2)
    flat = wc.DWT1d("haar", level=2)(torch.ones(1, 2, 16, 4))
    values = shown(wc.plots.plot_band_energy(flat))
    assert np.ptp(values) == pytest.approx(FLOOR)
    assert np.isfinite(shown(wc.plots.plot_band_energy(flat.replace(values=0 * flat.values)))).all()


def test_text_stands_under_its_chunks_and_dollars_are_no_formula():
    bands = bands_of(wc.DWT1d("haar", level=2))
    text = "a$b$ is no form\nula, nor any byte like \x00, nor é".encode()
    ax = wc.plots.plot_band_energy(bands, text=text)
    ax.figure.draw_without_rendering()
    under = ax.get_xticklabels()
    assert [label.get_text().split("\n")[0] for label in under] == ["0", "1", "2"]
    assert under[0].get_text() == "0\na$b$ is no form↵"
    assert not under[0].get_parse_math()
    written = "".join(label.get_text().split("\n", 1)[1].replace("\n", "") for label in under)
    assert written == text.decode(errors="replace").replace("\n", "↵").replace("\x00", "·")


def test_text_that_would_not_be_readable_is_left_out():
    bands = wc.DWT1d("haar", level=2)(torch.randn(1, 200, 16, 4))
    ax = wc.plots.plot_band_energy(bands, text="x" * 3200)
    assert not any("x" in label.get_text() for label in ax.get_xticklabels())
    narrow = Figure(figsize=(1.5, 2), layout="constrained").add_subplot()
    few = bands_of(wc.DWT1d("haar", level=2))
    wc.plots.plot_band_energy(few, text=b"y" * 48, ax=narrow)
    for label in narrow.get_xticklabels():
        assert "y" not in label.get_text() or max(map(len, label.get_text().split("\n"))) < 10


def test_scalogram_tiles_are_squares_of_coefficients_over_their_tokens():
    transform = wc.DWT1d("haar", level=2)
    x = torch.randn(1, 2, 8, 3)
    bands = transform(x)
    ax = wc.plots.plot_scalogram(bands)
    assert labels(ax) == ["cA2", "cD2", "cD1"]
    power = 10 * np.log10(bands.values[0].square().mean(-1).numpy())
    expected = [
        [power[token // 8, first + token % 8 // support] for token in range(16)]
        for first, support in ((0, 4), (2, 4), (4, 2))
    ]
    np.testing.assert_allclose(shown(ax), expected, rtol=1e-4)
    assert list(ax.images[0].get_extent()) == [0, 16, -0.5, 2.5]
    one = shown(wc.plots.plot_scalogram(bands, channel=2))
    assert one[0, 0] == pytest.approx(20 * np.log10(abs(float(bands.values[0, 0, 0, 2]))), rel=1e-4)
    assert np.array_equal(shown(wc.plots.plot_scalogram(transform(x[0]))), shown(ax))


@pytest.mark.parametrize("bank", ["haar", "bior2.2", wc.MBandFilterBank(3)], ids=["haar", "5/3", "three"])
def test_scalogram_of_odd_and_short_chunks_has_a_column_per_token(bank):
    bands = wc.DWT1d(bank, level=2)(torch.randn(2, 3, 13, 4), torch.tensor([[13, 13, 7], [13, 1, 0]]))
    for row, tokens in ((0, 33), (1, 14)):
        values = shown(wc.plots.plot_scalogram(bands, row=row))
        assert values.shape == (len(bands.layout.names), tokens)
        assert np.isfinite(values).all()


def test_energy_plots_draw_where_they_are_told():
    axes = Figure().subplots(1, 2)
    bands = bands_of(wc.DWT1d("haar", level=2))
    assert wc.plots.plot_band_energy(bands, ax=axes[0]) is axes[0]
    assert wc.plots.plot_scalogram(bands, ax=axes[1]) is axes[1]
    assert axes[0].images and axes[1].images


def test_what_cannot_be_drawn_is_said_in_one_line():
    bands = bands_of(wc.DWT1d("haar", level=2), lengths=torch.tensor([[16, 16, 16], [0, 0, 0]]))
    tree = wc.BestBasis1d("haar", level=2)(torch.randn(1, 2, 16, 4))
    tokens = wc.Codes.from_tokens(torch.randn(2, 16, 4))
    band_energy, scalogram = wc.plots.plot_band_energy, wc.plots.plot_scalogram
    for call, message in (
        (lambda: band_energy(torch.zeros(3)), "codes_or_bands has type Tensor; allowed: Codes or Bands"),
        (lambda: band_energy(tokens), "codes carry no 'band_energy' of stage=0; found: none of any stage"),
        (
            lambda: band_energy(codes_of(stage(wc.DWT1d("haar", level=2))), row=2),
            "row=2 is out of range; allowed: 0 to 1",
        ),
        (lambda: band_energy(bands, row=-1), "row=-1 is out of range; allowed: 0 to 1"),
        (lambda: band_energy(bands, row=1), "row=1 holds no tokens"),
        (lambda: band_energy(bands, text="short"), "text has 5 bytes, the row 48 tokens"),
        (lambda: band_energy(bands, ax="here"), "ax has type str; allowed: Axes"),
        (lambda: scalogram(tokens), "bands has type Codes; allowed: Bands"),
        (
            lambda: scalogram(tree),
            "bands have a basis for each chunk; allowed: one layout for all, or plot_packet_tree",
        ),
        (lambda: scalogram(bands, row=1), "row=1 holds no tokens"),
        (lambda: scalogram(bands, channel=4), "channel=4 is out of range; allowed: 0 to 3"),
    ):
        with pytest.raises(TypeError if "has type" in message else ValueError) as error:
            call()
        assert message in str(error.value) and "\n" not in str(error.value)
