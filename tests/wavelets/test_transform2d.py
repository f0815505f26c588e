"""pywt is the oracle."""

import itertools

import numpy as np
import pytest
import pywt
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

import wavecomp as wc
from wavecomp.wavelets.extension import MODES
from wavecomp.wavelets.transform2d import wavedec2, waverec2


def flat(coeffs):
    return [coeffs[0], *(band for bands in coeffs[1:] for band in bands)]


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert (np.abs(ours.numpy() - theirs) <= 1e-10 * max(1.0, np.abs(theirs).max())).all()  # a NaN fails


@pytest.mark.parametrize("mode", MODES)
def test_both_ways_have_pywts_numbers(mode):
    random = np.random.default_rng(0)
    for wavelet in ("haar", "db2", "sym5", "bior2.2"):
        for length, dim in ((40, 24), (33, 46), (64, 21)):
            x = random.normal(size=(2, length, dim))
            for level in range(pywt.dwtn_max_level((length, dim), wavelet) + 1):
                theirs = pywt.wavedec2(x, wavelet, mode=mode, level=level)
                ours = wavedec2(torch.from_numpy(x), wavelet, mode=mode, level=level)
                assert len(ours) == len(theirs) == level + 1
                for mine, reference in zip(flat(ours), flat(theirs), strict=True):
                    close(mine, reference)
                close(waverec2(ours, wavelet, mode=mode), pywt.waverec2(theirs, wavelet, mode=mode))
                back = waverec2(ours, wavelet, mode=mode, shape=(length, dim))
                assert back.shape == x.shape and np.abs(back.numpy() - x).max() < 1e-8


def test_the_default_mode_and_level_are_pywts():
    x = torch.randn(70, 33, dtype=torch.float64)
    theirs = pywt.wavedec2(x.numpy(), "db2")
    assert len(theirs) == 4
    for mine, reference in zip(flat(wavedec2(x, "db2")), flat(theirs), strict=True):
        close(mine, reference)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.lists(st.integers(3, 13), min_size=2, max_size=4),  # two levels need two samples each to reflect
    wavelet=st.sampled_from(["haar", "db2", "bior2.2"]),
    mode=st.sampled_from(MODES),
    level=st.integers(1, 2),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore:.*without boundary effects", "ignore:Level value")
def test_any_two_axes(shape, wavelet, mode, level, data):
    axes = data.draw(st.permutations(range(len(shape))))[:2]
    signed = tuple(axis - data.draw(st.sampled_from([0, len(shape)])) for axis in axes)
    x = torch.randn(shape, dtype=torch.float64)
    ours = wavedec2(x, wavelet, mode=mode, level=level, axes=signed)
    theirs = pywt.wavedec2(x.numpy(), wavelet, mode=mode, level=level, axes=tuple(axes))
    for mine, reference in zip(flat(ours), flat(theirs), strict=True):
        close(mine, reference)
    back = waverec2(ours, wavelet, mode=mode, axes=signed, shape=tuple(shape[axis] for axis in axes))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-7)


def test_level_beyond_the_shorter_axis_warns():
    with pytest.warns(UserWarning, match="level=3 is above the 2"):
        wavedec2(torch.randn(64, 4), "haar", level=3)


def test_a_missing_band_counts_as_zeros():
    cA, bands, (cH, cV, cD) = wavedec2(torch.randn(2, 24, 12), "db2", level=2, mode="periodization")
    none = torch.zeros_like(cH)
    for kept in ((cH, None, None), (None, cV, None), (None, None, cD), (None, None, None)):
        filled = tuple(none if band is None else band for band in kept)
        torch.testing.assert_close(
            waverec2([cA, bands, kept], "db2", mode="periodization"),
            waverec2([cA, bands, filled], "db2", mode="periodization"),
        )
    torch.testing.assert_close(
        waverec2([None, (cH, cV, cD)], "db2", mode="periodization"),
        waverec2([none, (cH, cV, cD)], "db2", mode="periodization"),
    )


@pytest.mark.parametrize("missing", itertools.product([False, True], repeat=3))
def test_missing_levels_count_as_zeros(missing):
    cA, *details = wavedec2(torch.randn(33, 23), "db2", level=2)
    if all(missing):
        return
    none = torch.zeros_like
    kept, zeros = ([None], [none(cA)]) if missing[0] else ([cA], [cA])
    for triple, gone in zip(details, missing[1:]):
        kept.append((None, None, None) if gone else triple)
        zeros.append(tuple(map(none, triple)) if gone else triple)
    expected = waverec2(zeros, "db2", shape=(33, 23))
    torch.testing.assert_close(waverec2(kept, "db2", shape=(33, 23)), expected)


@pytest.mark.filterwarnings("ignore:.*without boundary effects")
@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode):
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    there = lambda x: tuple(flat(wavedec2(x, "db2", mode=mode, level=1)))  # noqa: E731
    back = lambda x: waverec2(wavedec2(x**2, "haar", mode=mode, level=2), "haar", mode=mode, shape=(5, 6))  # noqa: E731
    assert torch.autograd.gradcheck(there, x)
    assert torch.autograd.gradcheck(back, x)


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_close(dtype, bound):
    x = torch.randn(2, 32, 24, dtype=torch.float64)
    for mine, reference in zip(flat(wavedec2(x.to(dtype), "db2", level=2)), flat(wavedec2(x, "db2", level=2))):
        assert mine.dtype == dtype
        assert (mine.double() - reference).abs().max() <= bound * reference.abs().max()


