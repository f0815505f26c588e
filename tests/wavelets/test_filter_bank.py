"""What single banks promise beyond the gates."""

import dataclasses

import pytest
import pywt
import torch
import zoo
from ptwt.wavelets_learnable import ProductFilter
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.wavelets import FilterTaps, dwt
from wavecomp.wavelets.lattice import LONGEST, lattice_angles
from wavecomp.wavelets.lifting import SCHEMES

LATTICES = [
    name
    for name in pywt.wavelist(kind="discrete")
    if pywt.Wavelet(name).orthogonal and pywt.Wavelet(name).dec_len <= LONGEST
]


def test_even_lengths_are_pywts_and_odd_ones_pass_the_last_sample():
    bank = wc.wavelets.WaveletFilterBank("db4")
    x = torch.randn(2, 15, 3, dtype=torch.float64)
    low, high = bank.analysis(x)
    cA, cD = dwt(x[:, :14], "db4", mode="periodization", axis=-2)
    torch.testing.assert_close(low[:, :7], cA)
    torch.testing.assert_close(high, cD)
    assert torch.equal(low[:, 7], x[:, 14])


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.every_bank()])
def test_a_single_sample_and_none_pass_through(make):
    bank = zoo.perturb(make())
    for length in (0, 1):
        x = torch.randn(2, length, zoo.CHANNELS)
        low, *details = bank.analysis(x)
        torch.testing.assert_close(low, x)
        assert all(detail.shape == (2, 0, zoo.CHANNELS) for detail in details)
        torch.testing.assert_close(bank.synthesis((low, *details)), x)


def distance(row, taps):
    """How far a row of a bank is from a filter, wherever in the row it stands."""
    assert torch.isfinite(row).all()
    return min((row - F.pad(taps, (s, len(row) - len(taps) - s))).abs().max() for s in range(len(row) - len(taps) + 1))


@pytest.mark.parametrize(
    "make, name",
    [
        *((lambda name=name: wc.OrthogonalFilterBank(name), name) for name in LATTICES),
        *((lambda name=name: wc.LiftingFilterBank(name), name) for name in SCHEMES),
        *((lambda name=name: wc.NeuralLiftingFilterBank(dim=96, init=name), name) for name in SCHEMES),
        (lambda: wc.FreeFilterBank("db6"), "db6"),
    ],
)
def test_interior_rows_at_the_start_are_pywts_taps(make, name):
    low, high = make().double().analysis(torch.eye(96, dtype=torch.float64)[None])
    wavelet = pywt.Wavelet(name)
    for branch, taps in ((low, wavelet.dec_lo), (high, wavelet.dec_hi)):
        assert branch.shape == (1, 48, 96)  # critically sampled
        # single-precision parameters; ten angles of db10 magnify it
        assert distance(branch[0, 24], torch.tensor(taps[::-1], dtype=torch.float64)) < 2e-6


def test_there_are_lattices_for_all_short_orthogonal_wavelets():
    assert len(LATTICES) == 23


def test_lattice_angles_add_up_to_an_eighth_turn():
    for name in LATTICES:
        turn = torch.tensor(lattice_angles(name), dtype=torch.float64).sum()
        assert abs(torch.exp(1j * (turn - torch.pi / 4)) - 1) < 1e-7, name


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "sym8"])
def test_a_lattice_is_orthogonal_at_every_length_and_angle(name):
    for moments in (0, 1):
        bank = zoo.perturb(wc.OrthogonalFilterBank(name, vanishing_moments=moments).double(), std=1.0)
        for length in range(1, 40):
            matrix = torch.cat(bank.analysis(torch.eye(length, dtype=torch.float64)[None]), dim=1)[0]
            assert ((matrix @ matrix.T - torch.eye(length)).abs() < 1e-13).all()


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "sym8"])
def test_constants_stay_out_of_a_lattices_details_at_every_level_and_length(name):
    bank = zoo.perturb(wc.OrthogonalFilterBank(name).double(), std=0.3)
    transform = wc.DWT1d(bank, level=4)
    for length in (16, 33, 47, 64, 101):
        ragged = torch.tensor([length, length - 3, 9, 1])
        values = transform(torch.ones(4, length, 2, dtype=torch.float64), ragged).values
        details = transform.layout(length).band > 0
        assert values[:, details].abs().max() < 1e-12
        # a level that knows nothing of those before it leaks: that the ends follow them is what keeps constants out
        low = torch.ones(1, length, 2, dtype=torch.float64)
        leaked = 0
        for _ in range(4):
            low, high = bank.analysis(low)
            leaked = max(leaked, float(high.detach().abs().max()) if high.numel() else 0)
        assert name == "haar" or length != 64 or leaked > 1e-3


