"""pywt is the oracle."""

import functools
import itertools
import warnings

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavecomp.wavelets import (
    FilterTaps,
    analysis_matrix,
    dwt,
    dwt_coeff_len,
    dwt_max_level,
    idwt,
    iswt,
    swt,
    synthesis_matrix,
    wavedec,
    wavelet_packet,
    waverec,
)
from wavecomp.wavelets.extension import MODES

WAVELETS = pywt.wavelist(kind="discrete")


def close(ours, theirs, dtype, largest=1.0):
    assert np.isfinite(theirs).all() and ours.shape == theirs.shape and ours.dtype == dtype
    bound = {torch.float64: 1e-10, torch.float32: 5e-6}[dtype] * max(1.0, largest, np.abs(theirs).max())
    assert (np.abs(ours.double().numpy() - theirs) <= bound).all()  # a NaN fails


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_dwt_and_idwt_have_pywts_numbers_for_every_wavelet_and_length(mode):
    assert len(WAVELETS) > 100 and set(MODES) == set(pywt.Modes.modes)
    random = np.random.default_rng(0)
    shortest = 2 if "reflect" in mode else 1
    for wavelet in WAVELETS:
        taps = FilterTaps.of(wavelet)
        for length in (*range(shortest, 41), 64, 101):
            dtypes = [torch.float64] if length % 7 else [torch.float64, torch.float32]
            x = random.normal(size=(length, 2))
            theirs = pywt.dwt(x, wavelet, mode=mode, axis=0)
            back = pywt.idwt(*theirs, wavelet, mode=mode, axis=0)
            for dtype in dtypes:
                largest = max(np.abs(c).max() for c in theirs)  # smooth extension makes details of huge samples
                for mine, reference in zip(dwt(torch.from_numpy(x).to(dtype), taps, mode=mode, axis=-2), theirs):
                    close(mine, reference, dtype, largest)
                close(idwt(*(torch.from_numpy(c).to(dtype) for c in theirs), taps, mode=mode, axis=-2), back, dtype)


@pytest.mark.parametrize("mode", MODES)
def test_wavedec_and_waverec_have_pywts_numbers_and_give_the_length_back(mode):
    random = np.random.default_rng(0)
    for wavelet in ("haar", "db2", "db4", "sym5", "bior2.2", "coif2"):
        for length in (40, 64, 65, 127):
            x = random.normal(size=(length, 4))
            for level in range(dwt_max_level(length, wavelet) + 1):
                theirs = pywt.wavedec(x, wavelet, mode=mode, level=level, axis=0)
                ours = wavedec(torch.from_numpy(x), wavelet, mode=mode, level=level, axis=-2)
                assert len(ours) == level + 1
                for mine, reference in zip(ours, theirs):
                    close(mine, reference, torch.float64)
                close(
                    waverec(ours, wavelet, mode=mode, axis=-2),
                    pywt.waverec(theirs, wavelet, mode=mode, axis=0),
                    torch.float64,
                )
                back = waverec(ours, wavelet, mode=mode, length=length, axis=-2)
                assert back.shape == (length, 4) and np.abs(back.numpy() - x).max() < 1e-8


def test_the_default_mode_is_pywts():
    x = torch.randn(9, 2, dtype=torch.float64)
    close(dwt(x, "db3", axis=-2)[1], pywt.dwt(x.numpy(), "db3", axis=0)[1], torch.float64)


def test_coefficient_counts_are_pywts():
    for mode in MODES:
        for length in (1, 2, 7, 64):
            for taps in (2, 4, 9):
                assert dwt_coeff_len(length, taps, mode) == pywt.dwt_coeff_len(length, taps, mode)


def test_max_level_is_pywts():
    for wavelet in WAVELETS:
        for length in (1, 2, 7, 8, 64, 1000):
            assert dwt_max_level(length, wavelet) == pywt.dwt_max_level(length, pywt.Wavelet(wavelet))


