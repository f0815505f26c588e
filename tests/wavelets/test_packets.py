"""pywt is the oracle for the tree, a list of all bases for the best one."""

import itertools
import math

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from wavecomp.wavelets.extension import MODES
from wavecomp.wavelets.packets import COSTS, Basis, best_basis, wavelet_packet


def bases(level, path=""):
    """All bases of a tree of this level: the node itself, or any basis of either half."""
    yield (path,)
    if level:
        halves = (list(bases(level - 1, path + letter)) for letter in "ad")
        yield from (low + high for low, high in itertools.product(*halves))


def drawn_basis(draw, level, path=""):
    if not level or draw(st.booleans()):
        return [path]
    return [p for letter in "ad" for p in drawn_basis(draw, level - 1, path + letter)]


def chosen(basis, row):
    return {path for path, kept in basis.kept.items() if kept[row]}


def depth(basis, row):
    """Splits that a sample of the row goes through, on average over frequency."""
    return sum(len(path) / 2 ** len(path) for path in chosen(basis, row))


@pytest.mark.parametrize("mode", MODES)
def test_nodes_have_pywts_numbers_and_order(mode):
    random = np.random.default_rng(0)
    seen = 0
    for wavelet in ("haar", "db3", "db4", "bior2.2"):
        for length in (33, 37, 64):
            x = random.normal(size=(2, length, 2))
            ours = wavelet_packet(torch.from_numpy(x), wavelet, level=3, mode=mode, axis=-2)
            theirs = pywt.WaveletPacket(x, wavelet, mode=mode, maxlevel=3, axis=1)
            for level, order in itertools.product((1, 2, 3), ("natural", "frequency")):
                nodes = theirs.get_level(level, order={"frequency": "freq"}.get(order, order))
                assert ours.paths(level, order=order) == tuple(node.path for node in nodes)
                for node in nodes:
                    assert np.abs(ours[node.path].numpy() - node.data).max() < 1e-10 * max(1, np.abs(node.data).max())
                    seen += 1
            back = ours.inverse()
            assert back.shape == x.shape and np.abs(back.numpy() - x).max() < 1e-8
    assert seen == 4 * 3 * 2 * (2 + 4 + 8)


def test_frequency_order_sorts_the_pass_bands():
    time = torch.arange(256, dtype=torch.float64)
    loudest = []
    for place in range(8):
        tone = torch.cos(math.pi * (place + 0.5) / 8 * time)[:, None]
        tree = wavelet_packet(tone, "db12", level=3, mode="periodization", axis=-2)
        energy = torch.stack([tree[path].square().sum() for path in tree.paths(order="frequency")])
        loudest.append(int(energy.argmax()))
    assert loudest == list(range(8))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    length=st.integers(1, 40),
    level=st.integers(0, 3),
    wavelet=st.sampled_from(["haar", "db2", "bior2.2"]),
    mode=st.sampled_from(MODES),
    data=st.data(),
)
def test_every_basis_gives_the_signal_back(shape, axis, length, level, wavelet, mode, data):
    axis = axis % len(shape) - data.draw(st.sampled_from([0, len(shape)]))
    shape[axis] = max(length, 5) if "reflect" in mode else length  # three levels need two samples each to reflect
    x = torch.randn(shape, dtype=torch.float64)
    tree = wavelet_packet(x, wavelet, level=level, mode=mode, axis=axis)
    assert tree.level == level and len(tree.leaves) == 2**level
    leaves = {path: tree[path] for path in drawn_basis(data.draw, level)}
    torch.testing.assert_close(tree.inverse(leaves), x, rtol=0, atol=1e-7)
    torch.testing.assert_close(tree.inverse(basis=best_basis(tree)), x, rtol=0, atol=1e-7)


def test_the_inverse_reads_the_leaves_that_it_is_given():
    x = torch.randn(2, 33, 3, dtype=torch.float64)
    tree = wavelet_packet(x, "db2", level=2, axis=-2)
    leaves = {path: 3 * tree[path] for path in ("a", "dd", "da")}
    torch.testing.assert_close(tree.inverse(leaves), 3 * x)
    assert not torch.allclose(tree.inverse({**leaves, "dd": tree["dd"] + 1}), 3 * x)
    torch.testing.assert_close(tree.inverse({"": 2 * x}), 2 * x)
    torch.testing.assert_close(pytree.tree_map(lambda node: 2 * node, tree).inverse(), 2 * x)


def cost_by_hand(cost, node, root):
    """One row, in numpy."""
    share = node**2 / (root**2).sum()
    if cost == "shannon":
        return -sum(p * math.log(p) for p in share.flat if p)
    if cost == "log_energy":
        return sum(math.log(1 + 1e6 * root.size * p) for p in share.flat)
    return sum(abs(x) for x in node.flat)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
