import pytest
import torch
from torch.nn import functional as F

import wavecomp as wc


def test_local_approximations_are_scaled_means():
    compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
    x = torch.randn(1, 32, 8)
    codes = compressor(wc.Codes.from_tokens(x).cut(16))
    means = F.rms_norm(x, (8,)).view(1, 8, 4, 8).mean(2)
    torch.testing.assert_close(codes.values, 2 * means)
    torch.testing.assert_close(codes.position[0], torch.arange(8) * 4 + 1.5)
    assert codes.statistics["band_energy"].shape == (1, 2, 3)
    pooled = wc.MeanPoolCompressor(count=4)(wc.Codes.from_tokens(x).cut(16))
    torch.testing.assert_close(pooled.values, means)
    for name in ("position", "support", "frequency", "level", "end"):
        torch.testing.assert_close(getattr(pooled, name), getattr(codes, name))


def test_kept_coefficients_can_be_scattered_back():
    transform = wc.DWT1d("db2", level=4)
    x = torch.randn(2, 32, 8)
    chunks = wc.Codes.from_tokens(x).cut(16)
    codes = wc.WaveletCompressor(transform=transform, pruner=wc.TopK(16))(chunks)
    values = torch.zeros(2, 2, 16, 8)
    index = codes.index.view(2, 2, 16, 1).expand(-1, -1, -1, 8)
    bands = transform(chunks.values).replace(values=values.scatter(2, index, codes.values.view(2, 2, 16, 8)))
    torch.testing.assert_close(transform.inverse(bands), F.rms_norm(chunks.values, (8,)), rtol=0, atol=1e-5)


def test_the_detail_channel_adds_what_lies_under_each_code():
    x = torch.randn(1, 16, 8)
    chunks = wc.Codes.from_tokens(x).cut(8)
    detail = wc.DetailChannel(dim=8, level=2)
    plain = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(2))
    both = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(2), detail_channel=detail)
    bands = plain.transform(F.rms_norm(chunks.values, (8,)))
    added = (both(chunks).values - plain(chunks).values).view(1, 2, 2, 8)
    d2, d1 = bands.values[..., 2:4, :], bands.values[..., 4:8, :]
    coarse, fine = detail.projections
    expected = coarse(d2) + fine(d1.reshape(1, 2, 2, 16))
    torch.testing.assert_close(added, expected)


def test_details_with_codes_of_their_own_are_not_added_again():
    chunks = wc.Codes.from_tokens(torch.randn(1, 16, 8)).cut(8)
    detail = wc.DetailChannel(dim=8, level=2)
    both = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(3), detail_channel=detail)
    bands = both.transform(F.rms_norm(chunks.values, (8,)))
    d2 = bands.values[..., 2:4, :].clone()
    d2[..., 0, :] = 0
    added = both(chunks).values.view(1, 2, 3, 8)
    expected = bands.values[..., :2, :] + detail.projections[0](d2)
    expected = expected + detail.projections[1](bands.values[..., 4:, :].reshape(1, 2, 2, 16))
    torch.testing.assert_close(added[:, :, :2], expected)
    torch.testing.assert_close(added[:, :, 2], bands.values[..., 2, :])


def test_statistics_and_losses_ride_along():
    chunks = wc.Codes.from_tokens(torch.randn(1, 16, 8)).cut(8)
    chunks = chunks.replace(losses={"before": torch.tensor(2.0)})
    codes = wc.MeanPoolCompressor(count=2)(chunks)
    assert codes.losses == {"before": torch.tensor(2.0)}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wc.MeanPoolCompressor(count=0), "count=0 is too small"),
        (lambda: wc.MeanPoolCompressor(count=9).capacity(8), "count=9 asks for more codes than the 8 tokens"),
        (lambda: wc.DetailChannel(dim=4, level=0), "level=0 is too small"),
        (lambda: wc.DetailChannel(dim=4, level=1, scale=-1), "scale=-1 is negative"),
        (
            lambda: wc.WaveletCompressor(
                transform=wc.DWT1d("haar", level=2),
                pruner=wc.TopK(4),
                detail_channel=wc.DetailChannel(dim=4, level=2),
            ),
            r"detail_channel goes with a low-pass pruner such as KeepLowpass, not with TopK\(count=4\)",
        ),
        (
            lambda: wc.WaveletCompressor(
                transform=wc.DWT1d("haar", level=2),
                pruner=wc.KeepLowpass(4),
                detail_channel=wc.DetailChannel(dim=4, level=3),
            ),
            "detail_channel has level=3, the transform level=2",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
