"""What each way back from codes means; what holds for all of them is in the gates."""

import pytest
import torch
from torch.nn import functional as F
from zoo import CHUNK, DIM

import wavecomp as wc


def chunks(length, batch=2, chunk_length=CHUNK, lengths=None):
    return wc.Codes.from_tokens(torch.randn(batch, length, DIM), lengths).cut(chunk_length)


def normalised(x):
    return F.rms_norm(x, x.shape[-1:])


@pytest.mark.parametrize("count, length", [(4, 16), (3, 16), (5, 16), (7, 10), (3, 7), (1, 5)])
def test_a_pooled_token_has_the_code_of_its_own_group_in_short_chunks_too(count, length):
    for tokens in range(1, 2 * length + 1):
        whole = chunks(tokens, chunk_length=length)
        for kind in (wc.MeanPoolCompressor, wc.MaxPoolCompressor):
            compressor = kind(count=count)
            codes = compressor(whole)
            back = compressor.expand(codes, whole)
            values = codes.values.view(2, -1, count, DIM)
            for t in range(tokens):
                place = t % length
                assert torch.equal(back[:, t // length, place], values[:, t // length, place * count // length])


def test_a_dropped_token_has_the_nearest_that_stayed():
    compressor = wc.SurprisalDropCompressor(dim=DIM, count=3)
    whole = chunks(40)
    codes = compressor(whole)
    back = compressor.expand(codes, whole)
    for row in range(2):
        for t in range(40):
            mine = codes.mask[row] & (codes.chunk[row] == t // CHUNK)
            nearest = (codes.position[row] - t).abs().masked_fill(~mine, torch.inf).argmin()
            assert torch.equal(back[row, t // CHUNK, t % CHUNK], codes.values[row, nearest])


class Nested(wc.Compressor):
    """A code for the whole chunk, and a finer one for its third and fourth place."""

    def capacity(self, chunk_length):
        return 3

    def forward(self, chunks):
        return chunks.codes(
            torch.ones(*chunks.lengths.shape, 3, DIM),
            mask=torch.tensor([True, True, False]),
            position=torch.tensor([3.5, 2.5, 5.5]),
            support=torch.tensor([8.0, 2.0, 2.0]),
            frequency=torch.zeros(3),
            level=torch.tensor([3, 1, 1]),
            index=torch.arange(3),
        )


def test_of_several_codes_that_cover_a_place_the_finest_counts():
    whole = chunks(16, chunk_length=8)
    codes = Nested()(whole)
    values = torch.arange(6.0).view(1, 6, 1).expand(2, 6, DIM)
    back = Nested().expand(codes.replace(values=values), whole)
    assert back[0, :, :, 0].tolist() == [[0, 0, 1, 1, 0, 0, 0, 0], [3, 3, 4, 4, 3, 3, 3, 3]]


def mixed(lengths=None):
    """Chunks of 32 in which 16 tokens are much the same, then 8, then 4; the last four are not."""
    runs = torch.tensor([16, 8, 4, 1, 1, 1, 1])
    x = torch.randn(2, 4, len(runs), DIM).repeat_interleave(runs, dim=2).flatten(1, 2)
    return wc.Codes.from_tokens(x + 0.02 * torch.randn(x.shape), lengths).cut(32)


def leaves(wavelet, **kwargs):
    return wc.DyadicLeaves(transform=wc.DWT1d(wavelet, level=4), target_ratio=2, dim=DIM, start=0.3, **kwargs)


def test_leaves_of_haar_are_constants_with_the_right_gain():
    compressor = leaves("haar")
    whole = mixed()
    codes = compressor(whole)
    assert {0, 2, 3, 4} <= set(codes.level[codes.mask].tolist())
    back = compressor.expand(codes, whole).flatten(1, 2)
    for row in range(2):
        seen = torch.zeros(128)
        for code in codes.mask[row].nonzero().flatten():
            support, position = codes.support[row, code], codes.position[row, code]
            inside = (torch.arange(128) - position).abs() < support / 2
            expected = codes.values[row, code] / support.sqrt()
            torch.testing.assert_close(back[row, inside], expected.expand(int(support), DIM))
            seen[inside] += 1
        assert (seen == 1).all()
    wanted = normalised(whole.values).flatten(1, 2)
    assert (back - wanted).square().mean() < 0.05 * wanted.square().mean()


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "bior2.2"])
def test_leaves_of_one_height_are_one_whatever_the_filters(wavelet):
    compressor = leaves(wavelet)
    whole = mixed()
    codes = compressor(whole)
    assert codes.level[codes.mask].unique().numel() > 2
    flat = codes.support.sqrt()[..., None].expand_as(codes.values)
    torch.testing.assert_close(
        compressor.expand(codes.replace(values=flat), whole), torch.ones_like(whole.values), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("wavelet, most", [("haar", 1e-6), ("db2", 0.02), ("bior2.2", 0.02)])
def test_leaves_come_back_as_what_they_were_made_of(wavelet, most):
    compressor = leaves(wavelet)
    whole = mixed(torch.tensor([128, 117]))
    made_of = []
    made = compressor.made

    def watched(bands, approximations, index):
        made_of.append(approximations[..., -bands.layout.length :, :])  # of level 0
        return made(bands, approximations, index)

    compressor.made = watched
    codes = compressor(whole)
    assert float(codes.ratio) > 1.3
    lost = (compressor.expand(codes, whole) - made_of[0]).square().sum() / made_of[0].square().sum()
    assert lost < most


def test_a_partial_synthesis_goes_on_with_details_of_zero():
    compressor = wc.PartialSynthesis(transform=wc.DWT1d("db2", level=3), target_ratio=2)
    x = torch.randn(2, 128, DIM)
    x[:, :64] = x[:, :64:8].repeat_interleave(8, dim=1)
    whole = wc.Codes.from_tokens(x).cut(32)
    seen = set()
    for threshold in (1, 8, 16):
        compressor.controller.set_threshold(threshold)
        codes = compressor(whole)
        back = compressor.expand(codes, whole)
        picked = codes.statistics["picked_level"]
        for level in range(4):
            wanted = normalised(whole.values)
            if level:
                bands = (transform := wc.DWT1d("db2", level=level))(wanted)
                smooth = torch.where(bands.layout.always[:, None], bands.values, 0)
                wanted = transform.inverse(bands.replace(values=smooth))
            torch.testing.assert_close(back[picked == level], wanted[picked == level], rtol=0, atol=1e-5)
        seen |= set(picked.flatten().tolist())
    assert seen == {0, 1, 2, 3}


def test_the_cosine_transform_loses_the_energy_of_the_frequencies_above():
    whole = wc.Codes.from_tokens(torch.randn(3, 40, DIM), torch.tensor([40, 37, 5])).cut(CHUNK)
    few, all_of_them = wc.DCTCompressor(count=4), wc.DCTCompressor(count=CHUNK)
    kept, energy = few(whole), all_of_them(whole).values.square().sum((1, 2))
    lost = (few.expand(kept, whole) - normalised(whole.values)).square().sum((1, 2, 3))
    torch.testing.assert_close(lost, energy - kept.values.square().sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_what_is_sparse_is_recovered_from_measurements_and_measures_the_same():
    transform = wc.DWT1d("haar", level=3)
    # two loud places in a chunk that is flat otherwise; the channels are alike, so that normalising changes no shape
    steps = torch.ones(1, 2, 64, 1)
    steps[:, 0, 24:] = -1
    steps[:, 1, 40:] = -1
    whole = wc.Codes.from_tokens(steps.flatten(1, 2).expand(1, 128, DIM) * torch.randn(DIM)).cut(64)
    wanted = normalised(whole.values)
    lost = {}
    for recovery in (None, wc.SparseRecovery(transform=transform)):
        compressor = wc.RandomMeasurementCompressor(count=24, recovery=recovery)
        codes = compressor(whole)
        back = compressor.expand(codes, whole)
        lost[recovery is None] = float((back - wanted).square().sum() / wanted.square().sum())
        again = compressor.matrix(64, back) @ back
        torch.testing.assert_close(again.flatten(1, 2), codes.values, rtol=0, atol=1e-4)
    assert lost[False] < 0.05 < 0.4 < lost[True]


def test_what_pruning_shrinks_stays_shrunk_and_what_it_drops_is_zero():
    transform = wc.DWT1d("haar", level=4)
    compressor = wc.WaveletCompressor(transform=transform, pruner=wc.Shrinkage(target_ratio=2))
    whole = chunks(32)
    back = transform(compressor.expand(compressor(whole), whole))
    kept = compressor.pruner(transform(normalised(whole.values)))
    weight = torch.zeros(2, 2, CHUNK).scatter(-1, kept.index, kept.weight * kept.mask)
    expected = transform(normalised(whole.values)).values * weight[..., None]
    torch.testing.assert_close(back.values, expected, rtol=0, atol=1e-5)
    assert (weight == 0).any() and ((weight > 0) & (weight < 1)).any()


@pytest.mark.parametrize(
    "transform", [wc.BestBasis1d("haar", level=2), wc.WaveletPackets1d("db2", level=2), wc.DWT1d("db2", level=2)]
)
def test_a_second_stage_gives_the_codes_of_the_first(transform):
    first = wc.MeanPoolCompressor(count=4)(chunks(8 * CHUNK)).cut(8)
    second = wc.WaveletCompressor(transform=transform, pruner=wc.KeepLowpass(8))
    torch.testing.assert_close(second.expand(second(first), first), normalised(first.values), rtol=0, atol=1e-5)
    details = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(CHUNK))
    third = wc.NoCompression()
    coefficients = details(chunks(32)).cut(8)  # of which several lie at one place
    assert torch.equal(third.expand(third(coefficients), coefficients), normalised(coefficients.values))


def test_nothing_comes_back_from_nothing():
    whole = chunks(40)
    assert not wc.NoCodes().expand(wc.NoCodes()(whole), whole).any()
    compressor = wc.MeanPoolCompressor(count=4)
    assert not compressor.expand(compressor(whole).hidden(), whole).any()
    for batch, length in ((0, 20), (2, 0)):
        for make in (compressor, leaves("haar"), wc.DCTCompressor(count=4)):
            whole = chunks(length, batch=batch, chunk_length=32)
            assert make.expand(make(whole), whole).shape == whole.values.shape
