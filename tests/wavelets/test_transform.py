"""pywt is the oracle."""

import warnings

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavecomp.wavelets import analysis_matrix, dwt, dwt_max_level, idwt, synthesis_matrix, wavedec, waverec

WAVELETS = pywt.wavelist(kind="discrete")


def close(ours, theirs, dtype):
    assert np.isfinite(theirs).all() and ours.shape == theirs.shape and ours.dtype == dtype
    bound = {torch.float64: 1e-10, torch.float32: 5e-6}[dtype] * max(1.0, np.abs(theirs).max())
    assert np.abs(ours.double().numpy() - theirs).max() <= bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dwt_and_idwt_have_pywts_numbers_for_every_wavelet_and_length(dtype):
    assert len(WAVELETS) > 100
    random = np.random.default_rng(0)
    for wavelet in WAVELETS:
        for length in (1, 2, 3, 5, 8, 13, 16, 37, 64, 101):
            x = random.normal(size=(2, length, 3))
            theirs = pywt.dwt(x, wavelet, mode="periodization", axis=1)
            ours = dwt(torch.from_numpy(x).to(dtype), wavelet)
            for mine, reference in zip(ours, theirs):
                close(mine, reference, dtype)
            back = pywt.idwt(*theirs, wavelet, mode="periodization", axis=1)
            close(idwt(*(torch.from_numpy(c).to(dtype) for c in theirs), wavelet), back, dtype)


def test_wavedec_and_waverec_have_pywts_numbers():
    random = np.random.default_rng(0)
    for wavelet in ("haar", "db2", "db4", "sym5", "bior2.2", "coif2"):
        for length in (40, 64, 65, 127):
            x = random.normal(size=(length, 4))
            for level in range(dwt_max_level(length, wavelet) + 1):
                theirs = pywt.wavedec(x, wavelet, mode="periodization", level=level, axis=0)
                ours = wavedec(torch.from_numpy(x), wavelet, level=level)
                assert len(ours) == level + 1
                for mine, reference in zip(ours, theirs):
                    close(mine, reference, torch.float64)
                close(
                    waverec(ours, wavelet), pywt.waverec(theirs, wavelet, mode="periodization", axis=0), torch.float64
                )


def test_max_level_is_pywts():
    for wavelet in WAVELETS:
        for length in (1, 2, 7, 8, 64, 1000):
            assert dwt_max_level(length, wavelet) == pywt.dwt_max_level(length, pywt.Wavelet(wavelet))


def test_level_beyond_the_maximum_warns_as_in_pywt():
    with pytest.warns(UserWarning, match="level=5 is above the 3"):
        wavedec(torch.randn(64, 1), "db4", level=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wavedec(torch.randn(64, 1), "db4", level=3)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    length=st.integers(1, 40),
    wavelet=st.sampled_from(["haar", "db3", "bior2.2", "sym4"]),
)
def test_any_axis(shape, axis, length, wavelet):
    axis = axis % len(shape)
    shape[axis] = length
    x = torch.randn(shape, dtype=torch.float64)
    for mine, reference in zip(dwt(x, wavelet, axis=axis), pywt.dwt(x.numpy(), wavelet, "periodization", axis)):
        close(mine, reference, torch.float64)
    back = idwt(*dwt(x, wavelet, axis=axis - len(shape)), wavelet, axis=axis)
    torch.testing.assert_close(back.narrow(axis, 0, length), x)


def test_gradients():
    x = torch.randn(2, 9, 2, dtype=torch.float64, requires_grad=True)
    for wavelet in ("haar", "db4", "bior2.2"):
        assert torch.autograd.gradcheck(lambda x, w=wavelet: dwt(x, w), x)
        assert torch.autograd.gradcheck(lambda x, w=wavelet: waverec(wavedec(x, w, level=2), w), x)


def test_matrices_are_the_transform():
    x = torch.randn(48, 3, dtype=torch.float64)
    for wavelet in ("haar", "db2", "bior2.2"):
        matrix = analysis_matrix(wavelet, 48, level=3)
        torch.testing.assert_close(matrix @ x, torch.cat(wavedec(x, wavelet, level=3)))
        identity = synthesis_matrix(wavelet, 48, level=3) @ matrix
        torch.testing.assert_close(identity, torch.eye(48, dtype=torch.float64), rtol=0, atol=1e-8)
    # odd lengths expand: there are more coefficients than samples
    tall = analysis_matrix("db2", 13, level=2)
    assert tall.shape == (15, 13) or tall.shape[0] > 13
    wide = synthesis_matrix("db2", 13, level=2)
    torch.testing.assert_close(wide @ tall, torch.eye(13, dtype=torch.float64), rtol=0, atol=1e-8)


def test_a_missing_band_counts_as_zeros():
    cA, cD = dwt(torch.randn(8, 2), "db2")
    torch.testing.assert_close(idwt(cA, None, "db2"), idwt(cA, torch.zeros_like(cD), "db2"))
    torch.testing.assert_close(waverec([cA, None], "db2"), idwt(cA, None, "db2"))
    torch.testing.assert_close(idwt(None, cD, "db2"), idwt(torch.zeros_like(cA), cD, "db2"))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: dwt(torch.randn(8, 1), "dbx"), ValueError, "wavelet='dbx' is not a discrete wavelet"),
        (lambda: dwt(torch.randn(8, 1), "morl"), ValueError, "wavelet='morl'"),
        (lambda: dwt(torch.randn(8, 1), 3), TypeError, "wavelet=3 has type int"),
        (lambda: dwt(torch.randn(8, 1), "haar", mode="mirror"), ValueError, "mode='mirror' is unknown; allowed"),
        (lambda: dwt(torch.randn(8, 1), "haar", axis=2), ValueError, r"axis=2 does not exist .* \(8, 1\)"),
        (lambda: dwt(torch.arange(8)[:, None], "haar"), TypeError, "int64; allowed: floating point"),
        (lambda: dwt(torch.randn(0, 1), "haar"), ValueError, "empty along axis=-2"),
        (lambda: idwt(None, None, "haar"), ValueError, "both None"),
        (lambda: idwt(torch.randn(3, 1), torch.randn(4, 1), "haar"), ValueError, r"\(3, 1\) and cD \(4, 1\)"),
        (lambda: wavedec(torch.randn(8, 1), "haar", level=-1), ValueError, "level=-1 is negative"),
        (lambda: waverec([], "haar"), ValueError, "coeffs is empty"),
        (lambda: waverec([torch.randn(3, 1), torch.randn(5, 1)], "haar"), ValueError, "length 3 does not go with .* 5"),
        (lambda: analysis_matrix("haar", 0, level=1), ValueError, "length=0 is too short"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