def test_the_best_basis_is_the_cheapest_of_all(cost, mode):
    time = torch.arange(24, dtype=torch.float64)
    rows = torch.randn(2, 6, 24, 2, dtype=torch.float64)
    rows[0, :4] = torch.sin(time[:, None] * torch.tensor([0.3, 1.1, 2.0, 2.9])[:, None, None])
    rows[1, :4] = rows[1, :4] * torch.exp(-((time[:, None] - 9) ** 2) / torch.tensor([0.3, 2, 9, 40])[:, None, None])
    tree = wavelet_packet(rows, "db2", level=3, mode=mode, axis=-2)
    basis = best_basis(tree, cost=cost)
    everything = [set(paths) for paths in bases(3)]
    assert len(everything) == 26
    winners = set()
    for row in itertools.product(range(2), range(6)):
        nodes = {path: node[row].numpy() for path, node in tree.nodes.items()}
        costs = [sum(cost_by_hand(cost, nodes[path], nodes[""]) for path in paths) for paths in everything]
        assert float(basis.cost[row]) == pytest.approx(min(costs), rel=1e-10)
        mine = everything.index(chosen(basis, row))  # so it is a basis
        assert costs[mine] == pytest.approx(min(costs), rel=1e-10)
        winners.add(mine)
    assert len(winners) > 1
    torch.testing.assert_close(tree.inverse(basis=basis), rows, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cost", COSTS)
def test_a_tone_picks_a_deep_tree_and_a_click_keeps_a_shallow_one(cost):
    x = torch.zeros(2, 128, 1, dtype=torch.float64)
    x[0, :, 0] = torch.sin(2 * math.pi * 21 / 128 * torch.arange(128))
    x[1, 50] = 1
    tree = wavelet_packet(x, "db4", level=4, mode="periodization", axis=-2)
    basis = best_basis(tree, cost=cost)
    assert chosen(basis, 1) == {""}
    assert depth(basis, 0) > 2 and max(map(len, chosen(basis, 0))) == 4


def test_each_row_takes_its_own_leaves():
    x = torch.zeros(2, 64, 1, dtype=torch.float64)
    x[0, :, 0] = torch.sin(2 * math.pi * 11 / 64 * torch.arange(64))
    x[1, 20] = 1
    tree = wavelet_packet(x, "db2", level=3, mode="periodization", axis=-2)
    basis = best_basis(tree)
    assert chosen(basis, 0) != chosen(basis, 1)
    # what a row does not keep, it does not read
    marked = {
        path: torch.where(basis.kept[path][:, None, None], node, 1e3) if path not in tree.leaves else node
        for path, node in tree.nodes.items()
    }
    torch.testing.assert_close(tree.replace(nodes=marked).inverse(basis=basis), x, rtol=0, atol=1e-9)
    swapped = Basis(kept={path: kept.flip(0) for path, kept in basis.kept.items()}, cost=basis.cost)
    assert not torch.allclose(tree.replace(nodes=marked).inverse(basis=swapped), x)


def test_rows_are_what_is_left_of_the_axes():
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64)
    for axis, rows in ((1, (2, 3)), (-1, (2, 16, 3)), (-2, (2, 16))):
        tree = wavelet_packet(x, "haar", level=1, mode="periodization", axis=axis)
        basis = best_basis(tree)
        assert basis.cost.shape == rows and basis.kept["d"].shape == rows and basis.kept["d"].dtype == torch.bool
        torch.testing.assert_close(tree.inverse(basis=basis), x)
    apart = wavelet_packet(x[1, :, 2], "haar", level=1, mode="periodization", axis=-2)
    together = best_basis(wavelet_packet(x, "haar", level=1, mode="periodization", axis=1))
    torch.testing.assert_close(best_basis(apart).cost, together.cost[1, 2])


@pytest.mark.parametrize("cost", COSTS)
def test_silence_has_a_finite_cost_and_gradient(cost):
    x = torch.zeros(2, 16, 1)
    x[1, 3] = 1
    x.requires_grad_()
    basis = best_basis(wavelet_packet(x, "db2", level=2, mode="periodization", axis=-2), cost=cost)
    assert basis.cost[0] == 0 and chosen(basis, 0) == {""}
    (gradient,) = torch.autograd.grad(basis.cost.sum(), x)
    assert basis.cost.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("cost", ["shannon", "log_energy"])
def test_loudness_does_not_count(cost):
    x = torch.randn(8, 32, 2)
    bases = [
        best_basis(wavelet_packet(x * loud, "db2", level=3, mode="periodization", axis=-2), cost=cost)
        for loud in (1, 2.0**-100, 2.0**100)
    ]
    for other in bases[1:]:
        torch.testing.assert_close(other.cost, bases[0].cost)
        assert all(torch.equal(other.kept[path], kept) for path, kept in bases[0].kept.items())


