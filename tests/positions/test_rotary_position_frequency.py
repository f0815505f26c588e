import math

import pytest
import torch
import zoo

import wavecomp as wc
from wavecomp.positions import RotaryPositionFrequency


def one_code(values, *, position=5.0, chunk=0, frequency=0.25):
    return wc.Codes.from_tokens(values.view(1, 1, -1)).replace(
        position=torch.full((1, 1), position),
        chunk=torch.full((1, 1), chunk),
        frequency=torch.full((1, 1), frequency),
    )


def some_codes():
    compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(16))
    return compressor(wc.Codes.from_tokens(torch.randn(2, 40, zoo.DIM), torch.tensor([40, 21])).cut(16))


def test_the_angles_are_those_of_the_formula():
    encoding = RotaryPositionFrequency(32, octaves=6)
    value = torch.randn(32)
    out = encoding(one_code(value, position=37.5, chunk=3, frequency=0.1)).values.flatten()
    octave = math.log2(0.1 / 2**-8)
    fast = [1, 2**-1.5, 2**-3, 2**-4.5]
    angles = [37.5 * s for s in fast] + [3 * s for s in fast] + [octave * 2**-j for j in range(4)]
    pairs = torch.complex(value[:12], value[12:24]) * torch.polar(torch.ones(12), torch.tensor(angles))
    expected = torch.cat([pairs.real, pairs.imag, value[24:]]) * encoding.gain(torch.tensor(0.1))
    torch.testing.assert_close(out, expected)


def test_a_turn_keeps_the_norm_up_to_the_gain():
    codes, encoding = some_codes(), zoo.perturb(RotaryPositionFrequency(zoo.DIM))
    out = encoding(codes).values
    expected = codes.values.norm(dim=-1) * encoding.gain(codes.frequency)
    torch.testing.assert_close(out.norm(dim=-1), expected)
    assert (out - codes.values).abs().max() > 0.1
    assert not out[~codes.mask].any() and not codes.mask.min()


def test_dot_products_see_differences_of_place_chunk_and_octave_alone():
    encoding = RotaryPositionFrequency(zoo.DIM).double()
    q, k = torch.randn(2, zoo.DIM, dtype=torch.float64)

    def score(a, b):
        with torch.no_grad():
            out = [encoding(one_code(x, **at)).values.flatten() for x, at in ((q, a), (k, b))]
            return float(out[0] @ out[1] / encoding.gain(torch.tensor([a["frequency"], b["frequency"]])).prod())

    def at(place, chunk, octave):
        return {"position": float(place), "chunk": chunk, "frequency": 0.25 * 2.0**-octave}

    assert abs(score(at(3.5, 1, 0), at(1, 4, 2)) - score(at(203.5, 31, 3), at(201, 34, 5))) < 1e-5
    for other in (at(2, 4, 2), at(1, 5, 2), at(1, 4, 3)):
        assert abs(score(at(3.5, 1, 0), other) - score(at(3.5, 1, 0), at(1, 4, 2))) > 1e-3


def test_far_places_keep_their_phase():
    encoding = RotaryPositionFrequency(zoo.DIM)
    cos = encoding.angles(one_code(torch.ones(zoo.DIM), position=5_000_001.5)).cos.flatten()
    assert abs(float(cos[0]) - math.cos(5_000_001.5)) < 1e-6


def test_both_forms_share_one_gain():
    frequency = torch.logspace(-5, -0.31, 50)
    added, turned = wc.PositionFrequencyEncoding(8, octaves=7), RotaryPositionFrequency(8, octaves=7)
    assert torch.equal(added.gain(frequency), turned.gain(frequency))
    assert [name for name, _ in turned.named_parameters()] == ["slope"]
    turned(one_code(torch.randn(8))).values.sum().backward()
    assert turned.slope.grad


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_close(dtype, bound):
    codes, encoding = some_codes(), RotaryPositionFrequency(zoo.DIM)
    exact = encoding(codes).values
    half = encoding.to(dtype)(codes.replace(values=codes.values.to(dtype))).values
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() <= bound * exact.abs().max()


def test_it_compiles_without_a_graph_break():
    codes, encoding = some_codes(), RotaryPositionFrequency(zoo.DIM)
    torch._dynamo.reset()
    compiled = torch.compile(encoding, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(codes).values, encoding(codes).values)


def test_a_causal_model_takes_it():
    pool = wc.MeanPoolCompressor(count=4, encoding=RotaryPositionFrequency(zoo.DIM))
    model = zoo.perturb(zoo.language_model(pool)).double()
    tokens = torch.randint(256, (2, 53))
    full = model(tokens)
    for length in (1, 16, 17, 40):
        torch.testing.assert_close(model(tokens[:, :length]), full[:, :length], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dim": 0}, "allowed: 1 and above"),
        ({"dim": 8, "octaves": 0}, "allowed: 1 and above"),
        ({"dim": 12}, "dim=12 cannot be turned in three groups of pairs; allowed: multiples of 8"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RotaryPositionFrequency(**arguments)
