"""All levels of a linear cascade in one pass over the signal: a Triton kernel, its adjoint, and their plain twin.

Notation: level l has a matrix A_l ``(n_l, n_l)`` whose rows are ordered by branch; branch b has
``ceil((n_l - b) / branches)`` of them. Row q of every branch reads samples near ``branches * q`` only, so q is a
*group*: its branches share one window of samples. Branch 0 is the next level's signal.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor

from wavecomp.compiling import plain_operations

Ints = tuple[int, ...]
Tensors = Sequence[Tensor]
TRITON = importlib.util.find_spec("triton") is not None
# a thread holds 8 values of two branches: 16-byte loads of bf16, and at most 72 registers where dim is a multiple of
# 16 (ptxas for sm_90), with which 7 programs of 128 threads share a multiprocessor
TILE, WARPS, PROGRAMS = 1024, 4, 7
# samples x columns of a program, 4 bytes each at most for what its levels hand on: 30 MB on an H200, which its 60 MB
# of L2 keep from going to memory (61 MB at 512 samples)
SPAN = 8192
LEAST, MOST = 32, 256  # columns: at least 64 bytes of a bf16 row, at most 16 bytes for each thread of a warp
PRODUCTS = 2**26  # elements of the batched products behind the matrices' gradients: 256 MB in fp32


def available(x: Tensor) -> bool:
    """Whether :func:`cascade` can take ``x``: Triton is installed, and x is on CUDA or Triton interprets."""
    return TRITON and (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1")


def cascade(x: Tensor, matrices: Tensors, reach: Sequence[int], branches: Sequence[int]) -> Tensor:
    """:func:`cascade_plain` in one launch, with sums in fp32 (fp64 for fp64). Differentiable twice.

    The gradient of x is the adjoint, again one launch; those of the matrices come from level inputs that the backward
    pass computes again.

    Raises:
        ValueError: x where no kernel runs, and what :func:`cascade_plain` refuses.
    """
    if not available(x):
        raise ValueError(f"cascade: x is on {x.device}; allowed: CUDA, with triton installed")
    _check(x, matrices, reach, branches)
    if plain_operations() and not torch.compiler.is_compiling():  # which has no need to see into a kernel
        return cascade_plain(x, matrices, reach, branches)
    return _Cascade.apply(x.contiguous(), tuple(reach), tuple(branches), *matrices)


def cascade_plain(x: Tensor, matrices: Tensors, reach: Sequence[int], branches: Sequence[int]) -> Tensor:
    """A multilevel transform in torch operations, differentiable to any order.

    Args:
        x: ``(rows, length, dim)``, floating point.
        matrices: A_l, finest first: ``(n_l, n_l)`` with n_0 = length and n_{l+1} = ceil(n_l / branches[l]).
        reach, branches: of each level; row q of a branch reads samples ``branches * q - reach`` to
            ``branches * (q + 1) - 1 + reach``, modulo n_l or n_l - 1. What a matrix holds elsewhere counts as zero.

    Returns:
        ``(rows, length, dim)``, coarse to fine: branch 0 of the last level, then the other branches level by level.

    Raises:
        ValueError: no matrices, or shapes and lists that do not fit together.

    Example:
        >>> haar = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2
        >>> cascade_plain(torch.tensor([[[5.0], [3.0]]]), [haar], [0], [2]).flatten()
        tensor([4., 1.])
    """
    _check(x, matrices, reach, branches)
    tables = _tables(x.shape[1], tuple(reach), tuple(branches), False, x.device)
    low, details = x.to(_exact(x)), []
    rows = tables.rows.split([(width + m) * -(-n // m) for n, m, width in tables.steps])
    weights = _weights(matrices, tables, low.dtype).split([width * m * -(-n // m) for n, m, width in tables.steps])
    for (n, m, width), row, weight in zip(tables.steps, rows, weights):
        entries = zip(row.view(-1, -(-n // m))[:width], weight.view(width, m, -1, 1))
        parts = sum((w * low[:, None, i] for i, w in entries), start=low.new_zeros(()))
        low, *rest = (parts[:, b, : -(-(n - b) // m)] for b in range(m))
        details.append(torch.cat(rest, dim=1))
    return torch.cat([low, *reversed(details)], dim=1).to(x.dtype)


class _Cascade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: Ints, branches: Ints, *matrices: Tensor) -> Tensor:
        ctx.save_for_backward(x, *matrices)
        ctx.reach, ctx.branches = reach, branches
        return _run(x, matrices, _tables(x.shape[1], reach, branches, False, x.device))[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needs = (ctx.needs_input_grad[0], *ctx.needs_input_grad[3:])
        if torch.is_grad_enabled():
            # aliases: what a matrix may owe to x must not enter the gradient of x twice
            operands = [operand.view_as(operand) for operand in ctx.saved_tensors]
            out = cascade_plain(operands[0], operands[1:], ctx.reach, ctx.branches)
            wanted = [operand for operand, need in zip(operands, needs) if need]
            answers = iter(torch.autograd.grad(out, wanted, grads[0], create_graph=True))
            found = [next(answers) if need else None for need in needs]
        else:
            found = _gradients(ctx, grads[0].contiguous(), needs)
        return found[0], None, None, *found[1:]


def _gradients(ctx: Any, grad: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
    x, *matrices = ctx.saved_tensors
    forward, adjoint = (_tables(x.shape[1], ctx.reach, ctx.branches, way, x.device) for way in (False, True))
    levels, last = [level for level, need in enumerate(needs[1:]) if need], len(matrices) - 1
    of_x, coarse = _run(grad, matrices, adjoint, None if not levels else last + 1 if needs[0] else last - levels[0])
    _, fine = _run(x, matrices, forward, levels[-1] if levels else 0)
    found = [of_x if needs[0] else None, *(None for _ in matrices)]
    for level in levels:
        n, m, _ = forward.steps[level]
        of_low = coarse[last - 1 - level] if level < last else grad[:, : -(-n // m)]
        signal = (fine[level - 1] if level else x).to(x.dtype)
        halves = _product(of_low.to(x.dtype), signal), _product(grad[:, -(-n // m) : n], signal)
        found[level + 1] = torch.where(forward.support[level], torch.cat(halves), 0).to(matrices[level].dtype)
    return found


def _product(grad: Tensor, x: Tensor) -> Tensor:
    """The sum over rows of ``grad[r] @ x[r].T``: ``(rows, a, dim)`` and ``(rows, b, dim)`` give ``(a, b)``."""
    rows = max(PRODUCTS // max(grad.shape[1] * x.shape[1], 1), 1)
    parts = (torch.bmm(g, s.mT).sum(0, dtype=_exact(x)) for g, s in zip(grad.split(rows), x.split(rows)))
    return sum(parts, start=x.new_zeros((), dtype=_exact(x)))


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _check(x: Tensor, matrices: Tensors, reach: Sequence[int], branches: Sequence[int]) -> None:
    if x.ndim != 3 or not x.shape[1] or not x.is_floating_point():
        raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}; allowed: floating point (rows, length > 0, dim)")
    if not len(matrices) == len(reach) == len(branches) > 0 or min(reach) < 0 or min(branches) < 2:
        got = f"{len(matrices)} matrices, reach={reach}, branches={branches}"
        raise ValueError(f"{got}; allowed: one of each per level, reach from 0, branches from 2")
    n = x.shape[1]
    for level, (matrix, m) in enumerate(zip(matrices, branches)):
        if matrix.shape != (n, n):
            raise ValueError(f"matrices[{level}] has shape {tuple(matrix.shape)}; allowed: {(n, n)}")
        n = -(-n // m)


class _Tables(NamedTuple):
    """Where each step of a cascade, or of its adjoint (coarse to fine), reads and what it multiplies."""

    adjoint: bool
    steps: tuple[tuple[int, int, int], ...]  # n, branches, and how many entries a group reads
    rows: Tensor  # int32, flat; per step (entries + branches, groups): what to read, what to write or -1
    places: Tensor  # flat; per step (entries, branches, groups): where in all matrices end to end, -1 for a zero
    support: tuple[Tensor, ...]  # (n, n) of each step: where its matrix counts


def _weights(matrices: Tensors, tables: _Tables, dtype: torch.dtype) -> Tensor:
    flat = [matrix.reshape(-1).to(dtype) for matrix in matrices]
    return torch.cat([*flat, flat[0].new_zeros(1)])[tables.places]


# kept, since making them waits for the device; not as inference tensors, which no later gradient could use
@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)
def _tables(length: int, reach: Ints, branches: Ints, adjoint: bool, device: torch.device) -> _Tables:
    steps, n, start = [], length, 0
    for r, m in zip(reach, branches):
        reads, writes, places, support = _step(n, r, m, start, adjoint)
        rows = torch.cat([reads.clamp(min=0), writes]).flatten().int()
        steps.append(((n, m, len(reads)), rows, places.flatten(), support.to(device)))
        n, start = -(-n // m), start + n * n
    shapes, all_rows, all_places, supports = zip(*(reversed(steps) if adjoint else steps))
    return _Tables(adjoint, shapes, torch.cat(all_rows).to(device), torch.cat(all_places).to(device), supports)


def _step(n: int, reach: int, m: int, start: int, adjoint: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reads ``(entries, groups)``, writes ``(m, groups)``, places ``(entries, m, groups)``, support; -1 is nowhere.

    A group of the adjoint is m samples in a row. They share the groups that read any of them; its entries are the
    branches of those in turn.
    """
    group = torch.arange(-(-n // m))[:, None]
    near = m * group + torch.arange(-reach, m + reach)
    window = torch.zeros(len(group), n, dtype=torch.bool)
    window = window.scatter(1, near % n, True).scatter(1, near % max(n - 1, 1), True)
    order, excess = torch.cat([torch.arange(b, n, m) for b in range(m)]), len(group) * m - n
    support = window[order // m]
    place = F.pad(torch.where(support, start + torch.arange(n * n).view(n, n), -1), (0, 1, 0, 1), value=-1)
    row, sample = (F.pad(i, (0, excess), value=-1).view(-1, m) for i in (order.argsort(), torch.arange(n)))
    if adjoint:
        touched = F.pad(window, (0, excess)).view(len(group), -1, m).sum(-1).T > 0
        reads = F.pad(row, (0, 0, 0, 1), value=-1)[_chosen(touched)].flatten(1).T
        return reads, sample.T, place.T[sample.T, reads[:, None]], support
    reads = _chosen(window).T
    return reads, row.T, place[row.T, reads[:, None]], support


def _chosen(mask: Tensor) -> Tensor:
    """What each row of a mask names, ``(rows, most)``, ascending, filled with -1."""
    index = mask.byte().argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
    return torch.where(mask.gather(1, index), index, -1)


def _run(x: Tensor, matrices: Tensors, tables: _Tables, count: int | None = None) -> tuple[Tensor, Tensors]:
    """All steps, handing on through a scratch that each program uses again; or ``count``, with what each hands on."""
    rows, length, dim = x.shape
    steps, keep = tables.steps[:count], count is not None
    whole = len(steps) == len(tables.steps)
    heights = [n if tables.adjoint else -(-n // m) for n, m, _ in steps[: len(steps) - whole]]
    columns = min(triton.next_power_of_2(dim or 1), MOST, max(SPAN // triton.next_power_of_2(length), LEAST))
    tiles = rows * -(-dim // columns)
    units = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    programs = min(tiles, PROGRAMS * units)
    shape = (rows, sum(heights), dim) if keep else (programs, sum(heights), columns)
    scratch = torch.empty(shape, dtype=_exact(x), device=x.device)
    out = torch.empty_like(x) if whole else x
    plan = []
    for (n, m, width), height in zip(steps, [*heights, 0]):
        block = min(TILE // columns, triton.next_power_of_2(-(-n // m)))
        # a cascade that runs for its approximations makes nothing else
        parts, made = (m, m) if tables.adjoint else (1, 1 if keep else m)
        plan.append((-(-n // m), m, width, block, parts, made, height))
    if tiles and plan:
        tensors = x, out, scratch, tables.rows, _weights(matrices, tables, scratch.dtype)
        form = tiles, length, dim, sum(heights), tuple(plan), columns, keep
        with torch.cuda.device_of(x):
            # fused multiply-adds are asked for because Triton's default is about to change
            _cascade_kernel[(programs,)](*tensors, *form, num_warps=WARPS, enable_fp_fusion=True)
    return out, scratch.split(heights, dim=1) if keep else ()


if TRITON:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
    from triton.language import constexpr

    @triton.jit
    @no_type_check
    def _cascade_kernel(
        x, out, scratch, rows, weights, tiles, length, dim, room, STEPS: constexpr, COLUMNS: constexpr, KEEP: constexpr
    ):
        """One chunk and block of columns after another. ``STEPS[step][6]``: rows to hand on, 0 for the last step."""
        tile, place, blocks = tl.program_id(0), tl.arange(0, COLUMNS), tl.cdiv(dim, COLUMNS)
        while tile < tiles:
            chunk = (tile // blocks).to(tl.int64)
            column = tile % blocks * COLUMNS + place
            high, to_high = x + chunk * length * dim + column, out + chunk * length * dim + column
            spare = scratch + (chunk * room * dim + column if KEEP else tl.program_id(0) * room * COLUMNS + place)
            space = dim if KEEP else COLUMNS
            low, low_space, row, weight = high, dim, rows, weights
            for step in tl.static_range(len(STEPS)):
                to_low, to_space = (spare, space) if STEPS[step][6] else (to_high, dim)
                ends = low, low_space, high, to_low, to_space, to_high, dim
                row, weight = _cascade_step(ends, row, weight, column < dim, STEPS, step, COLUMNS)
                # the next step reads what other threads wrote; behind the last, the next chunk writes over it
                tl.debug_barrier()
                low, low_space = to_low, to_space
                spare += STEPS[step][6] * space
            tile += tl.num_programs(0)

    @triton.jit
    @no_type_check
    def _cascade_step(ends, rows, weights, live, STEPS: constexpr, step: constexpr, COLUMNS: constexpr):
        """One level. Branch 0 lies in ``low``: of what the adjoint reads, of what the cascade writes."""
        GROUPS: constexpr = STEPS[step][0]
        BRANCHES: constexpr = STEPS[step][1]
        WIDTH: constexpr = STEPS[step][2]
        BLOCK: constexpr = STEPS[step][3]
        PARTS: constexpr = STEPS[step][4]
        MADE: constexpr = STEPS[step][5]
        low, low_space, high, to_low, to_space, to_high, dim = ends
        for start in range(0, GROUPS, BLOCK):
            group = start + tl.arange(0, BLOCK)
            inside = group < GROUPS
            mask = inside[:, None] & live[None, :]
            # two branches share what is read; a third reads again
            for branch in tl.static_range(0, MADE, 2):
                one = tl.zeros([BLOCK, COLUMNS], weights.dtype.element_ty)
                two = tl.zeros([BLOCK, COLUMNS], weights.dtype.element_ty)
                # four reads in flight: eight cost registers, and with them programs
                for entry in tl.range(0, WIDTH, PARTS, loop_unroll_factor=(PARTS + 3) // PARTS):
                    for part in tl.static_range(PARTS):
                        at = tl.load(rows + (entry + part) * GROUPS + group, mask=inside, other=0)[:, None]
                        source = high[None, :] + at * dim if part else low[None, :] + at * low_space
                        sample = tl.load(source, mask=mask, other=0.0).to(one.dtype)
                        weight = weights + ((entry + part) * BRANCHES + branch) * GROUPS + group
                        one += tl.load(weight, mask=inside, other=0.0)[:, None] * sample
                        if branch + 1 < MADE:
                            two += tl.load(weight + GROUPS, mask=inside, other=0.0)[:, None] * sample
                for half in tl.static_range(2):
                    if branch + half < MADE:
                        to = tl.load(rows + (WIDTH + branch + half) * GROUPS + group, mask=inside, other=-1)[:, None]
                        if PARTS > 1 or branch + half == 0:
                            target = to_low[None, :] + to * to_space
                        else:
                            target = to_high[None, :] + to * dim
                        tl.store(target, two if half else one, mask=mask & (to >= 0))
        return rows + (WIDTH + BRANCHES) * GROUPS, weights + WIDTH * BRANCHES * GROUPS