def test_gradients():
    x = torch.randn(2, 11, 2, dtype=torch.float64, requires_grad=True)
    for mode in ("symmetric", "periodization"):

        def there(x, mode=mode):
            return tuple(wavelet_packet(x, "db2", level=2, mode=mode, axis=-2).nodes.values())

        def and_back(x, mode=mode):
            tree = wavelet_packet(x, "db2", level=2, mode=mode, axis=-2)
            return tree.inverse({path: tree[path] ** 2 for path in ("aa", "ad", "d")})

        assert torch.autograd.gradcheck(there, x)
        assert torch.autograd.gradcheck(and_back, x)
    for cost in COSTS:
        assert torch.autograd.gradcheck(
            lambda x, c=cost: best_basis(wavelet_packet(x, "db2", level=2, axis=-2), cost=c).cost, x
        )


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision_stays_close(dtype, bound):
    x = torch.randn(3, 64, 2, dtype=torch.float64)
    exact = wavelet_packet(x, "db2", level=3, axis=-2)
    tree = wavelet_packet(x.to(dtype), "db2", level=3, axis=-2)
    for path, reference in exact.nodes.items():
        assert tree[path].dtype == dtype
        assert (tree[path].double() - reference).abs().max() <= bound * reference.abs().max()
    assert (tree.inverse().double() - x).abs().max() <= bound * x.abs().max()
    basis = best_basis(tree)
    assert basis.cost.dtype == torch.float32
    assert (basis.cost - best_basis(exact).cost).abs().max() <= bound * basis.cost.max()
    assert tree.inverse(basis=basis).dtype == dtype


def shrunk(x, cost):
    tree = wavelet_packet(x, "db2", level=2, mode="periodization", axis=-2)
    nodes = {path: torch.where(node.abs() > 0.5, node, 0) for path, node in tree.nodes.items()}
    return tree.replace(nodes=nodes).inverse(basis=best_basis(tree, cost=cost))


@pytest.mark.parametrize("cost", COSTS)
def test_the_way_there_and_back_compiles_without_a_graph_break(cost):
    torch._dynamo.reset()
    x = torch.randn(2, 13, 3)
    compiled = torch.compile(shrunk, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, cost), shrunk(x, cost))


def test_nothing_waits_for_values():
    x = torch.empty(2, 13, 3, device="meta")  # has none
    for cost in COSTS:
        assert shrunk(x, cost).shape == x.shape


def test_a_tree_moves_and_casts():
    tree = wavelet_packet(torch.randn(2, 8, 1), "haar", level=2, axis=-2).to(torch.float64)
    assert {node.dtype for node in tree.nodes.values()} == {torch.float64}
    assert tree.inverse().dtype == torch.float64


def small(**changes):
    return wavelet_packet(**{"data": torch.randn(2, 8, 1), "wavelet": "haar", "level": 2, "axis": -2} | changes)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: small(level=-1), ValueError, "level=-1 is negative"),
        (lambda: small(wavelet="dbx"), ValueError, "wavelet='dbx' is not a discrete wavelet"),
        (lambda: small(mode="mirror", level=0), ValueError, "mode='mirror' is unknown; allowed"),
        (lambda: small(axis=3, level=0), ValueError, r"axis=3 does not exist .* \(2, 8, 1\)"),
        (lambda: small(data=torch.arange(8)[:, None], level=0), TypeError, "int64; allowed: floating point"),
        (lambda: small(data=torch.randn(0, 1)), ValueError, "empty along axis=-2"),
        (lambda: small()["aaa"], KeyError, "'aaa' is not in this tree; .* up to 2 letters"),
        (lambda: small().paths(3), ValueError, "level=3 is not in this tree; allowed: 0 to 2"),
        (lambda: small().paths(order="freq"), ValueError, "order='freq' is unknown; allowed: 'natural', 'frequency'"),
        (lambda: small().inverse({"a": small()["a"]}), ValueError, "'d' is missing"),
        (lambda: small().inverse({"a": small()["a"], "dd": small()["dd"]}), ValueError, "'da' is missing"),
        (lambda: small().inverse({}), ValueError, "'' is missing"),
        (lambda: small().inverse(small().nodes), ValueError, "'a' and '' overlap"),
        (lambda: small().inverse(small().leaves | {"d": small()["d"]}), ValueError, "'da' and 'd' overlap"),
        (lambda: small().inverse({"aaa": small()["aa"]}), ValueError, "'aaa' is not in this tree"),
        (
            lambda: small().inverse({"a": small()["a"], "d": small()["dd"]}),
            ValueError,
            r"leaves\['d'\] has shape \(2, 2, 1\), expected \(2, 4, 1\)",
        ),
        (lambda: small().inverse(small().leaves, basis=best_basis(small())), ValueError, "both given"),
        (lambda: small().inverse(basis=best_basis(small(level=1))), ValueError, "marks 3 nodes, the tree has 7"),
        (
            lambda: small().inverse(basis=best_basis(small(data=torch.randn(3, 8, 1)))),
            ValueError,
            r"basis.cost has shape \(3,\), expected \(2,\)",
        ),
        (lambda: best_basis(small(), cost="l0"), ValueError, "cost='l0' is unknown; allowed: 'shannon', 'log_energy'"),
        (lambda: small().replace(nodes={"": torch.ones(1), "a": torch.ones(1)}), ValueError, r"\['d'\]"),
        (lambda: small().replace(nodes={}), ValueError, r"\[''\]"),
        (
            lambda: best_basis(small()).replace(cost=torch.zeros(3)),
            ValueError,
            r"kept\[''\] has shape \(2,\), expected \(3,\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
