"""Every fast form is the cascade, in value and in every gradient, at sizes that no form likes."""

import copy
import pickle

import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

import wavecomp as wc
from wavecomp.wavelets import banded

BANKS = {
    "haar": lambda: wc.WaveletFilterBank("haar"),
    "db4": lambda: wc.WaveletFilterBank("db4"),
    "bior4.4": lambda: wc.WaveletFilterBank("bior4.4"),
    "lattice-db4": lambda: wc.OrthogonalFilterBank("db4"),
    "lattice-sym10": lambda: wc.OrthogonalFilterBank("sym10"),
    "lifting": lambda: wc.LiftingFilterBank("bior4.4"),
    "three-bands": lambda: wc.MBandFilterBank(3),
    "four-bands": lambda: wc.MBandFilterBank(4, order=2),
    "free": lambda: wc.FreeFilterBank("db3"),
}


def forms(transform, x, names):
    """What each form makes of x, its inverse to levels 0, 1 and all, with gradients of x and every parameter."""
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    parameters = [p for p in transform.parameters() if p.numel()]
    out = []
    for name in names:
        transform.backend = name
        leaf = x.clone().requires_grad_()
        bands = transform(leaf)
        found = [bands.values, *torch.autograd.grad(bands.values, [leaf, *parameters], upstream, allow_unused=True)]
        values = bands.values.detach().requires_grad_()
        wanted, given = [values, *parameters], bands.replace(values=values)
        for back in (transform.inverse(given), transform.inverse(given, to_level=1), transform.inverse_levels(given)):
            weight = upstream.repeat_interleave(2, dim=-2)[..., : back.shape[-2], :]
            found += [back, *torch.autograd.grad(back, wanted, weight, allow_unused=True)]
        out.append([f for f in found if f is not None])
    return out


def equal(truth, other):
    assert len(truth) == len(other) > 2
    for expected, found in zip(truth, other):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def perturbed(make, level, std=0.2):
    transform = wc.DWT1d(make(), level=level).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in transform.parameters():
            p += std * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return transform


@pytest.mark.parametrize("name", BANKS)
@pytest.mark.parametrize("length, rows", [(63, 2), (700, 1), (701, 3), (703, 2), (1500, 2)])
def test_matrix_and_band_are_the_cascade(name, length, rows):
    transform = perturbed(BANKS[name], 2 if name == "four-bands" else 3)
    truth, *others = forms(transform, torch.randn(rows, length, 5).double(), ("cascade", "matrix", "banded"))
    for other in others:
        equal(truth, other)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(64, 900),
    level=st.integers(1, 4),
    rows=st.integers(1, 4),
    name=st.sampled_from(["haar", "lattice-db4", "lifting", "three-bands"]),
)
def test_the_band_is_the_cascade_at_any_length_and_level(length, level, rows, name):
    level = min(level, 3) if name == "three-bands" else level
    truth, band = forms(perturbed(BANKS[name], level), torch.randn(rows, length, 2).double(), ("cascade", "banded"))
    equal(truth, band)


def test_a_list_of_different_banks_has_every_form():
    banks = [wc.OrthogonalFilterBank("db4"), wc.MBandFilterBank(3), wc.OrthogonalFilterBank("db2")]
    transform = wc.DWT1d(banks, level=3).double()
    truth, *others = forms(transform, torch.randn(2, 613, 3).double(), ("cascade", "matrix", "banded"))
    for other in others:
        equal(truth, other)


def test_a_long_chunk_that_is_short_goes_through_the_cascade_in_every_form():
    transform = perturbed(BANKS["lattice-db4"], 3)
    lengths = torch.tensor([[600, 600, 77], [600, 0, 0], [5, 0, 0]])
    x = torch.randn(3, 3, 600, 2).double()
    x[torch.arange(600) >= lengths[..., None]] = torch.nan
    found = []
    for backend in ("cascade", "matrix", "banded"):
        transform.backend = backend
        bands = transform(x, lengths)
        torch.testing.assert_close(transform.inverse(bands), torch.nan_to_num(x), rtol=0, atol=1e-11)
        found.append(bands.values)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("backend", ["cascade", "matrix", "banded"])