def test_level_beyond_the_maximum_warns_as_in_pywt():
    with pytest.warns(UserWarning, match="level=5 is above the 3"):
        wavedec(torch.randn(64, 1), "db4", level=5, axis=-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wavedec(torch.randn(64, 1), "db4", level=3, axis=-2)


def test_the_axis_is_the_last_unless_said_as_in_pywt():
    x = np.random.default_rng(0).standard_normal((4, 64))
    signal = torch.from_numpy(x)
    for mine, theirs in (
        (dwt, pywt.dwt),
        (wavedec, pywt.wavedec),
        (functools.partial(swt, level=2), functools.partial(pywt.swt, level=2, trim_approx=True)),
    ):
        for got, expected in zip(mine(signal, "db2"), theirs(x, "db2"), strict=True):
            close(got, expected, torch.float64)
    for back in (
        idwt(*dwt(signal, "db2"), "db2"),
        waverec(wavedec(signal, "db2"), "db2"),
        iswt(swt(signal, "db2", level=2), "db2"),
    ):
        torch.testing.assert_close(back, signal, rtol=0, atol=1e-9)
    tree = wavelet_packet(signal[0], "db2", level=2)
    close(tree["ad"], pywt.WaveletPacket(x[0], "db2", maxlevel=2)["ad"].data, torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    length=st.integers(2, 40),
    wavelet=st.sampled_from(["haar", "db3", "bior2.2", "sym4"]),
    mode=st.sampled_from(MODES),
)
def test_any_axis(shape, axis, length, wavelet, mode):
    axis = axis % len(shape)
    shape[axis] = length
    x = torch.randn(shape, dtype=torch.float64)
    ours = dwt(x, wavelet, mode=mode, axis=axis)
    for mine, reference in zip(ours, pywt.dwt(x.numpy(), wavelet, mode, axis)):
        close(mine, reference, torch.float64)
    back = idwt(*ours, wavelet, mode=mode, axis=axis - len(shape), length=length)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode):
    x = torch.randn(2, 9, 2, dtype=torch.float64, requires_grad=True)
    for wavelet, level in (("haar", 2), ("db4", 1), ("bior2.2", 1)):
        assert torch.autograd.gradcheck(lambda x, w=wavelet: dwt(x, w, mode=mode, axis=-2), x)

        def back(x, w=wavelet, n=level):
            return waverec(wavedec(x.square(), w, mode=mode, level=n, axis=-2), w, mode=mode, axis=-2)

        assert torch.autograd.gradgradcheck(back, x)


@pytest.mark.parametrize("mode", MODES)
def test_transforms_compile_without_a_graph_break(mode):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: dwt(x, "db3", mode=mode, axis=-2), fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 13, 3)
    torch.testing.assert_close(compiled(x), dwt(x, "db3", mode=mode, axis=-2))


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_close(dtype, bound):
    x = torch.randn(2, 64, 3, dtype=torch.float64)
    for mode in MODES:
        exact = wavedec(x, "db2", mode=mode, level=2, axis=-2)
        for mine, reference in zip(wavedec(x.to(dtype), "db2", mode=mode, level=2, axis=-2), exact):
            assert mine.dtype == dtype
            assert (mine.double() - reference).abs().max() <= bound * reference.abs().max()


@pytest.mark.parametrize("mode", MODES)
def test_matrices_are_the_transform(mode):
    x = torch.randn(48, 3, dtype=torch.float64)
    for wavelet in ("haar", "db2", "bior2.2"):
        matrix = analysis_matrix(wavelet, 48, level=2, mode=mode)
        torch.testing.assert_close(matrix @ x, torch.cat(wavedec(x, wavelet, level=2, mode=mode, axis=-2)))
        assert matrix.shape[0] >= 48 and (matrix.shape[0] == 48 or mode != "periodization")
        for length in (48, 41):
            tall = analysis_matrix(wavelet, length, level=2, mode=mode)
            wide = synthesis_matrix(wavelet, length, level=2, mode=mode)
            assert wide.shape == tall.shape[::-1]
            torch.testing.assert_close(wide @ tall, torch.eye(length, dtype=torch.float64), rtol=0, atol=1e-8)


def test_a_missing_band_counts_as_zeros():
    cA, cD = dwt(torch.randn(8, 2), "db2", axis=-2)
    torch.testing.assert_close(idwt(cA, None, "db2", axis=-2), idwt(cA, torch.zeros_like(cD), "db2", axis=-2))
    torch.testing.assert_close(waverec([cA, None], "db2", axis=-2), idwt(cA, None, "db2", axis=-2))
    torch.testing.assert_close(idwt(None, cD, "db2", axis=-2), idwt(torch.zeros_like(cA), cD, "db2", axis=-2))


