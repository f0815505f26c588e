import pytest
import pywt

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
