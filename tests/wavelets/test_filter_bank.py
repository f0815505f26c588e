import torch

import wavecomp as wc
from wavecomp.wavelets import dwt


def test_even_lengths_are_pywts_and_odd_ones_pass_the_last_sample():
    bank = wc.WaveletFilterBank("db4")
    x = torch.randn(2, 15, 3, dtype=torch.float64)
    low, high = bank.analysis(x)
    cA, cD = dwt(x[:, :14], "db4", mode="periodization")
    torch.testing.assert_close(low[:, :7], cA)
    torch.testing.assert_close(high, cD)
    assert torch.equal(low[:, 7], x[:, 14])


def test_a_single_sample_and_none_pass_through():
    bank = wc.WaveletFilterBank("db2")
    for length in (0, 1):
        x = torch.randn(2, length, 3)
        low, high = bank.analysis(x)
        assert torch.equal(low, x) and high.shape == (2, 0, 3)
        assert torch.equal(bank.synthesis((low, high)), x)


def test_an_unknown_wavelet_is_refused_when_the_bank_is_made():
    try:
        wc.WaveletFilterBank("wavy")
    except ValueError as error:
        assert "wavelet='wavy'" in str(error)
    else:
        raise AssertionError("no error")