@pytest.mark.parametrize("mode", ["symmetric", "periodization"])
@pytest.mark.parametrize("length", [64, 65, 67])
def test_missing_bands_count_as_zeros_at_every_level(mode, length):
    whole = wavedec(torch.randn(length, 2), "db2", level=3, mode=mode, axis=-2)
    for missing in itertools.product([False, True], repeat=4):
        kept = [None if gone else band for band, gone in zip(whole, missing)]
        if all(missing):
            with pytest.raises(ValueError, match="coeffs holds None only"):
                waverec(kept, "db2", mode=mode, length=length, axis=-2)
            continue
        zeros = [torch.zeros_like(band) if gone else band for band, gone in zip(whole, missing)]
        found = waverec(kept, "db2", mode=mode, length=length, axis=-2)
        torch.testing.assert_close(found, waverec(zeros, "db2", mode=mode, length=length, axis=-2))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: dwt(torch.randn(8, 1), "dbx", axis=-2), ValueError, "wavelet='dbx' is not a discrete wavelet"),
        (lambda: dwt(torch.randn(8, 1), "morl", axis=-2), ValueError, "wavelet='morl'"),
        (lambda: dwt(torch.randn(8, 1), 3, axis=-2), TypeError, "wavelet=3 has type int"),
        (
            lambda: dwt(torch.randn(8, 1), "haar", mode="mirror", axis=-2),
            ValueError,
            "mode='mirror' is unknown; allowed",
        ),
        (lambda: dwt(torch.randn(8, 1), "haar", axis=2), ValueError, r"axis=2 does not exist .* \(8, 1\)"),
        (lambda: dwt(torch.arange(8)[:, None], "haar", axis=-2), TypeError, "int64; allowed: floating point"),
        (lambda: wavedec([1.0, 2.0], "haar"), TypeError, "data is of list; allowed: torch.Tensor"),
        (lambda: dwt([1.0, 2.0], "haar", axis=-2), TypeError, "data is of list; allowed: torch.Tensor"),
        (lambda: dwt(torch.randn(0, 1), "haar", axis=-2), ValueError, "empty along axis=-2"),
        (
            lambda: dwt(torch.randn(1, 1), "haar", mode="reflect", axis=-2),
            ValueError,
            "length 1 has nothing to reflect",
        ),
        (
            lambda: idwt(*dwt(torch.randn(8, 1), "haar", axis=-2), "haar", length=6, axis=-2),
            ValueError,
            "length=6 .* allowed: 7 or 8",
        ),
        (
            lambda: idwt(torch.randn(1, 1), None, "db4", axis=-2),
            ValueError,
            "1 coefficients are too few for a filter of 8 taps",
        ),
        (lambda: dwt_coeff_len(0, 2, "zero"), ValueError, "data_len=0"),
        (
            lambda: waverec([torch.randn(4, 1)], "haar", length=3, axis=-2),
            ValueError,
            "length=3 does not go with .* length 4",
        ),
        (lambda: idwt(None, None, "haar", axis=-2), ValueError, "both None"),
        (lambda: idwt(torch.randn(3, 1), torch.randn(4, 1), "haar", axis=-2), ValueError, r"\(3, 1\) and cD \(4, 1\)"),
        (lambda: wavedec(torch.randn(8, 1), "haar", level=-1, axis=-2), ValueError, "level=-1 is negative"),
        (lambda: waverec([], "haar", axis=-2), ValueError, "coeffs is empty"),
        (
            lambda: waverec([torch.randn(3, 1), torch.randn(5, 1)], "haar", axis=-2),
            ValueError,
            "length 3 does not go with .* 5",
        ),
        (lambda: analysis_matrix("haar", 0, level=1), ValueError, "length=0 is too short"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_zeros_beyond_the_ends_are_zeros_whatever_stands_there():
    x = torch.tensor([1.0, 2.0, 3.0, torch.inf])
    for mine, theirs in zip(dwt(x, "db2", mode="zero"), pywt.dwt(x.numpy(), "db2", mode="zero")):
        assert not mine.isnan().any() and mine.isinf().tolist() == np.isinf(theirs).tolist()


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_half_precision_is_rounded_once(dtype, bound):
    x = torch.randn(1000, dtype=torch.float64).to(dtype)
    for mine, exact in zip(dwt(x, "db20"), dwt(x.double(), "db20")):
        assert mine.dtype == dtype and ((mine.double() - exact).abs() <= bound * exact.abs() + 1e-4).all()