@pytest.mark.parametrize("init", list(SCHEMES))
def test_lifting_begins_at_a_wavelet_however_it_is_given(init):
    given = (init.upper(), pywt.Wavelet(init), FilterTaps.of(init))
    assert all(wc.LiftingFilterBank(wavelet).scheme is SCHEMES[init] for wavelet in given)
    assert wc.NeuralLiftingFilterBank(init, dim=8).scheme is SCHEMES[init]


@pytest.mark.parametrize("init", list(SCHEMES))
def test_lifting_keeps_constants_out_of_the_details_whatever_it_learns(init):
    for bank in (wc.LiftingFilterBank(init, heads=2), wc.NeuralLiftingFilterBank(dim=4, init=init)):
        zoo.perturb(bank.double(), std=0.3)
        low, high = bank.analysis(torch.ones(1, 19, 4, dtype=torch.float64))
        assert high.abs().max() < 1e-12
        torch.testing.assert_close(low, torch.full_like(low, 2**0.5), rtol=0, atol=1e-11)


def test_a_neural_bank_is_no_matrix_once_it_has_learned():
    bank = wc.NeuralLiftingFilterBank(dim=4).double()
    x, y = torch.randn(2, 1, 12, 4, dtype=torch.float64)
    added = lambda: bank.analysis(x + y)[1] - bank.analysis(x)[1] - bank.analysis(y)[1]  # noqa: E731
    assert added().abs().max() < 1e-12
    zoo.perturb(bank, std=0.5)
    assert added().abs().max() > 1e-2


def test_an_m_band_bank_is_orthogonal_and_keeps_constants_out_of_whole_groups():
    for branches in (2, 3, 4):
        bank = zoo.perturb(wc.MBandFilterBank(branches, order=2).double(), std=0.5)
        for length in range(1, 26):
            matrix = torch.cat(bank.analysis(torch.eye(length, dtype=torch.float64)[None]), dim=1)[0]
            assert ((matrix @ matrix.T - torch.eye(length)).abs() < 1e-12).all()
        _, *details = bank.analysis(torch.ones(1, 6 * branches, 2, dtype=torch.float64))
        assert all(detail.abs().max() < 1e-12 for detail in details)


def test_heads_have_filters_of_their_own():
    bank = wc.OrthogonalFilterBank("db2", heads=2).double()
    with torch.no_grad():
        bank.angles[1] += 1
    alone = wc.OrthogonalFilterBank("db2").double()
    x = torch.randn(1, 12, 6, dtype=torch.float64)
    low, both = alone.analysis(x)[0], bank.analysis(x)[0]
    torch.testing.assert_close(both[..., :3], low[..., :3])
    assert (both[..., 3:] - low[..., 3:]).abs().max() > 0.1