def test_there_and_back_compiles_without_a_graph_break():
    torch._dynamo.reset()
    x = torch.randn(2, 13, 10)

    def halved(x):
        cA, *details = wavedec2(x, "db2", level=1)
        return waverec2([cA / 2, *details], "db2", shape=(13, 10))

    torch.testing.assert_close(torch.compile(halved, fullgraph=True, backend="aot_eager")(x), halved(x))


def coeffs(rows=4, dim=3, bands=3):
    return [torch.randn(4, 3), tuple(torch.randn(rows, dim) for _ in range(bands))]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: wavedec2(torch.randn(8, 8), "haar", axes=(1, -1)), ValueError, r"axes=\(1, -1\) names one axis"),
        (lambda: wavedec2(torch.randn(8, 8), "haar", axes=(0, 2)), ValueError, r"axis=2 does not exist .* \(8, 8\)"),
        (lambda: wavedec2(torch.randn(8, 8), "haar", axes=(0,)), ValueError, r"axes=\(0,\) does not name two axes"),
        (lambda: wavedec2(torch.randn(8), "haar"), ValueError, "axis=-2 does not exist"),
        (lambda: wavedec2(torch.randn(8, 8), "haar", level=-1), ValueError, "level=-1 is negative"),
        (lambda: wavedec2(torch.ones(8, 8).int(), "haar"), TypeError, "int32; allowed: floating point"),
        (lambda: wavedec2(torch.randn(8, 8), "dbx"), ValueError, "wavelet='dbx'"),
        (lambda: wavedec2(torch.randn(8, 8), "haar", mode="mirror"), ValueError, "mode='mirror' is unknown"),
        (lambda: waverec2([], "haar"), ValueError, "coeffs is empty"),
        (lambda: waverec2([None], "haar"), ValueError, "coeffs holds None only"),
        (lambda: waverec2([None, (None, None, None)], "haar"), ValueError, "coeffs holds None only"),
        (lambda: waverec2(coeffs(bands=2), "haar"), ValueError, r"coeffs\[1\] is not a triple \(cH, cV, cD\)"),
        (lambda: waverec2([torch.randn(4, 3), torch.randn(3, 4, 3)], "haar"), ValueError, r"coeffs\[1\] is not a trip"),
        (lambda: waverec2(coeffs(rows=2), "haar"), ValueError, r"\(4, 3\) does not go with details of shape \(2, 3\)"),
        (lambda: waverec2(coeffs(dim=4), "haar"), ValueError, r"\(4, 3\) does not go with details of shape \(4, 4\)"),
        (
            lambda: waverec2([None, (torch.randn(4, 3), torch.randn(3, 4), None)], "haar"),
            ValueError,
            r"shapes \[\(4, 3\), \(3, 4\)\]; they must agree",
        ),
        (lambda: waverec2(coeffs(), "haar", shape=(9, 6)), ValueError, "length=9 .* allowed: 7 or 8"),
        (lambda: waverec2(coeffs(), "haar", shape=(8, 4)), ValueError, "length=4 .* allowed: 5 or 6"),
        (lambda: waverec2(coeffs(), "haar", shape=(8,)), ValueError, r"shape=\(8,\) needs two lengths"),
        (lambda: waverec2(coeffs()[:1], "haar", shape=(4, 4)), ValueError, r"shape=\(4, 4\) does not go with"),
        (lambda: waverec2(coeffs(), "haar", axes=(0, 0)), ValueError, r"axes=\(0, 0\) names one axis"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bank", [lambda: wc.OrthogonalFilterBank("db4"), lambda: wc.LiftingFilterBank("bior2.2")])
def test_a_constant_is_in_the_approximation_alone_along_both(bank):
    transform = zoo.perturb(wc.DWT2d("haar", level=3, channel_bank=bank()), std=0.3)
    bands = transform(torch.ones(1, 1, 16, 16))
    energy = dict(zip(bands.layout.names, bands.energy()[0, 0].tolist()))
    loud = energy.pop("cA3")
    assert loud > 100 and max(energy.values()) < 1e-6 * loud
    torch.testing.assert_close(transform.inverse(bands), torch.ones(1, 1, 16, 16))


def test_bands_of_another_transform_are_refused():
    deep = wc.DWT2d("haar", level=2)(torch.randn(1, 2, 16, 4))
    message = r"DWT2d: bands are cA2, cV2, cHD2, cV1, cHD1; allowed: cA1, cV1, cHD1"
    with pytest.raises(ValueError, match=message):
        wc.DWT2d("haar", level=1).inverse(deep)


@pytest.mark.parametrize("level", [0, None])
def test_a_mode_that_is_misspelt_is_named_where_no_level_is_left(level):
    x = torch.randn(5, 2)
    for call in (
        lambda: wc.wavelets.wavedec(x, "db4", mode="symetric", level=level, axis=-2),
        lambda: wc.wavelets.waverec([x], "db4", mode="symetric", axis=-2),
        lambda: wavedec2(x, "db4", mode="symetric", level=level),
        lambda: waverec2([x], "db4", mode="symetric"),
    ):
        with pytest.raises(ValueError, match="mode='symetric'"):
            call()
