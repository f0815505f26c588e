"""The fused cascade against dense matrix algebra.

Triton reads TRITON_INTERPRET when it is imported, so a process tests either the plain twin or, in the interpreter, the
kernel; the last but one test runs this file again for the other half.
"""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch

import wavecomp as wc
from wavecomp.wavelets import kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CASCADE = kernels.cascade if INTERPRETED else kernels.cascade_plain
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton")
only_interpreted = pytest.mark.skipif(not INTERPRETED, reason="about the kernel; runs in the interpreter")

# length, dim, branches, reach, whether a window wraps at length - 1
CASES = [
    (1, 5, (2,), (0,), 0),
    (1, 1, (2, 2), (3, 3), 1),
    (2, 33, (2,), (0,), 0),
    (2, 5, (3, 2), (1, 0), 0),
    (16, 33, (2, 2, 2, 2), (0, 0, 0, 0), 0),
    (16, 5, (3, 3), (0, 2), 1),
    (40, 1, (2, 3, 2), (7, 0, 2), 0),
    (40, 5, (2,), (25,), 1),
    (63, 5, (2, 2, 2), (3, 3, 1), 1),
    (63, 1, (3, 2), (2, 4), 0),
    (40, 5, (5, 4), (1, 1), 0),
]


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that nobody wrote is NaN."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, make=make, **k: make(*a, **k).fill_(torch.nan))


