"""Taps from impulses, held to pywt's and to what the bank makes of any signal."""

import numpy as np
import pytest
import pywt
import torch
import zoo

import wavecomp as wc
from wavecomp.plots.filters import _cascade, _response


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


LINEAR = [pytest.param(make, id=name) for name, make in zoo.every_bank() if make().linear]


@pytest.mark.parametrize("make", LINEAR)
def test_taps_are_what_analysis_does_to_a_signal(make):
    bank = zoo.perturb(make()).double()
    for head in range(bank.heads):
        response = _response("bank", bank, head)
        x = torch.randn(1, 60 * bank.branches, 4, dtype=torch.float64)
        channel = head * 4 // bank.heads
        with torch.no_grad():
            branches = bank.analysis(x)
        for branch, taps in zip(branches, response.taps):
            start = 30 * bank.branches + response.first
            expected = float(x[0, start : start + len(taps), channel] @ torch.from_numpy(taps))
            assert float(branch[0, 30, channel]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["haar", "db4", "bior4.4", "sym5"])
def test_responses_of_pywts_wavelets_are_pywts(name):
    figure = wc.plots.plot_filter_bank(wc.WaveletFilterBank(name))
    taps, response, _, _ = figure.axes
    wavelet = pywt.Wavelet(name)
    for label, filters in (("approximation", wavelet.dec_lo), ("detail", wavelet.dec_hi)):
        used = np.trim_zeros(np.array(filters)[::-1])
        drawn = lines(taps)[label].get_ydata()
        assert np.abs(np.correlate(drawn, used, "full")).max() == pytest.approx(np.square(used).sum(), abs=1e-6)
        frequency, magnitude = lines(response)[label].get_data()
        expected = np.abs(np.exp(-2j * np.pi * np.outer(frequency, np.arange(len(filters)))) @ filters)
        loud = expected > 1e-3
        np.testing.assert_allclose(magnitude[loud], 20 * np.log10(expected[loud]), atol=1e-3)
        assert frequency[[0, -1]].tolist() == [0, 0.5]


@pytest.mark.parametrize("name", ["haar", "db3"])
def test_functions_are_pywts_scaling_function_and_wavelet(name):
    figure = wc.plots.plot_filter_bank(wc.WaveletFilterBank(name))
    scaling, wavelet, points = pywt.Wavelet(name).wavefun(level=8)
    for panel, label, expected in ((2, "approximation", scaling), (3, "detail", wavelet)):
        time, drawn = lines(figure.axes[panel])[label].get_data()
        step = time[1] - time[0]
        assert step == pytest.approx(points[1] - points[0])
        assert np.square(drawn).sum() * step == pytest.approx(1, abs=1e-6)
        # pywt's is the synthesis, which an orthogonal bank's analysis reads backwards or forwards
        alike = np.abs(np.correlate(drawn, expected, "full")).max() * step
        assert alike == pytest.approx(1, abs=0.02)


def test_a_scaling_function_of_three_branches_is_cut_in_three():
    time, functions = _cascade(_response("bank", wc.MBandFilterBank(3, order=0), 0))
    inside = (time >= 0) & (time < 1)
    np.testing.assert_allclose(functions[0][inside], 1, atol=1e-6)
    assert not functions[0][~inside].any()
    assert len(functions) == 3


def test_the_initial_bank_is_drawn_beside_in_dashes():
    initial = wc.OrthogonalFilterBank("db2")
    figure = wc.plots.plot_filter_bank(zoo.perturb(wc.OrthogonalFilterBank("db2")), initial=initial)
    alone = wc.plots.plot_filter_bank(initial)
    for panel, ax in enumerate(figure.axes):
        for label, line in lines(alone.axes[panel]).items():
            both = lines(ax)
            assert np.array_equal(both[f"initial {label}"].get_ydata(), line.get_ydata())
            assert not np.allclose(both[label].get_ydata(), line.get_ydata(), atol=1e-3)
            assert (both[f"initial {label}"].get_linestyle(), both[label].get_linestyle()) == ("--", "-")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["Taps", "Frequency response", "Scaling function", "Wavelet"]
    assert figure.axes[1].get_xlabel() == "cycles per token" and "dB" in figure.axes[1].get_ylabel()
    assert figure.get_suptitle() == "Analysis of OrthogonalFilterBank, 4 taps"


def test_heads_are_compared_with_their_own_or_with_the_only_one():
    bank = zoo.perturb(wc.OrthogonalFilterBank("db2", heads=2))
    for initial, head in ((wc.WaveletFilterBank("db2"), 0), (zoo.perturb(wc.FreeFilterBank("db2", heads=2)), 1)):
        drawn = lines(wc.plots.plot_filter_bank(bank, initial=initial, head=1).axes[0])["initial detail"].get_ydata()
        assert np.array_equal(drawn, _response("initial", initial, head).taps[1])


def test_every_detail_of_several_branches_has_a_line():
    figure = wc.plots.plot_filter_bank(wc.MBandFilterBank(4))
    assert list(lines(figure.axes[3])) == ["detail 1", "detail 2", "detail 3"]
    assert figure.axes[3].get_title() == "Wavelets"


def test_what_cannot_be_drawn_is_said_in_one_line():
    plot, haar = wc.plots.plot_filter_bank, wc.WaveletFilterBank("haar")
    for call, message in (
        (lambda: plot(wc.DWT1d("haar", level=1)), "bank has type DWT1d; allowed: FilterBank"),
        (lambda: plot(wc.NeuralLiftingFilterBank(dim=4)), "bank=NeuralLiftingFilterBank is not linear"),
        (
            lambda: plot(haar, initial=wc.NeuralLiftingFilterBank(dim=4)),
            "initial=NeuralLiftingFilterBank is not linear",
        ),
        (lambda: plot(haar, initial="haar"), "initial has type str; allowed: FilterBank"),
        (lambda: plot(haar, initial=wc.MBandFilterBank(3)), "initial has 3 branches, bank 2; they must agree"),
        (lambda: plot(wc.OrthogonalFilterBank(heads=2), head=2), "head=2 is out of range; allowed: 0 to 1"),
    ):
        with pytest.raises(TypeError if "has type" in message else ValueError) as error:
            call()
        assert message in str(error.value) and "\n" not in str(error.value)
