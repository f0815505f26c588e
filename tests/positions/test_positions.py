import math

import pytest
import torch

import wavecomp as wc
from wavecomp.positions import rotary_angles, rotate


def test_rotation_keeps_length_and_sees_only_differences():
    q, k = torch.randn(1, 2, 1, 8, dtype=torch.float64), torch.randn(1, 2, 1, 8, dtype=torch.float64)

    def score(a, b):
        at = [rotary_angles(torch.tensor([p]), 8) for p in (a, b)]
        return (rotate(q, at[0]) * rotate(k, at[1])).sum(-1)

    torch.testing.assert_close(score(3.5, 1.0), score(103.5, 101.0), rtol=0, atol=1e-5)
    assert (score(3.5, 1.0) - score(4.5, 1.0)).abs().max() > 1e-3
    torch.testing.assert_close(rotate(q, rotary_angles(torch.tensor([7.0]), 8)).norm(), q.norm(), rtol=0, atol=1e-6)


def test_angles_keep_their_phase_at_a_million_tokens():
    position = 5_000_001.5
    cos = rotary_angles(torch.tensor([position]), 4).cos.flatten()
    assert abs(float(cos[0]) - math.cos(position)) < 1e-6


def test_odd_heads_are_refused():
    with pytest.raises(ValueError, match="turned=5 is odd"):
        rotary_angles(torch.arange(3), 5)


def codes(position, support, frequency=0.25, chunk=0):
    one = wc.Codes.from_tokens(torch.zeros(1, 1, 8))
    return one.replace(
        position=torch.full((1, 1), float(position)),
        support=torch.full((1, 1), float(support)),
        frequency=torch.full((1, 1), float(frequency)),
        chunk=torch.full((1, 1), chunk),
    )


def test_sinusoids_are_means_over_the_support():
    encoding = wc.PositionFrequencyEncoding(8, octaves=6)
    features = encoding.features(codes(position=20, support=8))[0, 0]
    place = features[12:24]
    fine = torch.linspace(16, 24, 20001, dtype=torch.float64)
    for k in range(6):
        angle = 2 * math.pi * fine / 2 ** (k + 1)
        assert abs(float(place[k]) - float(angle.cos().mean())) < 1e-4
        assert abs(float(place[6 + k]) - float(angle.sin().mean())) < 1e-4


def test_fast_sinusoids_fade_for_coarse_codes_and_slow_ones_stay():
    encoding = wc.PositionFrequencyEncoding(8, octaves=10)

    def size(support):
        place = encoding.features(codes(position=0, support=support))[0, 0, 20:40]
        return (place[:10].square() + place[10:].square()).sqrt()

    assert (size(1) > 0.6).all()
    assert (size(16)[:3] < 1e-6).all() and size(16)[-1] > 0.99


def test_gain_only_falls_with_frequency_whatever_is_learned():
    encoding = wc.PositionFrequencyEncoding(8)
    frequency = torch.logspace(-5, -0.31, 50)
    for slope in (-20.0, -4.0, 0.0, 3.0):
        with torch.no_grad():
            encoding.slope.fill_(slope)
        gain = encoding.gain(frequency)
        assert (gain.diff() <= 0).all() and (gain <= 1).all() and (gain >= 0).all()


def test_chunk_place_and_frequency_all_change_the_code():
    encoding = wc.PositionFrequencyEncoding(8)
    base = encoding(codes(5, 2)).values
    for other in (codes(6, 2), codes(5, 4), codes(5, 2, frequency=0.1), codes(5, 2, chunk=3)):
        assert (encoding(other).values - base).abs().max() > 1e-4


def test_empty_slots_stay_zero():
    some = wc.Codes.from_tokens(torch.randn(1, 4, 8), torch.tensor([2]))
    assert not wc.PositionFrequencyEncoding(8)(some).values[:, 2:].any()


@pytest.mark.parametrize("arguments", [{"dim": 0}, {"dim": 4, "octaves": 0}])
def test_bad_input_is_named(arguments):
    with pytest.raises(ValueError, match="allowed: 1 and above"):
        wc.PositionFrequencyEncoding(**arguments)