def support(n, m, reach, wrap):
    """Where a level's matrix may be other than zero, row by row from the contract."""
    mask = torch.zeros(n, n, dtype=torch.bool)
    rows = [q for b in range(m) for q in range(-(-(n - b) // m))]
    for row, q in enumerate(rows):
        for t in range(m * q - reach, m * (q + 1) + reach):
            mask[row, t % max(n - wrap, 1)] = True
    return mask


def levels(length, branches, reach, wrap, dtype=torch.float64, device=None):
    """A dense leaf and its support for each level; the leaf times the support is the level's matrix."""
    found = []
    for m, r in zip(branches, reach):
        mask = support(length, m, r, wrap)
        leaf = torch.randn(length, length, dtype=dtype) / mask.sum(1, keepdim=True).sqrt()
        found.append((leaf.to(device).requires_grad_(), mask.to(device)))
        length = -(-length // m)
    return found


def matrices(levels):
    return [torch.where(mask, leaf, 0) for leaf, mask in levels]


def dense(x, matrices, branches):
    """The truth: the block product of the levels' matrices."""
    whole = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    n = x.shape[1]
    for matrix, m in zip(matrices, branches):
        block = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        whole = torch.cat([torch.cat([matrix, block[:n, n:]], dim=1), block[n:]]) @ whole
        n = -(-n // m)
    return whole @ x


@pytest.mark.parametrize("length, dim, branches, reach, wrap", CASES)
@pytest.mark.parametrize("tiles", ["whole", "small"])
def test_value_and_every_gradient(length, dim, branches, reach, wrap, tiles, monkeypatch):
    if tiles == "small":
        monkeypatch.setattr(kernels, "TILE", 16)
        monkeypatch.setattr(kernels, "LEAST", 4)
        monkeypatch.setattr(kernels, "SPAN", 4)
        monkeypatch.setattr(kernels, "PROGRAMS", 2)
    x = torch.randn(3, length, dim, dtype=torch.float64, requires_grad=True)
    made = levels(length, branches, reach, wrap)
    operands = [x, *(leaf for leaf, _ in made)]
    out = CASCADE(x, matrices(made), reach, branches)
    truth = dense(x, matrices(made), branches)
    torch.testing.assert_close(out, truth, rtol=0, atol=1e-11)
    upstream = torch.randn_like(truth)
    mine, theirs = (torch.autograd.grad(y, operands, upstream) for y in (out, truth))
    for one, other in zip(mine, theirs):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@only_interpreted
@pytest.mark.parametrize(
    "make",
    [
        lambda: wc.OrthogonalFilterBank("db4"),
        lambda: wc.LiftingFilterBank("bior4.4"),
        lambda: wc.MBandFilterBank(3),
        lambda: wc.WaveletFilterBank("bior2.2"),
    ],
)
def test_the_kernel_is_a_form_of_the_layer(make):
    transform = wc.DWT1d(make(), level=2, backend="triton").double()
    lengths = torch.tensor([[41, 41], [41, 6], [3, 0]])
    x = torch.randn(3, 2, 41, 5, dtype=torch.float64) * (torch.arange(41) < lengths[..., None])[..., None]
    found = transform(x, lengths)
    torch.testing.assert_close(transform.inverse(found), x, rtol=0, atol=1e-11)
    parameters = list(transform.parameters())
    mine = torch.autograd.grad(found.values.square().sum(), parameters) if parameters else []
    transform.backend = "cascade"
    expected = transform(x, lengths)
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-11)
    theirs = torch.autograd.grad(expected.values.square().sum(), parameters) if parameters else []
    for one, other in zip(mine, theirs):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_layer_refuses_a_kernel_that_cannot_run():
    if not kernels.available(torch.empty(0)):
        with pytest.raises(ValueError, match="backend='triton' cannot run on cpu; allowed: CUDA"):
            wc.DWT1d("haar", level=1, backend="triton")(torch.randn(1, 8, 1))


@pytest.mark.parametrize("length, level", [(2, 1), (16, 3), (40, 3), (63, 4)])
def test_periodised_db4_is_the_layer(length, level):
    bank, sizes = wc.WaveletFilterBank("db4"), [-(-length // 2**step) for step in range(level)]
    made = [torch.cat(bank.analysis(torch.eye(n, dtype=torch.float64)), dim=-2) for n in sizes]
    x = torch.randn(9, length, 5, dtype=torch.float64)
    expected = wc.DWT1d(bank, level=level)(x).values
    torch.testing.assert_close(CASCADE(x, made, [3] * level, [2] * level), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [4, 7, 12])
def test_what_lies_outside_the_windows_counts_as_zero(length):
    x = torch.randn(2, length, 3, dtype=torch.float64)
    full = torch.randn(length, length, dtype=torch.float64, requires_grad=True)
    near = torch.where(support(length, 2, 1, 0) | support(length, 2, 1, 1), full, 0)
    out, truth = CASCADE(x, [full], [1], [2]), near @ x
    torch.testing.assert_close(out, truth)
    upstream = torch.randn_like(truth)
    mine, theirs = (torch.autograd.grad(y, full, upstream)[0] for y in (out, truth))
    torch.testing.assert_close(mine, theirs)


def test_gradients_of_first_and_second_order():
    branches, reach = (2, 3), (0, 0)
    operands = [torch.randn(1, 5, 1), torch.randn(5, 5), torch.randn(3, 3)]
    operands = [operand.double().requires_grad_() for operand in operands]

    def function(x, *made):
        return CASCADE(x, made, reach, branches)

    assert torch.autograd.gradcheck(function, operands)
    assert torch.autograd.gradgradcheck(function, operands)


def test_a_matrix_may_depend_on_the_signal():
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    ((leaf, mask),) = levels(6, (2,), (1,), 0)

    def second_order(function):
        made = torch.where(mask, leaf * x.square().mean(), 0)
        (first,) = torch.autograd.grad(function(x, [made]).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, leaf))

    mine = second_order(lambda x, made: CASCADE(x, made, [1], [2]))
    theirs = second_order(lambda x, made: dense(x, made, [2]))
    for one, other in zip(mine, theirs):
        torch.testing.assert_close(one, other)


@only_interpreted
@pytest.mark.parametrize(
    "wanted, adjoint, forward",
    [("x", None, 0), ("0", 2, 0), ("2", 0, 2), ("1", 1, 1), ("x1", 3, 1), ("x012", 3, 2)],
)
def test_only_what_is_asked_for_is_computed(wanted, adjoint, forward, monkeypatch):
    made = levels(12, (2, 2, 2), (1, 1, 1), 0)
    x = torch.randn(2, 12, 3, dtype=torch.float64).requires_grad_("x" in wanted)
    inputs = [m.detach().requires_grad_(str(i) in wanted) for i, m in enumerate(matrices(made))]
    out = kernels.cascade(x, inputs, (1, 1, 1), (2, 2, 2))
    asked = [operand for operand in (x, *inputs) if operand.requires_grad]
    upstream = torch.randn_like(out)
    steps, run = {}, kernels._run

    def recorded(x, matrices, tables, count=None):
        steps["adjoint" if tables.adjoint else "forward"] = count
        return run(x, matrices, tables, count)

    monkeypatch.setattr(kernels, "_run", recorded)
    found = torch.autograd.grad(out, asked, upstream)
    assert steps == {"adjoint": adjoint, "forward": forward}
    truth = torch.autograd.grad(dense(x, inputs, (2, 2, 2)), asked, upstream)
    for operand, mine, theirs in zip(asked, found, truth):
        inside = torch.ones_like(mine) if operand is x else support(len(mine), 2, 1, 0)
        torch.testing.assert_close(mine * inside, theirs * inside)


# one rounding of what was summed in fp32: a unit in the last place, since the interpreter cuts bf16 off
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 2**-7), (torch.float16, 2**-10), (torch.float32, 2**-21)])
@pytest.mark.parametrize("length, dim, branches, reach", [(40, 5, (2, 2), (3, 3)), (16, 3, (3, 2), (0, 1))])
def test_low_precision_rounds_once(dtype, bound, length, dim, branches, reach):
    made = levels(length, branches, reach, 0, dtype=torch.float32)
    x = torch.randn(3, length, dim, dtype=dtype, requires_grad=True)
    out = CASCADE(x, matrices(made), reach, branches)
    assert out.dtype == dtype
    exact = x.detach().double().requires_grad_()
    truth = dense(exact, [m.double() for m in matrices(made)], branches)
    upstream = torch.randn_like(out)
    leaves = [leaf for leaf, _ in made]
    of_x, *of_leaves = torch.autograd.grad(out, [x, *leaves], upstream)
    true_of_x, *true_of_leaves = torch.autograd.grad(truth, [exact, *leaves], upstream.double())
    for mine, theirs in ((out, truth), (of_x, true_of_x)):
        torch.testing.assert_close(mine.double(), theirs, rtol=bound, atol=1e-5)
    # the matrices' gradients come from products of rounded factors
    for mine, theirs in zip(of_leaves, true_of_leaves):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 4 * bound * theirs.abs().max()


def test_empty_batches_and_strided_signals():
    ((leaf, mask),) = levels(6, (2,), (1,), 0)
    made = torch.where(mask, leaf, 0)
    for shape in ((0, 6, 3), (2, 6, 0)):
        x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        out = CASCADE(x, [made], [1], [2])
        assert out.shape == shape
        of_x, of_leaf = torch.autograd.grad(out.sum(), (x, leaf), retain_graph=True)
        assert of_x.shape == shape and not of_leaf.any()
    x = torch.randn(3, 2, 6, dtype=torch.float64).movedim(-1, 1).requires_grad_()
    out = CASCADE(x, [made], [1], [2])
    torch.testing.assert_close(out, made @ x)
    upstream = torch.randn(6, 1, dtype=torch.float64).expand_as(out)
    (of_x,) = torch.autograd.grad(out, x, upstream)
    torch.testing.assert_close(of_x, made.mT @ upstream)


def test_tables_made_in_inference_mode_serve_a_later_gradient():
    kernels._tables.cache_clear()
    ((leaf, mask),) = levels(6, (2,), (1,), 0)
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        CASCADE(x, [leaf], [1], [2])
    out = CASCADE(x, [torch.where(mask, leaf, 0)], [1], [2])
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    first.sum().backward()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(6, 3)}, r"x is torch.float32 of shape \(6, 3\); allowed: floating point \(rows"),
        ({"x": torch.zeros(2, 0, 3)}, r"of shape \(2, 0, 3\); allowed"),
        ({"x": torch.zeros(2, 6, 3).long()}, "x is torch.int64"),
        ({"matrices": []}, r"0 matrices, reach=\[1\], branches=\[2\]; allowed: one of each per level"),
        ({"branches": [2, 2]}, r"1 matrices, reach=\[1\], branches=\[2, 2\]; allowed: one of each"),
        ({"reach": [-1]}, r"reach=\[-1\], branches=\[2\]; allowed: .* reach from 0"),
        ({"branches": [1]}, r"branches=\[1\]; allowed: .* branches from 2"),
        ({"matrices": [torch.eye(5)]}, r"matrices\[0\] has shape \(5, 5\); allowed: \(6, 6\)"),
    ],
)
def test_bad_input_is_named(change, message):
    call = {"x": torch.zeros(2, 6, 3), "matrices": [torch.eye(6)], "reach": [1], "branches": [2]}
    with pytest.raises(ValueError, match=message):
        CASCADE(**(call | change))


