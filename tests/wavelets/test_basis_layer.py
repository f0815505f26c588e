"""A list of all bases is the oracle of the choice, the packets of each level that of the coefficients."""

import itertools
import math

import pytest
import torch
import zoo
from torch.utils import _pytree as pytree

import wavecomp as wc
from wavecomp.wavelets.basis_layer import BestBasis1d
from wavecomp.wavelets.packets import COSTS

BANKS = {
    "haar": lambda: "haar",
    "db4": lambda: "db4",
    "bior4.4": lambda: "bior4.4",
    "lattice": lambda: wc.OrthogonalFilterBank("db3"),
    "lattice-heads": lambda: wc.OrthogonalFilterBank("db2", heads=2),
    "lifting": lambda: wc.LiftingFilterBank("bior2.2"),
    "three-bands": lambda: wc.MBandFilterBank(3),
    "mixed": lambda: [wc.OrthogonalFilterBank("db2"), wc.MBandFilterBank(3), wc.MBandFilterBank(2)],
    "neural": lambda: wc.NeuralLiftingFilterBank(dim=4),
}
each_bank = pytest.mark.parametrize("bank", BANKS)
each_cost = pytest.mark.parametrize("cost", COSTS)


def made(bank, *, level=3, **keywords):
    return zoo.perturb(BestBasis1d(BANKS[bank](), level=level, **keywords).double(), std=0.2)


