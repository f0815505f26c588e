"""pywt is the oracle; the causal form is the same transform, later."""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavecomp.wavelets import FilterTaps, extension, stationary
from wavecomp.wavelets.stationary import causal_swt, iswt, swt

TRANSFORMS = {"swt": swt, "causal_swt": causal_swt}


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert (np.abs(ours.numpy() - theirs) <= 1e-10 * max(1.0, np.abs(theirs).max())).all()  # a NaN fails


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "db12", "sym5", "coif2", "bior2.2", "bior4.4", "rbio1.3"])
def test_both_ways_have_pywts_numbers(wavelet):
    random = np.random.default_rng(0)
    for length, level in ((1, 0), (2, 1), (6, 1), (8, 3), (24, 3), (40, 2), (64, 4)):
        x = random.normal(size=(2, length, 3))
        ours = swt(torch.from_numpy(x), wavelet, level=level, axis=-2)
        assert len(ours) == level + 1
        if level:
            theirs = pywt.swt(x, wavelet, level=level, axis=1, trim_approx=True)
            for mine, reference in zip(ours, theirs, strict=True):
                close(mine, reference)
            # also for bands that no signal has
            bands = [random.normal(size=x.shape) for _ in range(level + 1)]
            close(iswt([torch.from_numpy(band) for band in bands], wavelet, axis=-2), pywt.iswt(bands, wavelet, axis=1))
        assert np.abs(iswt(ours, wavelet, axis=-2).numpy() - x).max() < 1e-8


@settings(max_examples=50, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    length=st.integers(1, 5),
    level=st.integers(1, 3),
    wavelet=st.sampled_from(["haar", "db3", "bior2.2"]),
    data=st.data(),
)
def test_any_axis(shape, axis, length, level, wavelet, data):
    axis = axis % len(shape)
    shape[axis] = length * 2**level
    signed = axis - data.draw(st.sampled_from([0, len(shape)]))
    x = torch.randn(shape, dtype=torch.float64)
    ours = swt(x, wavelet, level=level, axis=signed)
    theirs = pywt.swt(x.numpy(), wavelet, level=level, axis=axis, trim_approx=True)
    for mine, reference in zip(ours, theirs, strict=True):
        close(mine, reference)
    torch.testing.assert_close(iswt(ours, wavelet, axis=signed), x, rtol=0, atol=1e-8)
    moved = causal_swt(x.movedim(axis, 0), wavelet, level=level, axis=0)
    for mine, reference in zip(causal_swt(x, wavelet, level=level, axis=signed), moved, strict=True):
        torch.testing.assert_close(mine, reference.movedim(0, axis))


def causal_by_hand(x, taps, level):
    """The definition, sample by sample, for a vector."""
    at = lambda signal, t: signal[max(t, 0)]  # noqa: E731
    details = []
    for step in range(level):
        low, high = (
            torch.stack([sum(f * at(x, t - j * 2**step) for j, f in enumerate(dec)) for t in range(len(x))])
            for dec in (taps.dec_lo, taps.dec_hi)
        )
        x, details = low, [high, *details]
    return [x, *details]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 20), level=st.integers(0, 4), wavelet=st.sampled_from(["haar", "db2", "sym4", "bior2.2"]))
def test_the_causal_transform_is_its_definition(length, level, wavelet):
    x = torch.randn(length, dtype=torch.float64)
    ours = causal_swt(x, wavelet, level=level, axis=0)
    for mine, reference in zip(ours, causal_by_hand(x, FilterTaps.of(wavelet), level), strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "bior2.2"])
def test_the_causal_transform_is_the_stationary_one_later(wavelet):
    half, level, length = len(FilterTaps.of(wavelet)) // 2, 3, 256
    x = torch.randn(2, length, 2, dtype=torch.float64)
    pairs = zip(causal_swt(x, wavelet, level=level, axis=-2), swt(x, wavelet, level=level, axis=-2), strict=True)
    for band, (later, centred) in zip((level, level, 2, 1), pairs):
        delay = (2**band - 1) * half
        inside = 2 * delay  # from there on no filter has met the start
        torch.testing.assert_close(later[:, inside:], centred[:, inside - delay : length - delay])