@pytest.mark.parametrize("name", ["db4", "lattice-db4", "four-bands"])
def test_every_form_is_differentiable_twice(backend, name):
    transform = perturbed(BANKS[name], 3)  # at the third level the constants that ends follow have gradients too
    transform.backend = backend
    parameters = tuple(p for p in transform.parameters() if p.numel())
    x = torch.randn(2, 301, 1, dtype=torch.float64, requires_grad=True)
    forward = lambda x, *_: transform(x).values  # noqa: E731
    back = lambda x, *_: transform.inverse(transform(x.detach()).replace(values=x))  # noqa: E731
    for function in (forward, back):
        assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("backend", ["cascade", "matrix", "banded"])
@pytest.mark.parametrize("name", ["db4", "lattice-db4"])
def test_every_form_compiles_without_a_graph_break(backend, name):
    transform = wc.DWT1d(BANKS[name](), level=2, backend=backend)
    x = torch.randn(2, 301, 3, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: transform.inverse(transform(x)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), x, rtol=1e-4, atol=1e-5)
    compiled(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["cascade", "matrix", "banded"])
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 2e-6)])
def test_every_form_in_half_precision_and_under_autocast_stays_close(backend, dtype, bound):
    transform = wc.DWT1d("db4", level=3, backend=backend)
    x = torch.randn(2, 2, 301, 4, dtype=torch.float64)
    exact = transform(x)
    bands = transform(x.to(dtype))
    back = transform.inverse(bands)
    assert bands.values.dtype == back.dtype == dtype
    assert (bands.values.double() - exact.values).abs().max() <= bound * exact.values.abs().max()
    assert (back.double() - x).abs().max() <= 3 * bound * x.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transform(x.float())
        back = transform.inverse(mixed)
    # no form is rounded by autocast: what it makes is still inverted
    assert mixed.values.dtype == back.dtype == torch.float32
    assert (mixed.values.double() - exact.values).abs().max() <= 2e-6 * exact.values.abs().max()
    assert (back.double() - x).abs().max() <= 6e-6 * x.abs().max()


@pytest.mark.parametrize("name", sorted(BANKS))
def test_a_band_under_autocast_is_what_it_is_without(name):
    """Levels near the top are short enough for products that autocast would make half as precise."""
    transform = wc.DWT1d(BANKS[name](), level=4, backend="banded")
    x = torch.randn(2, 1024, 3)
    expected = forms(transform, x, ["banded"])
    with torch.autocast("cpu", torch.bfloat16):
        found = forms(transform, x, ["banded"])
    for mine, theirs in zip(*found, *expected):
        # a bank's own products of matrices have backward passes of autograd's, which autocast does reach
        assert mine.dtype == theirs.dtype and (mine - theirs).norm() <= 5e-2 * theirs.norm()
    torch.testing.assert_close(found[0][0], expected[0][0])


@pytest.mark.parametrize("shape", [(0, 2, 1024, 4), (2, 0, 1024, 4)])
def test_a_band_of_nothing_is_nothing(shape):
    transform = wc.DWT1d("db2", level=3, backend="banded")
    for lengths in (None, torch.full(shape[:2], 1000)):
        bands = transform(torch.zeros(shape, requires_grad=True), lengths)
        assert bands.values.shape == shape and transform.inverse(bands).shape == shape


def test_the_band_keeps_nothing_but_coarse_approximations_for_the_backward_pass():
    x = torch.randn(1, 4096, 3)
    for bank, kept in (("db4", [4096]), (wc.OrthogonalFilterBank("db4"), [4096, 1024])):
        transform = wc.DWT1d(bank, level=3, backend="banded")
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t) or t, lambda t: t):
            transform(x.clone().requires_grad_())
        long = [t.shape[1] for t in saved if t.ndim == 3 and t.shape[-1] == 3]
        assert long == kept


def test_auto_takes_the_form_that_it_says():
    def form(transform, length, ragged=False):
        x = torch.randn(2, length, 4)
        return transform.form(x, torch.tensor([length, 3]) if ragged else None)

    assert form(wc.DWT1d("db4", level=2), 511) == "matrix"
    assert form(wc.DWT1d("db4", level=2), 512) == "banded"
    assert form(wc.DWT1d("db4", level=2), 64, ragged=True) == "cascade"
    for transform in (wc.WaveletPackets1d("db4", level=2), wc.DWT1d(wc.OrthogonalFilterBank(heads=2), level=2)):
        assert form(transform, 511) == "matrix" and form(transform, 512) == "cascade"
    assert form(wc.DWT1d(wc.NeuralLiftingFilterBank(dim=4), level=2), 64) == "cascade"


