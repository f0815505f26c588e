import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

import wavecomp as wc


def step_by_step(transform, x):
    """The slow truth: one bank after another."""
    details = []
    banks = list(transform.filter_banks) * (transform.level if len(transform.filter_banks) == 1 else 1)
    for bank in banks:
        x, detail = bank.analysis(x)
        details.insert(0, detail)
    return torch.cat([x, *details], dim=-2)


@settings(max_examples=50, deadline=None)
@given(length=st.integers(2, 70), wavelet=st.sampled_from(["haar", "db2", "db4", "bior2.2", "bior4.4"]), data=st.data())
def test_the_matrix_is_the_cascade_in_value_and_gradient(length, wavelet, data):
    level = data.draw(st.integers(1, length.bit_length() - 1))
    transform = wc.DWT1d(wavelet, level=level)
    x = torch.randn(2, 3, length, 5, dtype=torch.float64, requires_grad=True)
    bands = transform(x)
    slow = step_by_step(transform, x)
    torch.testing.assert_close(bands.values, slow)
    upstream = torch.randn_like(slow)
    for mine, truth in zip(torch.autograd.grad(bands.values, x, upstream), torch.autograd.grad(slow, x, upstream)):
        torch.testing.assert_close(mine, truth)
    torch.testing.assert_close(transform.inverse(bands), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize("length", [8, 13, 16, 63])
def test_ragged_tails_are_exact_and_equal_the_short_chunk_alone(wavelet, length):
    transform = wc.DWT1d(wavelet, level=3)
    lengths = torch.tensor([[length, n] for n in range(length + 1)])
    x = torch.randn(length + 1, 2, length, 3, dtype=torch.float64)
    mask = torch.arange(length) < lengths[..., None]
    x[~mask] = torch.nan
    bands = transform(x, lengths)
    assert not bands.values[~bands.mask].any()
    assert torch.equal(bands.mask.sum(-1), lengths)
    torch.testing.assert_close(transform.inverse(bands), torch.where(mask[..., None], x, 0), rtol=0, atol=1e-9)
    for n in range(1, length + 1):
        alone = step_by_step(transform, x[n, 1:, :n])
        torch.testing.assert_close(bands.values[n, 1][bands.mask[n, 1]], alone[0], rtol=0, atol=1e-12)


def test_rows_without_a_chunk_axis_may_all_be_short():
    transform = wc.DWT1d("db2", level=2)
    lengths = torch.tensor([9, 4, 0, 1])
    x = torch.randn(4, 9, 2, dtype=torch.float64)
    x[torch.arange(9) >= lengths[:, None]] = torch.nan
    back = transform.inverse(transform(x, lengths))
    torch.testing.assert_close(back, torch.nan_to_num(x), rtol=0, atol=1e-12)


def test_a_bank_that_is_no_matrix_runs_step_by_step():
    class Cubic(wc.WaveletFilterBank):
        linear = False

        def analysis(self, x, lengths=None):
            low, high = super().analysis(x, lengths)
            return low, high + low[..., : high.shape[-2], :] ** 3

        def synthesis(self, branches, lengths=None):
            low, high = branches
            return super().synthesis((low, high - low[..., : high.shape[-2], :] ** 3), lengths)

    transform = wc.DWT1d(Cubic("haar"), level=2)
    x = torch.randn(2, 3, 8, 2, dtype=torch.float64)
    bands = transform(x)
    torch.testing.assert_close(bands.values, step_by_step(transform, x))
    torch.testing.assert_close(transform.inverse(bands), x)
    lengths = torch.tensor([[8, 5, 0], [8, 8, 3]])
    mask = (torch.arange(8) < lengths[..., None])[..., None]
    torch.testing.assert_close(transform.inverse(transform(x, lengths)), torch.where(mask, x, 0))


def test_inverse_to_a_level_is_the_approximation_there():
    x = torch.randn(2, 1, 32, 3, dtype=torch.float64)
    bands = wc.DWT1d("db2", level=4)(x)
    for level in range(5):
        coarse = wc.DWT1d("db2", level=4).inverse(bands, to_level=level)
        expected = x if level == 0 else wc.DWT1d("db2", level=level)(x).values[..., : 32 >> level, :]
        torch.testing.assert_close(coarse, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="to_level=5 is out of range; allowed: 0 to 4"):
        wc.DWT1d("db2", level=4).inverse(bands, to_level=5)


def test_inverse_to_a_level_of_a_short_chunk_is_the_approximation_of_that_chunk_alone():
    transform, first = wc.DWT1d("haar", level=2), wc.DWT1d("haar", level=1)
    lengths = torch.tensor([[16, 13], [16, 16], [7, 0]])
    x = torch.randn(3, 2, 16, 3, dtype=torch.float64) * (torch.arange(16) < lengths[..., None])[..., None]
    coarse = transform.inverse(transform(x, lengths), to_level=1)
    expected = first(x, lengths)
    assert coarse.shape == (3, 2, 8, 3)
    torch.testing.assert_close(coarse, expected.values[..., :8, :], rtol=0, atol=1e-12)


def test_a_bank_per_level():
    transform = wc.DWT1d(["haar", "db2"], level=2)
    x = torch.randn(1, 1, 16, 2, dtype=torch.float64)
    torch.testing.assert_close(transform(x).values, step_by_step(transform, x))
    torch.testing.assert_close(transform.inverse(transform(x)), x)


def test_energy_adds_up_and_constants_have_no_details():
    transform = wc.DWT1d("db2", level=3)
    x = torch.randn(2, 3, 24, 5)
    energy = transform(x).energy()
    assert energy.shape == (2, 3, 4)
    torch.testing.assert_close(energy.sum(-1), x.square().sum((-1, -2)))
    assert transform(torch.ones(1, 1, 24, 5)).energy()[..., 1:].max() < 1e-9


def test_layout_names_every_coefficient():
    layout = wc.DWT1d("haar", level=2).layout(8)
    assert layout.names == ("cA2", "cD2", "cD1")
    assert layout.level.tolist() == [2, 2, 2, 2, 1, 1, 1, 1]
    assert layout.index.tolist() == [0, 1, 0, 1, 0, 1, 2, 3]
    assert layout.position.tolist() == [1.5, 5.5, 1.5, 5.5, 0.5, 2.5, 4.5, 6.5]
    assert layout.support.tolist() == [4.0] * 4 + [2.0] * 4
    assert layout.frequency.tolist() == [1 / 16] * 2 + [3 / 16] * 2 + [3 / 8] * 4
    assert len(layout) == 8


@pytest.mark.parametrize("make", [wc.OrthogonalFilterBank, lambda: wc.LiftingFilterBank("bior2.2"), lambda: "haar"])
def test_positions_are_the_centroids_of_the_rows(make):
    transform = wc.DWT1d(make(), level=4)
    matrix = transform.analysis_matrix(64, torch.empty(0, dtype=torch.float64))
    power = matrix.square()
    centroid = (power * torch.arange(64)).sum(-1) / power.sum(-1)
    torch.testing.assert_close(transform.layout(64).position.double(), centroid, rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [45, 64, 301])
@pytest.mark.parametrize("bank", ["db2", "db4", "sym5", "bior2.2", "bior4.4", wc.MBandFilterBank(3)], ids=str)
def test_positions_of_rows_that_wrap_lie_where_these_read_and_in_order(bank, length):
    transform = wc.DWT1d(bank, level=2)
    layout = transform.layout(length)
    assert layout.position.min() >= 0 and layout.position.max() <= length - 1
    for position in layout.position.split(list(layout.counts)):
        assert (position.diff() >= 0).all()
    power = transform.analysis_matrix(length, torch.empty(0, dtype=torch.float64)).square()
    away = (torch.arange(length) - layout.position[:, None]).abs()
    away = torch.minimum(away, length - away)  # around the ends
    assert ((power * away).sum(-1) / power.sum(-1) < 2 * layout.support).all()


def test_half_precision_stays_close():
    x = torch.randn(2, 2, 64, 8)
    transform = wc.DWT1d("db4", level=3)
    exact = transform(x.double()).values
    for dtype, bound in ((torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-6)):
        values = transform(x.to(dtype)).values
        assert values.dtype == dtype
        assert (values.double() - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: wc.DWT1d("haar", level=0), ValueError, "level=0 is too small"),
        (lambda: wc.DWT1d("haar", level=2.0), TypeError, "level=2.0 is a float; allowed: int"),
        (lambda: wc.DWT2d("haar", level=1.5), TypeError, "level=1.5 is a float; allowed: int"),
        (
            lambda: wc.DWT1d(wc.OrthogonalFilterBank("db2", heads=3), level=1)(torch.randn(1, 8, 4)),
            ValueError,
            "x has 4 channels; allowed: a multiple of heads=3",
        ),
        (
            lambda: wc.DWT1d("haar", level=1)(torch.randn(1, 8, 2), torch.tensor([3.5])),
            TypeError,
            "lengths is of torch.float32; allowed: a tensor of torch.int64 or torch.int32",
        ),
        (
            lambda: wc.DWT1d("haar", level=1)(torch.randn(1, 200, 2), torch.tensor([101]).to(torch.uint8)),
            TypeError,
            "lengths is of torch.uint8; allowed",
        ),
        (
            lambda: wc.DWT1d("haar", level=3).inverse(wc.DWT1d("haar", level=2)(torch.randn(1, 16, 2))),
            ValueError,
            "bands are cA2, cD2, cD1; allowed: cA3, cD3, cD2, cD1",
        ),
        (
            lambda: wc.DWT1d("haar", level=2).inverse(wc.WaveletPackets1d("haar", level=2)(torch.randn(1, 16, 2))),
            ValueError,
            "bands are aa, ad, dd, da; allowed: cA2, cD2, cD1",
        ),
        (lambda: wc.DWT1d("haar", level=1)(torch.randn(1, 8, 2), [3]), TypeError, "lengths is of list; allowed"),
        (lambda: wc.DWT1d(["haar"], level=2), ValueError, "filter_bank lists 1 banks for level=2"),
        (lambda: wc.DWT1d("haar", level=4).layout(8), ValueError, r"level=4 is too deep for chunk_length=8; .* = 3"),
        (lambda: wc.DWT1d("haar", level=4)(torch.randn(1, 8, 2)), ValueError, "level=4 is too deep for chunk_length=8"),
        (lambda: wc.DWT1d("haar", level=1)(torch.randn(8, 2)), ValueError, r"x has shape \(8, 2\); allowed"),
        (lambda: wc.DWT1d("haar", level=1)(torch.ones(1, 8, 2).long()), TypeError, "int64; allowed: floating point"),
        (
            lambda: wc.DWT1d("haar", level=1)(torch.randn(2, 8, 2), torch.tensor([8, 100])),
            ValueError,
            "lengths holds 100; allowed: 0 to 8",
        ),
        (
            lambda: wc.DWT1d("haar", level=1)(torch.randn(1, 3, 8, 2), torch.tensor([[7, 8, 5]])),
            ValueError,
            "a row has 2 short chunks; allowed: one, its last",
        ),
        (
            lambda: wc.DWT1d("haar", level=1)(torch.randn(1, 8, 2), torch.tensor([8, 8])),
            ValueError,
            r"lengths has shape \(2,\), expected \(1,\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@torch.no_grad()
def test_a_matrix_follows_filters_that_change_by_whatever_way():
    x = torch.randn(1, 3, 16, 4)
    transform = wc.DWT1d(wc.OrthogonalFilterBank("db4"), level=2)
    before = transform(x).values
    transform.filter_banks[0].angles.data.copy_(torch.tensor([[0.3, 0.2, 0.1]]))  # as averages of weights come in
    cascade = wc.DWT1d(transform.filter_banks[0], level=2, backend="cascade")
    torch.testing.assert_close(transform(x).values, cascade(x).values)
    assert not torch.allclose(transform(x).values, before)
    transform.filter_banks[0] = wc.WaveletFilterBank("db2")
    torch.testing.assert_close(transform(x).values, wc.DWT1d("db2", level=2)(x).values)


@pytest.mark.parametrize("name, make", zoo.every_bank())
@torch.no_grad()
def test_autocast_leaves_no_trace_in_a_matrix(name, make):
    transform = wc.DWT1d(make(), level=2)
    if not transform.linear:
        return
    x = torch.randn(1, 2, 18, 12)
    expected = transform.analysis_matrix(18, x).clone()
    fresh = wc.DWT1d(make(), level=2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = fresh.analysis_matrix(18, x)
        fresh(x)
    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(fresh.analysis_matrix(18, x), expected)


def test_a_transform_that_was_built_without_versions_runs():
    with torch.inference_mode():
        transform = wc.DWT1d(wc.OrthogonalFilterBank("db2"), level=2)
        x = torch.randn(1, 2, 16, 4)
        torch.testing.assert_close(transform.inverse(transform(x)), x)


def test_shapes_are_known_without_values():
    transform = wc.DWT1d("db2", level=2)
    assert transform(torch.empty(2, 3, 16, 4, device="meta")).values.shape == (2, 3, 16, 4)


class Scaled(wc.FilterBank):
    """Haar, its coefficients times a number that is no parameter."""

    def __init__(self, *, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.haar = wc.WaveletFilterBank("haar")

    def analysis(self, x, lengths=None):
        return tuple(branch * self.scale for branch in self.haar.analysis(x, lengths))

    def synthesis(self, branches, lengths=None, *, ones=None):
        return self.haar.synthesis([branch / self.scale for branch in branches], lengths)


@torch.no_grad()
def test_a_matrix_follows_numbers_that_are_no_parameters():
    x = torch.randn(1, 3, 16, 4)
    transform, other = (wc.DWT1d(Scaled(scale=scale), level=1) for scale in (1.0, 2.0))
    before = transform(x).values
    transform.load_state_dict(other.state_dict())
    torch.testing.assert_close(transform(x).values, 2 * before)


def test_the_energy_of_a_band_is_its_own():
    bands = wc.DWT1d("haar", level=2)(torch.full((1, 1, 8, 1), 1e25, dtype=torch.float64))
    torch.testing.assert_close(
        bands.energy()[0, 0], torch.tensor([8e50, 0, 0], dtype=torch.float64), rtol=1e-6, atol=1e38
    )
    values = bands.values.clone()
    values[..., -1, :] = torch.inf
    assert bands.replace(values=values).energy()[0, 0].isfinite().tolist() == [True, True, False]


def test_half_precision_leaves_places_where_they_are():
    bands = wc.DWT1d("haar", level=2)(torch.randn(1, 600, 3))
    half = bands.to(torch.bfloat16)
    assert half.values.dtype == torch.bfloat16
    for name in ("position", "support", "frequency"):
        assert torch.equal(getattr(half.layout, name), getattr(bands.layout, name)), name


class Wrapped(wc.FilterBank):
    """A bank as a user writes one, around another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.reach = inner.reach

    def analysis(self, x, lengths=None):
        return self.inner.analysis(x, lengths)

    def synthesis(self, branches, lengths=None, *, ones=None):
        return self.inner.synthesis(branches, lengths)


def test_what_positions_are_told_of_is_not_what_learns():
    inner = wc.LiftingFilterBank("bior2.2")
    transform = wc.DWT1d(Wrapped(inner), level=2)
    before = transform.layout(32).position.clone()
    assert {parameter.dtype for parameter in inner.parameters()} == {torch.float32}
    zoo.perturb(transform, std=0.5)
    torch.testing.assert_close(wc.DWT1d(Wrapped(inner), level=2).layout(32).position, before)
    transform._layouts.clear()
    torch.testing.assert_close(transform.layout(32).position, before)


def test_building_a_transform_draws_nothing_and_seeds_no_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was seeded"))
    state = torch.get_rng_state()
    wc.DWT1d(wc.OrthogonalFilterBank("db2"), level=2)
    assert torch.equal(torch.get_rng_state(), state)