def signals(length, seed=0):
    """Chunks that hold different things, ``(7, length, 4)``."""
    t = torch.arange(length, dtype=torch.float64)
    noise = torch.randn(7, length, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shapes = torch.stack(
        [
            torch.zeros(length),  # noise alone
            torch.cos(2.9 * t),
            torch.cos(1.3 * t),
            (t == length // 3).double() + 0.7 * (t == length - 2),
            torch.cos(0.03 * t * t),
            torch.cos(2.2 * t) * (t > length // 2),
            (t // 5 % 2),
        ]
    )
    loud = torch.tensor([1.0] + 6 * [0.03], dtype=torch.float64)[:, None, None]
    return shapes[..., None] * torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=torch.float64) + loud * noise


def ragged(x, lengths):
    x = x.clone()
    x[torch.arange(x.shape[-2]) >= lengths[..., None]] = torch.nan
    return x


def trees(names, name):
    """All bases below a node, as lists of names, the approximation of each tree split to the end."""
    below = [n for n in names if len(n) == len(name) + 1 and n.startswith(name)]
    if not below or name.strip("a0"):
        yield [name]
    if below:
        for parts in itertools.product(*(list(trees(names, n)) for n in below)):
            yield [n for part in parts for n in part]


def price(cost, vectors, energy, samples):
    """What these coefficient vectors cost, one after the other."""
    total = 0.0
    for share in (vectors.square().sum(-1) / energy).tolist():
        if cost == "shannon":
            total -= share * math.log(share) if share > 0 else 0
        elif cost == "log_energy":
            total += math.log(1 + 1e6 * samples * share)
        else:
            total += math.sqrt(share)
    return total


def chosen(bands, *row):
    """The names of the nodes that a chunk keeps, in order of frequency."""
    layout = bands.layout
    kept = layout.band[row][bands.mask[row]]
    return list(dict.fromkeys(layout.names[band] for band in kept.tolist()))


@each_cost
@pytest.mark.parametrize("bank", ["haar", "db4", "lattice", "three-bands", "mixed"])
@pytest.mark.parametrize("length", [32, 29])
def test_the_choice_is_the_cheapest_of_all_trees(bank, length, cost):
    transform = made(bank, cost=cost)
    x = signals(length)
    bands = transform(x)
    names, level = bands.layout.names, transform.level
    nodes = {}
    for depth in range(1, level + 1):
        banks = list(transform.filter_banks)
        packets = wc.WaveletPackets1d(banks[0] if len(banks) == 1 else banks[:depth], level=depth)
        for name, part in zip(
            [n for n in names if len(n) == depth], packets(x).values.split(packets.layout(length).counts, 1)
        ):
            nodes[name] = part.detach()
    assert set(nodes) == set(names)
    seen = set()
    for row in range(len(x)):
        costs = {name: price(cost, node[row], x[row].square().sum(), length) for name, node in nodes.items()}
        totals = {tuple(tree): sum(costs[name] for name in tree) for tree in trees(names, "")}
        mine = tuple(chosen(bands, row))
        assert totals[mine] <= min(totals.values()) + 1e-9
        torch.testing.assert_close(bands.values[row], torch.cat([nodes[name][row] for name in mine]))
        seen.add(mine)
    assert len(totals) >= 9 and len(seen) >= 3


def test_a_tone_is_split_to_the_end_and_a_click_stays_whole():
    t = torch.arange(64)
    for cost in COSTS:
        bands = BestBasis1d("db4", level=4, cost=cost)(
            torch.stack([torch.cos(math.pi * 0.9 * t), (t == 40).float()])[..., None]
        )
        tone, click = bands.layout.level
        loudest = bands.values[0, :, 0].abs() > 1
        assert loudest.sum() >= 2 and (tone[loudest] == 4).all()
        assert (click[32:] == 1).all() and (click[:4] == 4).all()


@each_bank
@pytest.mark.parametrize("length", [27, 32, 45])
def test_every_chunk_is_inverted_exactly_whatever_it_chose(bank, length):
    transform = made(bank)
    x = signals(length)[:, None]
    bands = transform(x)
    assert bands.dense and bands.layout.level.shape == (7, 1, length)
    assert len({tuple(row.flatten().tolist()) for row in bands.layout.level}) >= 3
    torch.testing.assert_close(transform.inverse(bands), x, rtol=0, atol=1e-11)
    dwt = wc.DWT1d(
        list(transform.filter_banks) * (transform.level // len(transform.filter_banks)), level=transform.level
    )
    first = dwt.layout(length).counts[0]
    torch.testing.assert_close(bands.values[..., :first, :], dwt(x).values[..., :first, :], rtol=0, atol=1e-12)
    for to_level in range(transform.level + 1):
        expected = dwt.inverse(dwt(x), to_level=to_level)
        torch.testing.assert_close(transform.inverse(bands, to_level=to_level), expected, rtol=0, atol=1e-11)


@each_bank
@pytest.mark.parametrize("length", [27, 32])
def test_short_chunks_are_exact_and_equal_the_chunk_alone(bank, length):
    transform = made(bank)
    lengths = torch.tensor([[length, n] for n in range(length + 1)])
    whole = signals(length)[torch.arange(2 * length + 2) % 7].view(length + 1, 2, length, 4)
    x = ragged(whole, lengths)
    bands = transform(x, lengths)
    assert torch.isfinite(bands.values).all() and not bands.values[~bands.mask].any()
    assert torch.equal(bands.mask.sum(-1), lengths)
    torch.testing.assert_close(transform.inverse(bands), torch.nan_to_num(x), rtol=0, atol=1e-11)
    rows = transform(x.flatten(0, 1), lengths.flatten())
    assert torch.equal(rows.layout.band, bands.layout.band.flatten(0, 1))
    torch.testing.assert_close(rows.values, bands.values.flatten(0, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(transform.inverse(rows), torch.nan_to_num(x).flatten(0, 1), rtol=0, atol=1e-11)
    for n in range(transform.rates[-1], length + 1, 2):
        alone = transform(x[n, 1:, :n])
        there = bands.mask[n, 1]
        assert chosen(bands, n, 1) == chosen(alone, 0)
        torch.testing.assert_close(bands.values[n, 1][there], alone.values[0], rtol=0, atol=1e-11)
        for name in ("level", "index", "needs", "support", "frequency"):
            assert torch.equal(getattr(bands.layout, name)[n, 1][there], getattr(alone.layout, name)[0]), name
    for to_level in range(1, transform.level + 1):
        coarse = transform.inverse(bands, to_level=to_level)
        for n in range(transform.rates[-1], length + 1, 2):
            alone = transform.inverse(transform(x[n, 1:, :n]), to_level=to_level)[0]
            torch.testing.assert_close(coarse[n, 1, : len(alone)], alone, rtol=0, atol=1e-11)
            assert not coarse[n, 1, len(alone) :].any()


@each_cost
def test_a_short_chunk_pays_what_it_pays_alone(cost):
    transform = made("db4", cost=cost)
    lengths = torch.arange(8, 33)
    x = ragged(signals(32)[torch.arange(25) % 7], lengths).nan_to_num()

    def total(x, lengths=None):
        """Of each level."""
        levels = transform._split(x, lengths).unflatten(1, (3, -1))
        return transform._costs(levels, x, lengths).sum(-1)

    together = total(x, lengths)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[row], total(x[row : row + 1, :n])[0], rtol=0, atol=1e-9)


def test_no_chunk_has_influence_on_another():
    transform = made("lattice")
    x = torch.randn(2, 3, 32, 4, dtype=torch.float64)
    other = x.clone()
    other[0, 1] = signals(32)[1]
    before, after = transform(x), transform(other)
    differ = (before.values != after.values).any(-1) | (before.layout.band != after.layout.band)
    assert differ.any(-1).tolist() == [[False, True, False], [False, False, False]]


@pytest.mark.parametrize("bank", ["haar", "bior4.4", "lattice", "three-bands", "neural"])
def test_the_layout_of_a_chunk_says_what_the_rows_of_its_transform_say(bank):
    transform = BestBasis1d(BANKS[bank](), level=3).double()
    x = signals(48).requires_grad_()
    bands = transform(x)
    layout = bands.layout
    assert len({tuple(row.tolist()) for row in layout.level}) >= 3
    t = torch.arange(48, dtype=torch.float64)
    angles = torch.linspace(0, math.pi, 257, dtype=torch.float64)[:, None] * t
    for place in range(48):
        power = spectrum = 0
        for channel in range(4):
            (rows,) = torch.autograd.grad(bands.values[:, place, channel].sum(), x, retain_graph=True)
            power = power + rows.square().sum(-1)
            for wave in (angles.cos(), angles.sin()):
                spectrum = spectrum + (wave @ rows).square().sum(-1)
        wraps = transform.filter_banks[0].wraps
        centre = zoo.centroids(power, layout.support[:, place], layout.index[:, place], wraps=wraps)
        torch.testing.assert_close(layout.position[:, place].double(), centre, rtol=0, atol=1e-4)
        loudest = spectrum @ torch.linspace(0, 0.5, 257, dtype=torch.float64) / spectrum.sum(-1)
        inside = (layout.position[:, place] > 12) & (layout.position[:, place] < 36)
        assert ((loudest - layout.frequency[:, place]).abs() < 0.12)[inside].all()
    packets = {depth: wc.WaveletPackets1d(BANKS[bank](), level=depth).layout(48) for depth in (1, 2, 3)}
    for row in range(7):
        for place, level in enumerate(layout.level[row].tolist()):
            for name in ("level", "index", "needs", "support", "frequency"):
                assert getattr(layout, name)[row, place] == getattr(packets[level], name)[place]
    sizes = torch.tensor(layout.counts)[layout.band]
    assert (layout.index < sizes).all() and layout.always.sum(-1).tolist() == [layout.counts[0]] * 7


def test_names_and_counts_are_of_all_nodes_and_the_whole_trees_layout_comes_first():
    transform = BestBasis1d("haar", level=2)
    layout = transform(torch.randn(1, 2, 10, 3)).layout
    assert layout.names == ("aa", "ad", "dd", "da", "a", "d")
    assert layout.counts == (3, 2, 2, 3, 5, 5) and layout.length == len(layout) == 10
    whole = transform.layout(10)
    assert whole.names == layout.names[:4] and whole.counts == layout.counts[:4] and len(whole) == 10
    silent = transform(torch.zeros(1, 10, 3)).layout
    for name in ("level", "band", "index", "needs", "position", "support", "frequency"):
        assert torch.equal(getattr(silent, name)[0], getattr(whole, name)), name


@pytest.mark.parametrize("bank", ["haar", "db4", "lattice", "lattice-heads", "three-bands"])
def test_energy_of_an_orthogonal_bank_adds_up_over_the_nodes(bank):
    transform = BestBasis1d(BANKS[bank](), level=2)
    x = signals(29)[:, None].float()
    bands = transform(x)
    energy = bands.energy()
    assert energy.shape == (7, 1, len(bands.layout.names))
    torch.testing.assert_close(energy.sum(-1), x.square().sum((-1, -2)))
    assert ((energy > 0).sum(-1) >= transform._branches[0]).all()
    for row in range(7):
        silent = [i for i, name in enumerate(bands.layout.names) if name not in chosen(bands, row, 0)]
        assert not energy[row, 0, silent].any()


@each_bank
def test_gradients_against_finite_differences(bank):
    transform = made(bank)
    parameters = tuple(p for p in transform.parameters() if p.numel())
    x = signals(27)[[0, 3], None].requires_grad_()
    lengths = torch.tensor([[27], [19]])
    functions = (
        lambda x, *_: transform(x).values,
        lambda x, *_: transform(x, lengths).values,
        lambda x, *_: transform.inverse(transform(x).replace(values=x.square())),
        lambda x, *_: transform.inverse(transform(x, lengths).replace(values=x.square())),
    )
    for function in functions:
        assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(functions[0], (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("bank", ["haar", "db4", "lattice", "lattice-heads", "lifting", "mixed"])
@pytest.mark.parametrize("length", [24, 33])
def test_the_matrix_is_the_cascade_in_value_and_every_gradient(bank, length):
    transform = made(bank)
    x = signals(length)[:, None]
    upstream = torch.randn_like(x)
    parameters = [p for p in transform.parameters() if p.numel()]
    found = []
    for backend in ("cascade", "matrix"):
        transform.backend = backend
        leaf = x.clone().requires_grad_()
        bands = transform(leaf)
        out = [bands.values, *torch.autograd.grad(bands.values, [leaf, *parameters], upstream)]
        values = bands.values.detach().requires_grad_()
        for to_level in (0, 1):
            back = transform.inverse(bands.replace(values=values), to_level=to_level)
            wanted = [values, *parameters]
            out += [back, *torch.autograd.grad(back, wanted, upstream[..., : back.shape[-2], :], allow_unused=True)]
        found.append([f for f in out if f is not None])
    assert len(found[0]) == len(found[1])
    for expected, mine in zip(*found):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-10)


def test_long_chunks_go_step_by_step():
    transform = BestBasis1d("db2", level=3)
    assert transform.form(torch.zeros(1, 1, 511, 1)) == "matrix"
    assert transform.form(torch.zeros(1, 1, 512, 1)) == "cascade"
    lengths = torch.tensor([[600, 600, 77]])
    x = ragged(torch.randn(1, 3, 600, 2, dtype=torch.float64), lengths)
    torch.testing.assert_close(transform.inverse(transform(x, lengths)), torch.nan_to_num(x), rtol=0, atol=1e-11)


def test_silent_flat_loud_and_broken_chunks():
    x = torch.zeros(5, 1, 32, 4)
    x[1], x[2], x[3], x[4, :, 7] = 1, 1e-30, 1e15, torch.nan
    x.requires_grad_()
    transform = BestBasis1d("db2", level=3)
    for cost in COSTS:
        transform.cost = cost
        bands = transform(x)
        # nothing but rounding is in the details: no reason to keep any node whole
        assert (bands.layout.level == 3).all()
        assert torch.isfinite(bands.values[:4]).all() and bands.values[4].isnan().any()
        bands.values[:4].sum().backward()
        assert torch.isfinite(x.grad[:4]).all()
        back = transform.inverse(bands)
        torch.testing.assert_close(back[:4], x[:4].detach(), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("backend", ["matrix", "cascade"])
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 2e-6)])
def test_half_precision_and_autocast_stay_close(backend, dtype, bound):
    transform = BestBasis1d("db4", level=3)
    transform.backend = backend
    x = signals(40)[1:, None]
    bands = transform(x.to(dtype))
    assert bands.values.dtype == transform.inverse(bands).dtype == dtype
    assert (transform.inverse(bands).double() - x).abs().max() <= 3 * bound * x.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transform(x.float())
    # rounding may tip a choice: each is compared with what the exact transform is in that basis
    for mine, limit in ((bands, bound), (mixed, 2e-2)):
        exact = torch.stack([wc.WaveletPackets1d("db4", level=d)(x).values for d in (1, 2, 3)])
        expected = exact.gather(0, (mine.layout.level - 1)[None, ..., None].expand(1, *x.shape))[0]
        assert (mine.values.double() - expected).abs().max() <= limit * expected.abs().max()
        assert (mine.layout.level == transform(x).layout.level).double().mean() > 0.5


@pytest.mark.parametrize("bank, backend, short", [("haar", "matrix", True), ("lattice", "cascade", False)])
def test_it_compiles_without_a_graph_break(bank, backend, short):
    transform = made(bank, level=2)
    transform.backend = backend
    lengths = torch.tensor([[27]] * 5 + [[9], [0]]) if short else None
    torch._dynamo.reset()

    def there_and_back(x):
        bands = transform(x, lengths)
        return bands, transform.inverse(bands)

    compiled = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")
    x = signals(27)[:, None].requires_grad_()
    found, expected = compiled(x), there_and_back(x)
    for mine, plain in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected)):
        torch.testing.assert_close(mine, plain)
    found[1].sum().backward()
    there = torch.arange(27) < (lengths if short else torch.tensor([[27]]))[..., None]
    torch.testing.assert_close(x.grad, there[..., None].expand(x.shape).double())


def test_learnable_banks_learn_through_the_coefficients_and_keep_their_layout():
    transform = BestBasis1d(wc.OrthogonalFilterBank("db3"), level=3)
    before = transform.layout(32).position.clone()
    x = signals(32).float()
    assert list(transform.state_dict()) == list(wc.DWT1d(wc.OrthogonalFilterBank("db3"), level=3).state_dict())
    optimizer = torch.optim.Adam(transform.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        bands = transform(x)
        losses.append(torch.where(bands.layout.always[..., None], 0, bands.values).abs().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    transform._layouts.clear()
    transform._tables.clear()
    assert torch.equal(transform.layout(32).position, before)
    with torch.no_grad():
        torch.testing.assert_close(transform.inverse(transform(x)), x, rtol=1e-4, atol=1e-5)


def test_no_chunks_and_no_rows():
    transform = BestBasis1d("haar", level=2)
    for shape in ((0, 3, 8, 2), (2, 0, 8, 2), (0, 8, 2)):
        for lengths in (None, torch.zeros(shape[:-2], dtype=torch.long)):
            assert transform.inverse(transform(torch.zeros(shape), lengths)).shape == shape


@pytest.mark.gpu
def test_on_the_gpu_it_equals_the_cpu_and_never_waits():
    transform = BestBasis1d(wc.OrthogonalFilterBank("db2"), level=3)
    x = signals(27)[:, None].float()
    lengths = torch.tensor([[27]] * 5 + [[9], [0]])
    expected = transform(x, lengths)
    transform.cuda()
    x, lengths = x.cuda(), lengths.cuda()
    transform.inverse(transform(x, lengths))
    torch.cuda.set_sync_debug_mode("error")
    try:
        bands = transform(x, lengths)
        back = transform.inverse(bands)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(bands.layout.band.cpu(), expected.layout.band)
    torch.testing.assert_close(bands.values.cpu(), expected.values, rtol=1e-4, atol=1e-5)
    mask = (torch.arange(27, device="cuda") < lengths[..., None])[..., None]
    torch.testing.assert_close(back, torch.where(mask, x, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: BestBasis1d("haar", level=0), ValueError, "level=0 is too small"),
        (lambda: BestBasis1d(["haar"], level=2), ValueError, "filter_bank lists 1 banks for level=2"),
        (
            lambda: BestBasis1d("haar", level=1, cost="l0"),
            ValueError,
            "cost='l0' is unknown; allowed: 'shannon', 'log_energy', 'l1'",
        ),
        (lambda: BestBasis1d("haar", level=4).layout(8), ValueError, "level=4 is too deep for chunk_length=8"),
        (lambda: BestBasis1d("haar", level=4)(torch.randn(1, 8, 2)), ValueError, "level=4 is too deep"),
        (lambda: BestBasis1d("haar", level=1)(torch.randn(8, 2)), ValueError, r"BestBasis1d: x has shape \(8, 2\)"),
        (lambda: BestBasis1d("haar", level=1)(torch.ones(1, 8, 2).long()), TypeError, "allowed: floating point"),
        (
            lambda: BestBasis1d("haar", level=1)(torch.randn(1, 3, 8, 2), torch.tensor([[7, 8, 5]])),
            ValueError,
            "a row has 2 short chunks; allowed: one, its last",
        ),
        (
            lambda: BestBasis1d("haar", level=1).inverse(
                BestBasis1d("haar", level=1)(torch.randn(1, 8, 2)), to_level=2
            ),
            ValueError,
            "to_level=2 is out of range; allowed: 0 to 1",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bands_of_another_tree_are_refused_and_those_of_a_part_are_not():
    x = torch.randn(1, 2, 16, 4)
    two, three = wc.BestBasis1d("haar", level=2), wc.BestBasis1d("haar", level=3)
    with pytest.raises(ValueError, match=r"bands are aaa, .*; allowed: nodes of a tree of level=2"):
        two.inverse(three(x))
    for transform in (two, wc.DWT1d("haar", level=3), wc.DWT1d("haar", level=2), wc.WaveletPackets1d("haar", level=3)):
        torch.testing.assert_close(three.inverse(transform(x)), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_basis_does_not_depend_on_how_loud_a_chunk_is(scale):
    x = torch.randn(4, 3, 16, 4)
    transform = wc.BestBasis1d("db2", level=3)
    assert torch.equal(transform(x * scale).layout.level, transform(x).layout.level)