def test_a_matrix_of_fixed_filters_is_made_once_and_one_of_others_anew():
    fixed, like = wc.DWT1d("db2", level=2), torch.empty(0)
    first = fixed._analysis_matrix(16, like)
    assert fixed._analysis_matrix(16, like) is first
    fixed.analysis_matrix(16, like).zero_()  # a copy
    assert fixed._analysis_matrix(16, like).any()
    assert fixed.analysis_matrix(16, like.double()).dtype == torch.float64
    bank = wc.OrthogonalFilterBank("db2")
    transform = wc.DWT1d(bank, level=2)
    with torch.no_grad():
        first = transform.analysis_matrix(16, like)
        bank.angles += 0.3
        assert not torch.equal(transform.analysis_matrix(16, like), first)
    assert transform.analysis_matrix(16, like).requires_grad
    with torch.inference_mode():
        transform(torch.randn(1, 16, 2))
    transform(torch.randn(1, 16, 2, requires_grad=True)).values.sum().backward()
    assert bank.angles.grad.any()


@pytest.mark.parametrize("kind", [wc.DWT1d, wc.WaveletPackets1d, wc.BestBasis1d, wc.DWT2d])
def test_a_bank_in_the_place_of_another_is_the_one_that_runs(kind):
    transform, x = kind("haar", level=2), torch.randn(2, 3, 16, 4, dtype=torch.float64)
    transform.inverse(transform(x))
    transform.filter_banks[0] = wc.WaveletFilterBank("db4")
    bands = transform(x)
    torch.testing.assert_close(bands.values, kind("db4", level=2)(x).values, rtol=0, atol=1e-12)
    torch.testing.assert_close(transform.inverse(bands), x, rtol=0, atol=1e-12)


def test_a_bank_of_ones_own_that_changes_by_an_attribute_is_followed():
    class Gain(wc.FilterBank):
        gain = 1.0

        def analysis(self, x, lengths=None):
            return self.gain * x[:, ::2], x[:, 1::2]

        def synthesis(self, branches, lengths=None, *, ones=None):
            low, high = branches
            return torch.stack([low / self.gain, high], dim=2).flatten(1, 2)

    transform, x = wc.DWT1d(Gain(), level=1), torch.randn(1, 8, 3)
    for gain in (1.0, 4.0):
        transform.filter_banks[0].gain = gain
        bands = transform(x)
        torch.testing.assert_close(bands.values[:, :4], gain * x[:, ::2])
        torch.testing.assert_close(transform.inverse(bands), x)


def test_matrices_of_many_lengths_are_not_all_kept_nor_copied():
    transform = wc.DWT1d("db2", level=2)
    for length in range(16, 116):
        x = torch.randn(1, length, 2)
        torch.testing.assert_close(transform.inverse(transform(x)), x, rtol=0, atol=1e-5)
    assert 0 < len(transform._matrices) <= 16
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert not other._matrices and torch.equal(other(x).values, transform(x).values)


@pytest.mark.parametrize("kind", [wc.DWT1d, wc.WaveletPackets1d, wc.BestBasis1d, wc.DWT2d])
def test_a_transform_compiles_once_for_each_length(kind):
    transform = kind("db2", level=2)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: transform.inverse(transform(x)), fullgraph=True, backend="eager")
    for length in (16, 20, 24):
        x = torch.randn(1, 2, length, 4)
        torch.testing.assert_close(compiled(x), x, rtol=1e-4, atol=1e-5)


def test_positions_of_a_long_signal_are_those_of_its_rows():
    for bank in ("db2", wc.OrthogonalFilterBank("db3"), wc.MBandFilterBank(3)):
        transform = wc.DWT1d(bank, level=2)
        for length in (997, 1000):
            matrix = transform.analysis_matrix(length, torch.empty(0, dtype=torch.float64)).detach().square()
            layout, wraps = transform.layout(length), transform.filter_banks[0].wraps
            centre = zoo.centroids(matrix, layout.support, layout.index, wraps=wraps)
            torch.testing.assert_close(layout.position.double(), centre, rtol=0, atol=1e-3)