@pytest.mark.skipif(INTERPRETED, reason="about a process without the interpreter")
def test_the_kernel_is_not_available_on_a_cpu():
    assert not kernels.available(torch.zeros(1))
    with pytest.raises(ValueError, match="cascade: x is on cpu; allowed: CUDA, with triton installed"):
        kernels.cascade(torch.zeros(1, 2, 1), [torch.eye(2)], [0], [2])


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("dim", [64, 5])
@pytest.mark.parametrize("branches", [(2, 2, 2), (3, 2)])
@pytest.mark.parametrize("adjoint, count", [(False, None), (False, 1), (True, None), (True, 1)])
def test_it_compiles_for_hopper_without_one(dim, branches, adjoint, count, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, launches = kernels._cascade_kernel, []

    class Launches:
        def __getitem__(self, grid):
            return lambda *args, **options: launches.append((args, options))

    monkeypatch.setattr(kernels, "_cascade_kernel", Launches())
    x = torch.zeros(2, 48, dim, dtype=torch.bfloat16)
    made = [matrix.detach() for matrix in matrices(levels(48, branches, (3, 3, 3), 0, dtype=torch.float32))]
    kernels._run(x, made, kernels._tables(48, (3,) * len(made), branches, adjoint, x.device), count)
    ((args, options),) = launches
    kinds = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32"}
    signature, constants, hints = {}, {}, {}
    for place, (name, value) in enumerate(zip(kernel.arg_names, args)):
        if name.isupper():
            signature[name], constants[(place,)] = "constexpr", value
        else:
            signature[name] = kinds[value.dtype] if isinstance(value, torch.Tensor) else "i32"
            if isinstance(value, torch.Tensor) or value % 16 == 0:
                hints[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=hints)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.asm["cubin"]
    # a barrier behind each step, and 16-byte loads where rows are aligned for them
    assert compiled.asm["ptx"].count("bar.sync") >= (len(branches) if count is None else count)
    if count is None:
        assert ("ld.global.v4" in compiled.asm["ptx"]) == (dim == 64)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_the_kernel_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-m", "not gpu", __file__]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "1"})
    assert run.returncode == 0, run.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 2 * len(CASES) + 25


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize(
    "rows, length, dim, branches, reach",
    [
        (700, 64, 512, (2, 2, 2, 2), (0, 0, 0, 0)),
        (300, 63, 63, (2, 2, 2), (3, 3, 3)),
        (33, 512, 96, (2,) * 6, (7,) * 6),
        (129, 40, 5, (3, 2), (2, 25)),
        (5, 1, 1, (2,), (0,)),
    ],
)
def test_the_kernel_on_a_gpu(rows, length, dim, branches, reach, dtype, bound):
    made = levels(length, branches, reach, 0, dtype=torch.float32, device="cuda")
    x = torch.randn(rows, length, dim, dtype=dtype, device="cuda", requires_grad=True)
    operands = [x, *(leaf for leaf, _ in made)]
    out = kernels.cascade(x, matrices(made), reach, branches)
    truth = kernels.cascade_plain(x.double(), matrices(made), reach, branches)
    upstream = torch.randn_like(out)
    found = [out, *torch.autograd.grad(out, operands, upstream)]
    expected = [truth, *torch.autograd.grad(truth, operands, upstream.double())]
    for mine, theirs in zip(found, expected):
        assert (mine.double() - theirs.double()).norm() <= bound * theirs.double().norm()
    # a race would show as a result that moves
    for _ in range(5):
        assert torch.equal(kernels.cascade(x, matrices(made), reach, branches), out)