@pytest.mark.parametrize("wavelet", ["haar", "db3", "bior2.2"])
def test_no_causal_coefficient_reads_a_later_sample(wavelet):
    length = 19
    x = torch.randn(length, dtype=torch.float64)
    jacobians = torch.autograd.functional.jacobian(lambda x: tuple(causal_swt(x, wavelet, level=3, axis=0)), x)
    for jacobian in jacobians:
        assert torch.equal(jacobian, jacobian.tril())  # exactly nothing
        assert jacobian[-1].abs().max() > 0.1
        # the last sample is read at once, but where a filter starts with zeros
        assert wavelet == "bior2.2" or jacobian.diagonal()[1:].abs().min() > 1e-6


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_constant_leaves_nothing_in_the_details(transform):
    x = torch.full((1, 32, 2), 3.0, dtype=torch.float64)
    approximation, *details = transform(x, "db4", level=3, axis=-2)
    torch.testing.assert_close(approximation, x * 2**1.5)
    assert all(detail.abs().max() < 1e-10 for detail in details)


def test_levels_beyond_a_causal_signals_length_cost_no_memory(monkeypatch):
    reach = []

    def extend(samples, before, after, **kwargs):
        reach.append(before + after)
        return extension.extend(samples, before, after, **kwargs)

    monkeypatch.setattr(stationary, "extend", extend)
    x = torch.randn(5, dtype=torch.float64)
    ours = causal_swt(x, "db2", level=9, axis=0)
    for mine, reference in zip(ours, causal_by_hand(x, FilterTaps.of("db2"), 9), strict=True):
        torch.testing.assert_close(mine, reference)
    assert len(reach) == 9 and max(reach) == 3 * 5


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_gradients(transform):
    x = torch.randn(2, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(transform(x, "db2", level=2, axis=-2)), x)
    assert torch.autograd.gradgradcheck(lambda x: transform(x**2, "db2", level=1, axis=-2)[1], x)
    assert torch.autograd.gradcheck(
        lambda x: iswt([c**2 for c in transform(x, "db2", level=2, axis=-2)], "db2", axis=-2), x
    )


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_close(transform, dtype, bound):
    x = torch.randn(2, 64, 3, dtype=torch.float64)
    exact, rough = transform(x, "db2", level=3, axis=-2), transform(x.to(dtype), "db2", level=3, axis=-2)
    for mine, reference in zip(rough, exact, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - reference).abs().max() <= bound * reference.abs().max()
    back, reference = iswt(rough, "db2", axis=-2), iswt(exact, "db2", axis=-2)
    assert back.dtype == dtype and (back.double() - reference).abs().max() <= bound * reference.abs().max()


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_compile_without_a_graph_break(transform):
    torch._dynamo.reset()
    x = torch.randn(2, 16, 3)
    there_and_back = lambda x: iswt(transform(x, "db3", level=2, axis=-2), "db3", axis=-2)  # noqa: E731
    torch.testing.assert_close(torch.compile(there_and_back, fullgraph=True, backend="aot_eager")(x), there_and_back(x))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"level": -1}, ValueError, "level=-1 is negative; allowed: 0 and above"),
        ({"wavelet": "dbx"}, ValueError, "wavelet='dbx' is not a discrete wavelet"),
        ({"axis": 2}, ValueError, r"axis=2 does not exist .* \(8, 1\)"),
        ({"data": torch.arange(8)[:, None]}, TypeError, "int64; allowed: floating point"),
        ({"data": torch.randn(1, 0)}, ValueError, "empty along axis=-1"),
    ],
)
def test_bad_input_is_named(transform, change, error, message):
    with pytest.raises(error, match=message):
        transform(**{"data": torch.randn(8, 1), "wavelet": "haar", "level": 1} | change)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: swt(torch.randn(12, 1), "haar", level=3, axis=-2), "swt: length 12 with level=3; .* divisible by 8"),
        (lambda: iswt([torch.randn(6, 1)] * 3, "haar", axis=-2), "iswt: length 6 with level=2; .* divisible by 4"),
        (
            lambda: iswt([torch.randn(4, 1), torch.randn(2, 1)], "haar", axis=-2),
            r"shapes \(4, 1\) and \(2, 1\); they must",
        ),
        (lambda: iswt([], "haar", axis=-2), "coeffs is empty"),
    ],
)
def test_lengths_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
