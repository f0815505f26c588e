"""The banded product: one level of a linear filter bank on a long signal.

Away from its ends a bank does the same to every stretch of samples, so a level is one small matrix, the band, that
slides along the signal. The band and what happens at the ends are both read off the bank's matrix for a short signal,
so that gradients reach a learnable bank through it and every linear bank has this form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavecomp.compiling import no_autocast, plain_operations
from wavecomp.wavelets.tree import Cascade

STRETCH = 32  # outputs of the band at least; half as many or twice as many are slower on two cores


class Sizes(NamedTuple):
    """What one level needs to know of its bank, in samples.

    The short signal is ``half + half + length % branches`` long; its first ``left`` outputs and its last
    ``right + length % branches`` are those of a long signal; ``stretch`` outputs from ``left`` on make the band.
    """

    branches: int
    reach: int
    stretch: int
    left: int
    right: int
    half: int

    @classmethod
    def of(cls, branches: int, reach: int) -> Sizes:
        def whole(samples: int) -> int:
            return -(-samples // branches) * branches

        # constants that are carried from level to level differ up to a reach further in, their adjoint one more
        reach, left = whole(reach), whole(3 * reach + branches + 2)
        stretch = whole(STRETCH)
        right = left + stretch + reach
        # half a signal also holds a stretch that is cut off where only whole ones are counted
        return cls(branches, reach, stretch, left, right, right + stretch + reach)


def analysis(x: Tensor, cascade: Cascade) -> Tensor:
    """``(rows, length, dim)`` to as many coefficients, coarse to fine.

    What is kept for the backward pass are the approximations, and only where a filter asks for a gradient.
    """
    if not x.numel():
        return x.clone()
    sizes = [Sizes.of(bank.branches, bank.reach) for bank in cascade.banks]
    with no_autocast(x):  # into memory of its own dtype goes nothing of another
        matrices = _level_matrices(cascade, x.shape[1], x, inverse=False)
        if plain_operations():
            return analysis_plain(x, sizes, *matrices)
        return _Analysis.apply(x.contiguous(), sizes, *matrices)


def synthesis(values: Tensor, cascade: Cascade, length: int, to_level: int = 0) -> Tensor:
    """The inverse of :func:`analysis`, from the coefficients under the approximation of ``to_level``."""
    if not values.numel():
        return values.clone()
    above = Cascade(cascade.banks[to_level:], [])
    sizes = [Sizes.of(bank.branches, bank.reach) for bank in above.banks]
    with no_autocast(values):
        matrices = _level_matrices(cascade, length, values, inverse=True)[to_level:]
        if plain_operations():
            return synthesis_plain(values, sizes, *matrices)
        return _Synthesis.apply(values.contiguous(), sizes, *matrices)


def analysis_plain(x: Tensor, sizes: Sequence[Sizes], *matrices: Tensor) -> Tensor:
    """:func:`analysis` in operations that autograd knows, to any order."""
    details: list[Tensor] = []
    for size, matrix in zip(sizes, matrices):
        x, *finer = _by_turns(_slide(x, matrix, size), size.branches)
        details = [*finer, *details]
    return torch.cat([x, *details], dim=1)


def synthesis_plain(values: Tensor, sizes: Sequence[Sizes], *matrices: Tensor) -> Tensor:
    """:func:`synthesis` in operations that autograd knows, to any order."""
    x = values[:, : _counts(values.shape[1], sizes)[-1]]
    for branches, size, matrix in _upwards(values, sizes, matrices):
        x = _slide(_interleave([x, *branches]), matrix, size)
    return x


class _Analysis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[Sizes], *matrices: Tensor) -> Tensor:
        values, inputs = torch.empty_like(x), [x]
        stop = x.shape[1]
        for size, matrix in zip(sizes, matrices):
            low, *details = _split(inputs[-1], matrix, size)
            for detail in reversed(details):
                values[:, stop - detail.shape[1] : stop] = detail
                stop -= detail.shape[1]
            inputs.append(low)
        values[:, :stop] = inputs.pop()
        ctx.sizes = sizes
        # the first approximation is as large as all others together: it is made again rather than kept
        ctx.save_for_backward(*matrices, x, *(inputs[2:] if any(ctx.needs_input_grad[2:]) else []))
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with no_autocast(grad):
            return _Analysis.gradients(ctx, grad)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.sizes)
        matrices, x, approximations = (
            ctx.saved_tensors[:count],
            ctx.saved_tensors[count],
            ctx.saved_tensors[count + 1 :],
        )
        if torch.is_grad_enabled():
            return _twice(ctx, analysis_plain, x, matrices, grad)
        grads: list[Tensor | None] = [None] * count
        step = count
        up = grad[:, : _counts(grad.shape[1], ctx.sizes)[-1]]
        for branches, size, matrix in _upwards(grad, ctx.sizes, matrices):
            step -= 1
            if ctx.needs_input_grad[2 + step]:
                if step == 1:
                    below = _split(x, matrices[0], ctx.sizes[0], first_only=True)[0]
                else:
                    below = approximations[step - 2] if step else x
                grads[step] = _correlate([up, *branches], below, matrix, size)
                del below
            up = _join([up, *branches], matrix.mT, size)
        return (up, None, *grads)


class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, sizes: list[Sizes], *matrices: Tensor) -> Tensor:
        ctx.sizes = sizes
        ctx.save_for_backward(*matrices, values)
        x = values[:, : _counts(values.shape[1], sizes)[-1]]
        for branches, size, matrix in _upwards(values, sizes, matrices):
            x = _join([x, *branches], matrix, size)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with no_autocast(grad):
            return _Synthesis.gradients(ctx, grad)

    @staticmethod
    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *matrices, values = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _twice(ctx, synthesis_plain, values, matrices, grad)
        counts = _counts(values.shape[1], ctx.sizes)
        approximations = [values[:, : counts[-1]]]
        learned = any(ctx.needs_input_grad[2:])
        if learned:  # what was joined at each level comes again, rather than being kept
            for branches, size, matrix in _upwards(values, ctx.sizes, matrices):
                approximations.insert(0, _join([approximations[0], *branches], matrix, size))
        out, stop = torch.empty_like(values), values.shape[1]
        grads: list[Tensor | None] = [None] * len(matrices)
        down = grad.contiguous()
        parts = list(_upwards(values, ctx.sizes, matrices))[::-1]
        for step, (branches, size, matrix) in enumerate(parts):
            if ctx.needs_input_grad[2 + step]:
                grads[step] = _correlate([approximations[step + 1], *branches], down, matrix, size).mT
            down, *details = _split(down, matrix.mT, size)
            for detail in reversed(details):
                out[:, stop - detail.shape[1] : stop] = detail
                stop -= detail.shape[1]
        out[:, :stop] = down
        return (out, None, *grads)


def _twice(ctx: Any, plain: Any, x: Tensor, matrices: Sequence[Tensor], grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients that have gradients: those of the plain form."""
    # aliases: what a matrix may owe to x must not enter the gradient of x twice
    x, *matrices = (operand.view_as(operand) for operand in (x, *matrices))
    wanted = [t for t, needed in zip((x, x, *matrices), ctx.needs_input_grad) if needed]
    found = iter(torch.autograd.grad(plain(x, ctx.sizes, *matrices), wanted, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


def _slide(x: Tensor, matrix: Tensor, size: Sizes) -> Tensor:
    """A level's map of ``(rows, length, dim)``, inputs and outputs by turns from each branch."""
    rows, length, dim = x.shape
    if matrix.shape[0] == length:
        return matrix @ x
    rest = length % size.branches
    flat = nn.functional.pad(x, (0, 0, 0, (size.branches - rest) % size.branches)).flatten(0, 1)
    count, band = _stretches(len(flat), size), _band(matrix, size)
    windows = flat[size.left - size.reach :].unfold(0, band.shape[1], size.stretch)[:count]
    slid = (windows @ band.mT).mT.flatten(0, 1)
    slid = nn.functional.pad(slid, (0, 0, size.left, len(flat) - size.left - len(slid))).view(rows, -1, dim)
    ends = _end_rows(matrix, size, rest) @ _near_ends(x, size, rest)
    stop = length - size.right - rest
    return torch.cat([ends[:, : size.left], slid[:, size.left : stop], ends[:, size.left :]], dim=1)


def _split(x: Tensor, matrix: Tensor, size: Sizes, *, first_only: bool = False) -> list[Tensor]:
    """:func:`_slide`, each branch in memory of its own; the stretches are views, never copied."""
    rows, length, dim = x.shape
    if matrix.shape[0] == length:
        return [branch.contiguous() for branch in _by_turns(matrix @ x, size.branches)]
    rest = length % size.branches
    x = _filled(x, -(-length // size.branches) * size.branches)
    windows = _windows(x, size)
    groups = x.shape[1] // size.branches
    first, width = size.left // size.branches, size.stretch // size.branches
    ends = _end_rows(matrix, size, rest) @ _near_ends(x[:, :length], size, rest)
    band, out = _band(matrix, size), []
    for branch in range(1 if first_only else size.branches):
        y = x.new_empty(rows * groups, dim)
        product = y[first : first + len(windows) * width].view(len(windows), width, dim)
        torch.bmm(band[branch :: size.branches].expand(len(windows), -1, -1), windows, out=product)
        y = y.view(rows, groups, dim)
        y[:, :first] = ends[:, branch : size.left : size.branches]
        last = ends[:, size.left + branch :: size.branches]
        start = (length - size.right - rest) // size.branches
        y[:, start : start + last.shape[1]] = last
        out.append(y[:, : start + last.shape[1]])
    return out


def _join(branches: Sequence[Tensor], matrix: Tensor, size: Sizes) -> Tensor:
    """:func:`_slide` from branches in memory of their own."""
    length = sum(branch.shape[1] for branch in branches)
    if matrix.shape[0] == length:
        return matrix @ _interleave(branches)
    rest, groups, rows = length % size.branches, branches[0].shape[1], branches[0].shape[0]
    x = branches[0].new_empty(rows, groups * size.branches, branches[0].shape[2])
    flat, band = x.flatten(0, 1), _band(matrix, size)
    count = _stretches(len(flat), size)
    out = flat[size.left : size.left + count * size.stretch].view(count, size.stretch, -1)
    per = Sizes(1, size.reach // size.branches, size.stretch // size.branches, size.left // size.branches, 0, 0)
    for number, branch in enumerate(branches):
        whole = _filled(branch, groups).contiguous()
        part, windows = band[:, number :: size.branches].expand(count, -1, -1), _windows(whole, per, count)
        if number:
            torch.baddbmm(out, part, windows, out=out)
        else:
            torch.bmm(part, windows, out=out)
    half = size.half // size.branches
    inner = _interleave([branch[:, :half] for branch in branches])
    outer = _interleave([branch[:, (length - size.half - rest) // size.branches :] for branch in branches])
    ends = _end_rows(matrix, size, rest) @ torch.cat([inner, outer], dim=1)
    x[:, : size.left] = ends[:, : size.left]
    x[:, length - size.right - rest : length] = ends[:, size.left :]
    return x[:, :length]


def _correlate(branches: Sequence[Tensor], x: Tensor, matrix: Tensor, size: Sizes) -> Tensor:
    """The gradient of a level's matrix: the products of branches (outputs) and x (inputs) that it met."""
    length = x.shape[1]
    if matrix.shape[0] == length:
        return torch.bmm(_interleave(branches), x.mT).sum(0)
    rest, groups = length % size.branches, branches[0].shape[1]
    found = torch.zeros_like(matrix)
    near = _near_ends(x, size, rest)
    first, width = size.left // size.branches, size.stretch // size.branches
    count = ((length - size.right - rest) // size.branches - first) // width
    turns = (first, first + count * width)
    ends = torch.cat(
        [_interleave([b[:, : turns[0]] for b in branches]), _interleave([b[:, turns[1] :] for b in branches])], 1
    )
    products = torch.bmm(ends, near.mT).sum(0)
    found[: size.left] = products[: size.left]
    found[size.left + len(found) - len(products) :] = products[size.left :]
    # of several rows, the whole stretches of the first are followed by nothing until those of the next
    x = _filled(x, groups * size.branches)
    windows = _windows(x, size, count if len(x) == 1 else None)
    for number, branch in enumerate(branches):
        inside = branch[:, turns[0] : turns[1]]
        if len(x) > 1:
            inside = nn.functional.pad(inside, (0, 0, turns[0], groups - turns[1])).flatten(0, 1)
            inside = inside[None, first : first + len(windows) * width]
        products = torch.bmm(inside.reshape(len(windows), width, -1), windows.mT).sum(0)
        rows = slice(size.left + number, size.left + size.stretch, size.branches)
        found[rows, size.left - size.reach : size.left + size.stretch + size.reach] += products
    return found


def _level_matrices(cascade: Cascade, length: int, like: Tensor, *, inverse: bool) -> list[Tensor]:
    """Each level's matrix for a short signal, with outputs (for the inverse, inputs) by turns from each branch.

    A level that is short itself has its full matrix.
    """
    banks = cascade.banks
    sizes = [Sizes.of(bank.branches, bank.reach) for bank in banks]
    # constants of a signal that is shorter by whole strides have the same ends
    rate = math.prod([bank.branches for bank in banks])
    least = max(2 * size.half + size.branches for size in sizes)
    constants = cascade.constants(min(length, length % rate + least * rate), like)
    out = []
    for step, (size, ones) in enumerate(zip(sizes, constants)):
        n = int(cascade.count((0,) * step, length))
        short = 2 * size.half + n % size.branches
        if ones is not None and short < n:
            ones = torch.cat([ones[:, : size.half], ones[:, ones.shape[1] - (short - size.half) :]], dim=1)
        short = min(n, short)
        eye = torch.eye(short, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)[None]
        counts = [-(-(short - branch) // size.branches) for branch in range(size.branches)]
        order = _interleave([part[None, :, None] for part in torch.arange(short, device=like.device).split(counts)])
        if inverse:
            matrix = cascade.synthesise(step, eye.split(counts, dim=1), None, ones)[0].index_select(1, order.flatten())
        else:
            matrix = torch.cat(cascade.analyse(step, eye, None, ones), dim=1)[0].index_select(0, order.flatten())
        out.append(matrix.to(like.dtype))
    return out


def _stretches(length: int, size: Sizes) -> int:
    return (length - size.left - size.reach) // size.stretch


def _band(matrix: Tensor, size: Sizes) -> Tensor:
    """``(stretch, reach + stretch + reach)``, from the middle of the short signal."""
    stop = size.left + size.stretch
    return matrix[size.left : stop, size.left - size.reach : stop + size.reach]


def _end_rows(matrix: Tensor, size: Sizes, rest: int) -> Tensor:
    return torch.cat([matrix[: size.left], matrix[len(matrix) - size.right - rest :]])


def _near_ends(x: Tensor, size: Sizes, rest: int) -> Tensor:
    """The short signal: ``(rows, half + half + rest, dim)``."""
    return torch.cat([x[:, : size.half], x[:, x.shape[1] - size.half - rest :]], dim=1)


def _windows(x: Tensor, size: Sizes, count: int | None = None) -> Tensor:
    """``(stretches, reach + stretch + reach, dim)``: what each stretch reads, a view that runs across the rows.

    A stretch that lies in two rows is wrong about both their ends; those are put right afterwards.
    """
    dim = x.shape[2]
    count = _stretches(x.shape[0] * x.shape[1], size) if count is None else count
    shape, strides = (count, size.stretch + 2 * size.reach, dim), (size.stretch * dim, dim, 1)
    return x.as_strided(shape, strides, x.storage_offset() + (size.left - size.reach) * dim)


def _filled(x: Tensor, length: int) -> Tensor:
    """Zeros behind, up to a length; the tensor itself where nothing is missing (``pad`` would copy it)."""
    return x if x.shape[1] == length else nn.functional.pad(x, (0, 0, 0, length - x.shape[1]))


def _by_turns(x: Tensor, branches: int) -> list[Tensor]:
    return [x[:, branch::branches] for branch in range(branches)]


def _interleave(branches: Sequence[Tensor]) -> Tensor:
    """The branches by turns; the first may be one longer than the last."""
    length = sum(branch.shape[1] for branch in branches)
    groups = branches[0].shape[1]
    padded = [nn.functional.pad(branch, (0, 0, 0, groups - branch.shape[1])) for branch in branches]
    return torch.stack(padded, dim=2).flatten(1, 2)[:, :length]


def _counts(length: int, sizes: Sequence[Sizes]) -> list[int]:
    """Samples of each level's approximation, the signal first."""
    counts = [length]
    for size in sizes:
        counts.append(-(-counts[-1] // size.branches))
    return counts


def _upwards(
    values: Tensor, sizes: Sequence[Sizes], matrices: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], Sizes, Tensor]]:
    """Each level's details, size and matrix, coarse to fine."""
    counts = _counts(values.shape[1], sizes)
    for count, size, matrix in reversed(list(zip(counts, sizes, matrices))):
        parts = [-(-(count - branch) // size.branches) for branch in range(size.branches)]
        yield list(values[:, :count].split(parts, dim=1)[1:]), size, matrix
