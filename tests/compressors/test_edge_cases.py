"""What every pruner and every adaptive compressor does with chunks that hold nothing, little, or too much."""

import pytest
import torch
import zoo
from zoo import CHUNK, DIM

import wavecomp as wc


def learned(pruner):
    """A wavelet compressor of which everything learns."""
    transform = wc.DWT1d(wc.OrthogonalFilterBank("db2"), level=2 if isinstance(pruner, wc.KeepLowpass) else 4)
    band_weight = wc.BandWeight(bands=transform.bands, content=True)
    return wc.WaveletCompressor(transform=transform, pruner=pruner, band_weight=band_weight)


def leaves(**kwargs):
    transform = wc.DWT1d(wc.OrthogonalFilterBank("db2"), level=4)
    return wc.DyadicLeaves(transform=transform, target_ratio=zoo.RATIO, dim=DIM, **kwargs)


def partial(**kwargs):
    transform = wc.DWT1d(wc.OrthogonalFilterBank("db2"), level=3)
    return wc.PartialSynthesis(transform=transform, target_ratio=zoo.RATIO, **kwargs)


EVERY = {kind.__name__: lambda make=make: learned(make()) for kind, make in zoo.PRUNERS.items()}
EVERY |= {"DyadicLeaves": leaves, "PartialSynthesis": partial}
# with room for the mean budget and no more; the others have a code for each place that they fill
TIGHT = {
    wc.Shrinkage: lambda: learned(wc.Shrinkage(target_ratio=zoo.RATIO, room=1)),
    wc.HardConcrete: lambda: learned(wc.HardConcrete(dim=DIM, target_ratio=zoo.RATIO, room=1)),
    wc.BandDrop: lambda: learned(wc.BandDrop(target_ratio=zoo.RATIO, room=1)),
    wc.GlobalTopK: lambda: learned(wc.GlobalTopK(target_ratio=zoo.RATIO, room=1)),
    wc.DyadicLeaves: lambda: leaves(room=1),
    wc.PartialSynthesis: lambda: partial(room=1),
}


def each(table):
    return pytest.mark.parametrize("make", [pytest.param(make, id=str(name)) for name, make in table.items()])


def encoded(compressor, values, lengths=None):
    return compressor(wc.Codes.from_tokens(values, lengths).cut(CHUNK))


def uneven():
    """A chunk in which nothing happens beside one in which everything does."""
    return torch.cat([torch.randn(2, 1, DIM).expand(2, CHUNK, DIM), torch.randn(2, CHUNK, DIM)], dim=1)


@each(EVERY)
@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_stay_finite_in_chunks_of_zeros_of_constants_and_of_one_token(make, training):
    # a whole chunk and one of a single token; a row of a single token; one of none
    lengths = torch.tensor([CHUNK + 1, 1, 0])
    for fill in (torch.zeros(DIM), torch.ones(DIM), torch.randn(DIM)):
        compressor = zoo.perturb(make()).train(training)
        values = fill.expand(3, CHUNK + 1, DIM).clone().requires_grad_()
        codes = encoded(compressor, values, lengths)
        assert codes.mask.sum(-1)[0] >= 2 and codes.mask.sum(-1).tolist()[1:] == [1, 0]
        (codes.values.square().sum() + codes.values.sum() + sum(codes.losses.values())).backward()
        found = [codes.values, values.grad, *codes.losses.values(), *codes.statistics.values()]
        found += [p.grad for p in compressor.parameters() if p.grad is not None]
        assert all(torch.isfinite(x).all() for x in found)


@each(EVERY)
def test_a_row_without_a_chunk_has_no_codes(make):
    assert encoded(make(), torch.randn(2, 0, DIM)).values.shape[1] == 0


def test_every_public_compressor_with_room_is_here():
    tables = (zoo.PRUNERS, zoo.COMPRESSORS)
    assert {kind for table in tables for kind, make in table.items() if hasattr(make(), "room")} == set(TIGHT)


@each({kind.__name__: make for kind, make in TIGHT.items()})
def test_what_there_is_no_room_for_is_counted(make):
    compressor = make().eval()
    controllers = [module for module in compressor.modules() if isinstance(module, wc.RatioController)]
    for controller in controllers:
        controller.set_threshold(1e-9)
    codes = encoded(compressor, uneven())
    kept, overflow = codes.statistics["kept"], codes.statistics["overflow"]
    assert kept.shape == overflow.shape == (2, 2)
    assert (kept <= compressor.capacity(CHUNK)).all() and compressor.capacity(CHUNK) == CHUNK // zoo.RATIO
    # without a threshold a loud chunk asks for all of it; of a budget for all, for what a quiet one leaves
    asked = CHUNK if controllers else 2 * CHUNK // zoo.RATIO - 1
    assert (kept + overflow)[:, 1].tolist() == [asked, asked]
    for controller in controllers:
        controller.set_threshold(1e9)
        codes = encoded(compressor, uneven())
        assert not codes.statistics["overflow"].any() and codes.mask.any()


@each(EVERY)
def test_gradients_reach_filters_thresholds_and_gates(make):
    compressor = zoo.perturb(make(), std=0.03)
    for _ in range(4):  # one draws a rate, and at some rates a parameter has nothing to do
        codes = encoded(compressor, uneven() + 0.05 * torch.randn(2, 2 * CHUNK, DIM))
        ((codes.values * torch.randn_like(codes.values)).sum() + sum(codes.losses.values())).backward()
    found = dict(compressor.named_parameters())
    assert any("filter_banks" in name for name in found)
    for name, parameter in found.items():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_empty_places_of_a_pruner_may_name_any_coefficient():
    class Chosen(wc.Pruner):
        def __init__(self, named):
            super().__init__()
            self.named = named

        def capacity(self, layout):
            return 8

        def forward(self, bands):
            index = torch.tensor([0, 1, 2, 3, 15] + [self.named] * 3).expand(*bands.lengths.shape, 8)
            return wc.compressors.Kept(index=index, mask=(torch.arange(8) < 5).expand_as(index))

    chunks = wc.Codes.from_tokens(torch.randn(1, 16, DIM)).cut(16)
    compressor = zoo.perturb(zoo.wavelet_compressor(transform=wc.DWT1d("haar", level=2)))
    compressor.pruner = Chosen(14)
    expected = compressor(chunks).values
    compressor.pruner = Chosen(15)  # which is kept
    torch.testing.assert_close(compressor(chunks).values, expected, rtol=0, atol=0)


def test_another_seed_measures_otherwise():
    compressor = wc.RandomMeasurementCompressor(count=4)
    chunks = wc.Codes.from_tokens(torch.randn(1, 16, DIM)).cut(16)
    compressor(chunks)
    compressor.seed = 9
    other = wc.RandomMeasurementCompressor(count=4, seed=9)
    torch.testing.assert_close(compressor(chunks).values, other(chunks).values, rtol=0, atol=0)
