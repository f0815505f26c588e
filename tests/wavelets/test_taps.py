import pytest
import pywt
import torch

import wavecomp as wc
from wavecomp.wavelets import FilterTaps


def test_taps_are_pywts_for_every_discrete_wavelet():
    names = pywt.wavelist(kind="discrete")
    assert len(names) > 100
    for name in names:
        taps, wavelet = FilterTaps.of(name), pywt.Wavelet(name)
        assert [taps.dec_lo, taps.dec_hi, taps.rec_lo, taps.rec_hi] == [tuple(f) for f in wavelet.filter_bank]
        # pywt calls bior1.1 and rbio1.1 biorthogonal, although they are haar
        assert taps.orthogonal == (wavelet.orthogonal or name in ("bior1.1", "rbio1.1")), name
        assert FilterTaps.of(wavelet) == taps and FilterTaps.of(taps) is taps


@pytest.mark.parametrize(
    "filters, message",
    [
        (((1.0, 1.0), (1.0, 1.0), (1.0,), (1.0, 1.0)), "one even length"),
        (((1.0,),) * 4, "one even length"),
        (((),) * 4, "one even length"),
        (((1.0, float("nan")),) * 4, "not finite"),
    ],
)
def test_filters_that_are_no_bank_are_refused(filters, message):
    with pytest.raises(ValueError, match=message):
        FilterTaps(*filters)


def test_filters_that_are_no_inverse_of_one_another_are_refused():
    low, high = (0.5**0.5, 0.5**0.5), (5.0, 7.0)
    taps = FilterTaps(low, high, low[::-1], high[::-1])  # transposed, and still not orthogonal
    assert not taps.orthogonal and taps.error > 1
    with pytest.raises(ValueError, match="what synthesis makes of analysis is off by 36; allowed: filters"):
        wc.WaveletFilterBank(taps)


@pytest.mark.parametrize("name", pywt.wavelist(kind="discrete"))
def test_all_wavelets_are_exact_but_the_one_that_is_cut_off(name):
    bank = wc.WaveletFilterBank(name)
    x = torch.randn(1, 128, 2, dtype=torch.float64)
    off = float((bank.synthesis(bank.analysis(x)) - x).abs().max())
    assert bank.exact == (off < 1e-8) == (name != "dmey")
    assert off < 10 * max(bank.taps.error, 1e-10)
