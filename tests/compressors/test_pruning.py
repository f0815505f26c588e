import pytest
import torch

import wavecomp as wc
from wavecomp.compressors.selection import drawn_by_place, spaced_by_place


def bands(level=2, length=16, lengths=None, dim=4):
    return wc.DWT1d("haar", level=level)(torch.randn(2, 2, length, dim), lengths)


def test_lowpass_keeps_the_coarsest():
    kept = wc.KeepLowpass(6)(bands())
    assert kept.index[0, 0].tolist() == [0, 1, 2, 3, 4, 5] and kept.mask.all()


def test_topk_keeps_the_approximation_and_the_loudest():
    some = bands(level=3, dim=3)
    kept = wc.TopK(8)(some)
    loud = some.values.norm(dim=-1)
    for row in range(2):
        for chunk in range(2):
            expected = {0, 1} | set((loud[row, chunk, 2:].topk(6).indices + 2).tolist())
            assert set(kept.index[row, chunk].tolist()) == expected
            assert kept.index[row, chunk].tolist() == sorted(kept.index[row, chunk].tolist())


@pytest.mark.parametrize("make", [lambda: wc.KeepLowpass(8), lambda: wc.TopK(8)])
def test_short_chunks_keep_their_share(make):
    lengths = torch.tensor([[16, 5], [16, 1]])
    some = bands(level=3, lengths=lengths)
    kept = make()(some)
    assert kept.mask.sum(-1).tolist() == [[8, 3], [8, 1]]
    has = some.mask.gather(-1, kept.index)
    assert (has | ~kept.mask).all()


def test_shrinkage_owes_a_price_for_each_code_by_its_weight():
    pruner = wc.Shrinkage(target_ratio=4, price=0.5, start=1.0)
    silent = bands(level=4)
    silent = silent.replace(values=silent.values * 1e-3)
    assert pruner(silent).losses["price"] == 0
    loud = silent.replace(values=silent.values * 1e9)  # all weights are 1
    always = loud.layout.always.float().mean()
    torch.testing.assert_close(pruner(loud).losses["price"], 0.5 * (1 - always), rtol=1e-4, atol=0)


def test_with_a_spread_codes_of_equal_loudness_change_by_little_more_than_the_threshold_does():
    some = wc.DWT1d("haar", level=5)(torch.randn(1, 256, 64, 4))
    loudness = some.values.square().mean(-1, keepdim=True).sqrt()
    alike = some.replace(values=some.values / loudness)
    details = alike.mask & ~alike.layout.always

    def kept(pruner, threshold):
        pruner.controller.set_threshold(threshold)
        found = pruner.eval()(alike)
        return (found.mask & (found.weight < 1)).sum() / details.sum()

    plain, spread = wc.Shrinkage(target_ratio=1, spread=0), wc.Shrinkage(target_ratio=1)
    assert kept(plain, 0.99) == 1 and kept(plain, 1.01) == 0
    for threshold in (1.01, 1.5, 2.0, 4.0):
        assert kept(spread, threshold) == pytest.approx(threshold**-2, abs=0.02)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wc.Shrinkage(target_ratio=4, price=-1), "price=-1 is out of range; allowed: 0 and above"),
        (lambda: wc.Shrinkage(target_ratio=4, spread=1.5), "spread=1.5 is out of range; allowed: 0 to 1"),
        (lambda: wc.KeepLowpass(0), "count=0 is too small"),
        (lambda: wc.KeepLowpass(3)(bands()), "count=3 is too small beside the 4 coefficients of cA2: the end of each"),
        (lambda: wc.TopK(8)(bands()), "count=8: the 4 coefficients of cA2 always stay, and may be a quarter"),
        (lambda: wc.KeepLowpass(17)(bands()), "count=17 asks for more codes than the 16 coefficients"),
        (
            lambda: wc.TopK(8).capacity(wc.DWT1d("haar", level=2).layout(16)),
            "count=8: the 4 coefficients of cA2 always stay, and may be a quarter of .*; allowed: 16 and above",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("pruner", [lambda: wc.HardConcrete(dim=64, target_ratio=2), None])
@pytest.mark.parametrize("wavelet", ["haar", "db4"])
def test_what_is_almost_silent_has_a_gradient_in_half_precision(wavelet, pruner):
    """A token that is repeated leaves details of rounding alone."""
    transform = wc.DWT1d(wavelet, level=4)
    if pruner is None:
        compressor = wc.DyadicLeaves(transform=transform, target_ratio=2, dim=64).half()
    else:
        compressor = wc.WaveletCompressor(transform=transform, pruner=pruner()).half()
    x = torch.randn(1, 1, 64).repeat(1, 64, 1).half().requires_grad_()
    codes = compressor(wc.Codes.from_tokens(x).cut(64))
    (codes.values.float().square().sum() + sum(loss.float() for loss in codes.losses.values())).backward()
    assert torch.isfinite(x.grad).all()


def test_thresholds_by_place_are_spread_evenly_over_each_chunk():
    """So that chunks of equal loudness have as many codes, up to a few."""
    bands = wc.DWT1d("haar", level=5)(torch.randn(1, 50, 64, 4))
    spaced = spaced_by_place(bands)[0]
    for share in (0.1, 0.3, 0.5):
        assert ((spaced < share).sum(-1) - share * 64).abs().max() <= 3
    half = spaced[:, 32:]  # those of the finest band
    assert ((half < 0.25).sum(-1) - 8).abs().max() <= 2


def test_seeds_of_a_random_draw_are_no_shifts_of_one_another():
    bands = wc.DWT1d("haar", level=5)(torch.randn(1, 400, 64, 4))
    one, other = (drawn_by_place(bands, seed).flatten() for seed in (0, 1))
    assert not any(torch.equal(one[shift:], other[: len(other) - shift]) for shift in range(20000))
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.03
