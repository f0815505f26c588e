"""mode="boundary": filters that end where the signal ends."""

import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavecomp.wavelets import FilterTaps, analysis_matrix, synthesis_matrix

ORTHOGONAL = [
    name for family in ("haar", "db", "sym", "coif") for name in pywt.wavelist(family) if len(FilterTaps.of(name)) <= 40
]


def boundary(wavelet, length, level=1, **kwargs):
    return analysis_matrix(wavelet, length, level=level, mode="boundary", **kwargs)


def orthogonal(matrix):
    unit = torch.eye(len(matrix), dtype=matrix.dtype)
    return matrix.shape == unit.shape and float((matrix @ matrix.T - unit).abs().max()) < 1e-10


@pytest.mark.parametrize("wavelet", ORTHOGONAL)
def test_every_orthogonal_wavelet_gives_an_orthogonal_level_of_its_own_filters(wavelet):
    taps = len(FilterTaps.of(wavelet))
    for length in (taps, taps + 2, 2 * taps + 6):
        matrix = boundary(wavelet, length)
        assert orthogonal(matrix)
        edge = taps // 4
        if length > taps + 2 * edge:  # else a filter of the periodic form wraps at both ends
            wrapped = analysis_matrix(wavelet, length, level=1)
            for mine, theirs in zip(matrix.chunk(2), wrapped.chunk(2)):
                torch.testing.assert_close(mine[edge : len(mine) - edge], theirs[edge : len(mine) - edge])
                assert len(mine) - 2 * edge > 0
        ends = torch.cat([matrix[:edge], matrix[length // 2 : length // 2 + edge]])
        assert not ends[:, taps:].abs().sum()  # a short support


def test_there_are_wavelets():
    assert len(ORTHOGONAL) > 45


@settings(max_examples=60, deadline=None)
@given(wavelet=st.sampled_from(["haar", "db2", "db3", "db4", "sym4", "coif1"]), data=st.data())
def test_levels_are_square_orthogonal_and_halve_for_any_length(wavelet, data):
    taps = len(FilterTaps.of(wavelet))
    length = data.draw(st.integers(taps, 70))
    shortest, most = length, 0
    while shortest >= taps:
        shortest, most = (shortest + 1) // 2, most + 1
    level = data.draw(st.integers(0, min(most, 4)))
    matrix = boundary(wavelet, length, level)
    assert orthogonal(matrix)
    assert torch.equal(synthesis_matrix(wavelet, length, level=level, mode="boundary"), matrix.T)
    if level:
        # the last level alone, on the approximation of those before
        before = boundary(wavelet, length, level - 1)
        count = length
        for _ in range(level - 1):
            count = (count + 1) // 2
        torch.testing.assert_close(before[count:], matrix[count:])
        details = matrix[(count + 1) // 2 : count]
        torch.testing.assert_close(details @ before[count:].T, torch.zeros(count // 2, length - count).double())


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "sym5", "coif2"])
def test_an_odd_length_passes_its_last_sample_into_the_approximation(wavelet):
    odd, even = boundary(wavelet, 41), boundary(wavelet, 40)
    last = torch.nn.functional.one_hot(torch.tensor(40), 41).double()
    torch.testing.assert_close(odd[20], last)
    torch.testing.assert_close(torch.cat([odd[:20], odd[21:]])[:, :40], even)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db3", "db6", "sym4", "sym8", "coif2", "db20"])
def test_a_constant_leaves_nothing_in_the_finest_details(wavelet):
    for length in (80, 81):
        response = boundary(wavelet, length).sum(1)
        assert response[(length + 1) // 2 :].abs().max() < 1e-9
    zeros = analysis_matrix(wavelet, 80, level=1, mode="zero").sum(1)
    assert wavelet == "haar" or zeros[len(zeros) // 2 :].abs().max() > 1e-2  # filters that are merely cut off leak


def test_a_constant_leaves_little_in_coarser_details():
    for wavelet, bound in (("db2", 1e-9), ("coif1", 0.02), ("sym4", 0.03), ("sym8", 0.005)):
        second = boundary(wavelet, 80, 2).sum(1)[20:40]
        assert second.abs().max() < bound


def test_haar_needs_no_edges():
    torch.testing.assert_close(boundary("haar", 32, 5), analysis_matrix("haar", 32, level=5))


def test_low_rows_are_the_smooth_ones():
    rough = boundary("sym4", 64).diff(dim=1).square().sum(1)
    assert rough[:32].max() < rough[32:].min()


@pytest.mark.parametrize("wavelet", ["sym4", "sym6", "sym8", "coif2"])
def test_rows_run_from_one_end_to_the_other(wavelet):
    power = boundary(wavelet, 64).square()
    for rows in power.chunk(2):
        assert (rows @ torch.arange(64.0, dtype=power.dtype)).diff().min() > 0


def test_taps_and_wavelets_may_be_given_and_results_are_cast():
    exact = boundary("db2", 12, 2)
    for wavelet in (FilterTaps.of("db2"), pywt.Wavelet("db2")):
        torch.testing.assert_close(boundary(wavelet, 12, 2), exact)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(boundary("db2", 12, 2, dtype=dtype), exact.to(dtype))
        assert torch.equal(synthesis_matrix("db2", 12, level=2, mode="boundary", dtype=dtype), exact.to(dtype).T)
    assert boundary("db2", 12, device="meta").device.type == "meta"


def haar_as(dec_lo, dec_hi):
    """Haar's filters with zeros beside them."""
    low, high = (tuple(tap / 2**0.5 for tap in taps) for taps in (dec_lo, dec_hi))
    return FilterTaps(low, high, low[::-1], high[::-1])


def test_filters_may_be_padded_with_zeros():
    for mirrored in (haar_as((0, 0, 1, 1), (1, -1, 0, 0)), haar_as((1, 1, 0, 0), (0, 0, -1, 1))):
        assert orthogonal(boundary(mirrored, 18, 2))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: boundary("bior2.2", 16), "wavelet='bior2.2' is not orthogonal to ten digits.* allowed"),
        (lambda: boundary("dmey", 64), "wavelet='dmey' is not orthogonal"),
        (lambda: boundary(haar_as((1, 1, 0, 0), (0, 1, -1, 0)), 16), "is not the mirror image"),
        (lambda: boundary(haar_as((1, 1, 1, 1), (1, -1, 1, -1)), 16), "is not orthogonal"),
        (lambda: boundary("db4", 7), "length=7 leaves 7 samples for level 1 .* at least the filter's 8"),
        (lambda: boundary("db4", 28, 3), "length=28 leaves 7 samples for level 3"),
        (lambda: boundary("haar", 1), "length=1 leaves 1 samples for level 1 .* filter's 2"),
        (lambda: boundary("haar", 0), "length=0 is too short"),
        (lambda: boundary("haar", 8, -1), "level=-1 is negative"),
        (lambda: boundary("dbx", 8), "wavelet='dbx'"),
        (lambda: analysis_matrix("haar", 8, level=1, mode="edge"), "mode='edge' is unknown; .*'boundary'"),
        (lambda: synthesis_matrix("haar", 8, level=1, mode="edge"), "mode='edge' is unknown; .*'boundary'"),
        (lambda: synthesis_matrix("db4", 7, level=1, mode="boundary"), "length=7 leaves 7 samples"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