def test_sizes_of_the_band_leave_room_for_what_it_reads():
    for branches in (2, 3, 4):
        for reach in range(12):
            size = banded.Sizes.of(branches, reach)
            assert all(part % branches == 0 for part in (size.reach, size.stretch, size.left, size.right, size.half))
            assert size.left >= 3 * reach + branches and size.half >= size.left + size.reach
            assert size.left + size.stretch + size.reach <= 2 * size.half - size.left


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wc.DWT1d("haar", level=1, backend="fft"), "backend='fft' is unknown; allowed: 'auto', 'matrix'"),
        (
            lambda: wc.DWT1d(wc.NeuralLiftingFilterBank(dim=2), level=1, backend="matrix"),
            "backend='matrix' needs a linear bank; allowed: 'auto' and 'cascade'",
        ),
        (
            lambda: wc.DWT1d(wc.OrthogonalFilterBank(heads=2), level=1, backend="banded"),
            "backend='banded' has heads=2; allowed: 1",
        ),
        (
            lambda: wc.DWT1d([wc.OrthogonalFilterBank(heads=2), "haar"], level=2),
            r"filter_bank: heads \[2, 1\] differ",
        ),
        (
            lambda: wc.DWT1d("haar", level=1, backend="matrix")(torch.randn(2, 8, 1), torch.tensor([8, 3])),
            r"backend='matrix' cannot run rows of \(2, 8, 1\) that each have a length of their own; allowed: 'auto'",
        ),
        (
            lambda: wc.WaveletPackets1d("haar", level=1, backend="banded"),
            "backend='banded' has no packets; allowed: 'auto', 'matrix' and 'cascade'",
        ),
        (
            lambda: wc.DWT1d(wc.MBandFilterBank(3), level=4).layout(64),
            r"allowed: 1 to floor\(log3\(chunk_length\)\) = 3",
        ),
        (lambda: wc.DWT2d("haar", level=0), "level=0 is too small"),
        (lambda: wc.DWT2d("haar", level=4).layout(8), "level=4 is too deep for chunk_length=8"),
        (lambda: wc.DWT2d(wc.MBandFilterBank(3), level=1), "has 3 branches; allowed: 2"),
        (lambda: wc.DWT2d("haar", level=2)(torch.randn(1, 8, 6)), r"dim=6 is not divisible by 2 \*\* level = 4"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["haar", "db4", "lattice-db4", "three-bands"])
def test_a_nan_comes_out_where_it_is_read_and_never_as_a_number(name):
    transform = perturbed(BANKS[name], 2)  # so that no weight is zero only because it started so
    transform.backend = "cascade"
    x = torch.randn(1, 40, 2, dtype=torch.float64)
    x[0, 17, 1] = torch.nan
    with torch.no_grad():
        reads = transform.analysis_matrix(40, x)[:, 17].abs() > 1e-12
        nan = transform(x).values.isnan()
    assert reads.any() and not reads.all()
    assert not nan[..., 0].any() and torch.equal(nan[0, :, 1], reads)
    transform.backend = "matrix"
    assert transform(x).values[0, reads, 1].isnan().all()


@pytest.mark.parametrize("backend", ["cascade", "matrix", "banded"])
@pytest.mark.parametrize("name", ["db4", "lattice-db4"])
def test_torch_func_sees_through_every_form(backend, name):
    transform = perturbed(BANKS[name], 2)
    transform.backend = backend
    x, tangent = torch.randn(2, 2, 301, 1, dtype=torch.float64).unbind()
    parameters = dict(transform.named_parameters())
    there_and_back = lambda p, x: (  # noqa: E731
        torch.func.functional_call(transform, p, (x,)).values.tanh().sum() + transform.inverse(transform(x)).sum()
    )
    x.requires_grad_()
    there_and_back(parameters, x).backward()
    found, of_x = torch.func.grad(there_and_back, argnums=(0, 1))(parameters, x.detach())
    torch.testing.assert_close(of_x, x.grad)
    for key, parameter in parameters.items():
        torch.testing.assert_close(found[key], parameter.grad)
    _, moved = torch.func.jvp(lambda x: there_and_back(parameters, x), (x.detach(),), (tangent,))
    torch.testing.assert_close(moved, (x.grad * tangent).sum())