@pytest.mark.parametrize("init", ["db4", "bior2.4", "sym5"])
def test_losses_of_free_filters_are_ptwts(init):
    bank = wc.FreeFilterBank(init).double()
    assert bank.perfect_reconstruction_loss() < 1e-10 and bank.alias_cancellation_loss() < 1e-10
    zoo.perturb(bank)
    peer = ProductFilter(*(f.detach() for f in (*bank.dec[0], *bank.rec[0])))
    theirs = peer.perfect_reconstruction_loss()[0], peer.alias_cancellation_loss()[0]
    ours = bank.perfect_reconstruction_loss(), bank.alias_cancellation_loss()
    for mine, other in zip(ours, theirs):
        assert mine > 1e-3
        torch.testing.assert_close(mine, other.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wc.wavelets.WaveletFilterBank("wavy"), "wavelet='wavy' is not a discrete wavelet"),
        (lambda: wc.OrthogonalFilterBank("bior2.2"), "init='bior2.2' has 6 taps and is not orthogonal; allowed"),
        (lambda: wc.OrthogonalFilterBank("db11"), "init='db11' has 22 taps and is orthogonal; allowed: .* at most 20"),
        (lambda: wc.OrthogonalFilterBank(vanishing_moments=2), "vanishing_moments=2 cannot be held; allowed: 0 and 1"),
        (lambda: wc.OrthogonalFilterBank(heads=0), "heads=0 is too small"),
        (lambda: wc.OrthogonalFilterBank(heads=2).analysis(torch.randn(1, 8, 3)), "heads=2 does not divide dim=3"),
        (lambda: wc.LiftingFilterBank(heads=2).analysis(torch.randn(1, 8, 3)), "heads=2 does not divide dim=3"),
        (lambda: wc.MBandFilterBank(heads=2).analysis(torch.randn(1, 8, 3)), "heads=2 does not divide dim=3"),
        (lambda: wc.FreeFilterBank(heads=2).analysis(torch.randn(1, 8, 3)), "heads=2 does not divide dim=3"),
        (lambda: wc.LiftingFilterBank(pywt.Wavelet("db7")), "init='db7' has no lifting scheme here; allowed: 'haar', "),
        (lambda: wc.LiftingFilterBank("db7"), "init='db7' has no lifting scheme here; allowed: 'haar', 'db2'"),
        (lambda: wc.NeuralLiftingFilterBank(dim=0), "dim=0 is too small"),
        (lambda: wc.NeuralLiftingFilterBank(dim=4, hidden=0), "hidden=0 is too small"),
        (
            lambda: wc.NeuralLiftingFilterBank(dim=4).analysis(torch.randn(1, 8, 3)),
            "dim=3 channels came to a bank of dim=4",
        ),
        (lambda: wc.MBandFilterBank(1), "branches=1 is too small; allowed: 2 and above"),
        (lambda: wc.MBandFilterBank(order=-1), "order=-1 is negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_filters_that_are_not_orthonormal_make_no_lattice():
    taps = FilterTaps((0.3, 0.4), (-0.4, 0.3), (0.4, 0.3), (0.3, -0.4))  # synthesis is the transpose, but no inverse
    with pytest.raises(ValueError, match="not orthogonal"):
        wc.OrthogonalFilterBank(taps)


def test_taps_that_a_lattice_would_change_are_refused():
    taps = FilterTaps.of("db2")
    flipped = dataclasses.replace(taps, dec_hi=[-tap for tap in taps.dec_hi], rec_hi=[-tap for tap in taps.rec_hi])
    with pytest.raises(ValueError, match="has a dec_hi that is not"):
        wc.OrthogonalFilterBank(flipped)
    turned = dataclasses.replace(flipped, dec_lo=[-tap for tap in taps.dec_lo], rec_lo=[-tap for tap in taps.rec_lo])
    with pytest.raises(ValueError, match="allowed: a low-pass filter that sums to sqrt\\(2\\), or vanishing_moments=0"):
        wc.OrthogonalFilterBank(turned)
    x = torch.randn(1, 64, 2)
    found = wc.OrthogonalFilterBank(turned, vanishing_moments=0).analysis(x)
    for mine, reference in zip(found, wc.wavelets.WaveletFilterBank(turned).analysis(x)):
        torch.testing.assert_close(mine[:, 4:-4], reference[:, 4:-4])


def test_losses_of_free_filters_are_the_same_under_autocast():
    bank = zoo.perturb(wc.FreeFilterBank("db4"), std=0.003)
    alone = bank.perfect_reconstruction_loss() + bank.alias_cancellation_loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bank.perfect_reconstruction_loss() + bank.alias_cancellation_loss(), alone)


def test_a_name_is_known_in_any_case():
    assert FilterTaps.of("DB4") == FilterTaps.of("db4")
