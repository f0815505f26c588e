"""The gates that every public transform, pruner, compressor and network passes, in loops over the public classes."""

import copy
import inspect
import pickle

import pytest
import torch
import zoo
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import wavecomp as wc
from wavecomp.pace import NEVER
from wavecomp.wavelets.tree import Cascade


def public(base):
    rooms = (wc, wc.wavelets, wc.positions, wc.compressors, wc.networks)
    values = [getattr(room, name) for room in rooms for name in room.__all__]
    return {value for value in values if inspect.isclass(value) and issubclass(value, base) and value is not base}


@pytest.mark.parametrize(
    "base, table",
    [
        (wc.FilterBank, zoo.FILTER_BANKS),
        (wc.ChunkTransform, zoo.TRANSFORMS),
        (wc.Pruner, zoo.PRUNERS),
        (wc.Compressor, zoo.COMPRESSORS),
    ],
)
def test_no_public_class_escapes_the_gates(base, table):
    bases = {wc.AdaptivePruner}  # no pruner by themselves
    assert public(base) - bases == set(table) and table


def chunks(batch=2, length=40, lengths=None, seed=0, dtype=torch.float32):
    values = torch.randn(batch, length, zoo.DIM, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return wc.Codes.from_tokens(values, lengths).cut(zoo.CHUNK)


each_compressor = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in zoo.every_compressor()]
)
each_bank = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.every_bank()])
each_exact_bank = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in zoo.every_bank() if make().exact]
)
each_transform = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.every_transform()])


def same(one, other, **tolerance):
    for name in ("values", *wc.Codes.per_slot):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **tolerance)


def moved(bank, steps=300):
    """The bank after optimiser steps that have moved every parameter."""
    before = [p.detach().clone() for p in bank.parameters()]
    optimizer = torch.optim.Adam(bank.parameters(), lr=1e-2) if before else None
    x = torch.randn(4, 23, zoo.CHANNELS, generator=torch.Generator().manual_seed(1)).to(before[0] if before else None)
    wanted = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(x)
    for _ in range(steps if before else 0):
        optimizer.zero_grad()
        low, *details = bank.analysis(x)
        (sum(d.abs().mean() for d in details) + (low - wanted[:, : low.shape[1]]).square().mean()).backward()
        optimizer.step()
    assert all(not p.numel() or (p - q).abs().max() > 1e-2 for p, q in zip(bank.parameters(), before))
    return bank


@each_exact_bank
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_bank_inverts_exactly_at_every_length_before_and_after_learning(make, dtype, bound):
    for bank in (make().to(dtype), moved(make().to(dtype))):
        for length in range(65):
            x = torch.randn(2, length, zoo.CHANNELS, dtype=dtype)
            branches = bank.analysis(x)
            assert [b.shape[-2] for b in branches] == [-(-(length - b) // bank.branches) for b in range(bank.branches)]
            assert ((bank.synthesis(branches) - x).abs() <= bound * (x.abs().max() if length else 1)).all()


@each_exact_bank
def test_ragged_rows_of_a_bank_equal_the_rows_alone(make):
    for bank in (make().double(), zoo.perturb(make().double())):
        for length in (0, 1, 2, 5, 8, 13, 20):
            lengths = torch.arange(length + 1)
            x = torch.randn(length + 1, length, zoo.CHANNELS, dtype=torch.float64)
            behind = torch.arange(length) >= lengths[:, None]
            x[behind] = torch.nan
            branches = bank.analysis(x, lengths)
            back = bank.synthesis(branches, lengths)
            torch.testing.assert_close(back, torch.where(behind[..., None], 0, x), rtol=0, atol=1e-12)
            for row, n in enumerate(lengths.tolist()):
                for ragged, alone in zip(branches, bank.analysis(x[row : row + 1, :n])):
                    torch.testing.assert_close(ragged[row, : alone.shape[-2]], alone[0], rtol=0, atol=1e-12)
                    assert not ragged[row, alone.shape[-2] :].any()


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.every_bank() if make().linear])
def test_a_linear_bank_reads_no_farther_than_it_says(make):
    bank = zoo.perturb(make(), std=0.3).double()
    for length in range(1, 41):
        matrix = Cascade([bank], [(0,)]).level_matrices(length, torch.empty(0, dtype=torch.float64))[0]
        groups = [q for b in range(bank.branches) for q in range(-(-(length - b) // bank.branches))]
        for row, q in zip(matrix.movedim(-2, 0), groups):
            window = range(bank.branches * q - bank.reach, bank.branches * (q + 1) + bank.reach)
            reads = {t % n for t in window for n in (length, max(length - 1, 1))}
            outside = [t for t in range(length) if t not in reads]
            assert not row[..., outside].any()


@each_bank
def test_what_lies_behind_a_row_reaches_no_gradient_of_a_bank(make):
    bank = make().double()
    x = torch.randn(3, 9, zoo.CHANNELS, dtype=torch.float64)
    x[torch.arange(9) >= torch.tensor([9, 4, 1])[:, None]] = torch.nan
    x.requires_grad_()
    sum(b.square().sum() for b in bank.analysis(x, torch.tensor([9, 4, 1]))).backward()
    assert torch.isfinite(x.grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in bank.parameters())


@each_bank
def test_bank_gradients(make):
    bank = zoo.perturb(make().double())
    parameters = tuple(p for p in bank.parameters() if p.numel())
    x = torch.randn(3, 7, zoo.CHANNELS, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([7, 4, 1])

    def through(x, *_):
        return bank.analysis(x)

    def ragged(x, *_):
        return bank.analysis(x.square(), lengths)

    def back(x, *_):
        branches = bank.analysis(x)
        return bank.synthesis([2 * branches[0], *branches[1:]], lengths)

    for function in (through, ragged, back):
        assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)


@each_bank
@pytest.mark.parametrize("lengths", [None, torch.tensor([9])])
def test_a_bank_refuses_integers_rather_than_round_them(make, lengths):
    bank, x = make(), torch.arange(9 * zoo.CHANNELS).view(1, 9, zoo.CHANNELS)
    with pytest.raises(TypeError, match="dtype torch.int64; allowed: floating point"):
        bank.analysis(x, lengths)
    branches = [branch.long() for branch in bank.analysis(x.float(), lengths)]
    with pytest.raises(TypeError, match="dtype torch.int64; allowed: floating point"):
        bank.synthesis(branches, lengths)


@each_bank
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_a_bank_in_half_precision_stays_close(make, dtype, bound):
    bank = make()
    x = torch.randn(2, 21, zoo.CHANNELS, dtype=torch.float64)
    exact = bank.double().analysis(x)
    # parameters in half precision are other parameters: angles near pi are off by a thousandth
    for parameters, factor in ((torch.float32, 1), (dtype, 4)):
        for mine, reference in zip(bank.to(parameters).analysis(x.to(dtype)), exact):
            assert mine.dtype == dtype
            assert (mine.double() - reference).abs().max() <= factor * bound * reference.abs().max()


@each_bank
def test_a_module_in_half_precision_rounds_once(make):
    """It computes in single precision: layers that were rounded one by one would not undo one another."""
    bank = zoo.perturb(make()).to(torch.bfloat16)
    x, lengths = torch.randn(8, 33, zoo.CHANNELS).bfloat16(), torch.full((8,), 33)
    for mine, wide in zip(bank.analysis(x, lengths), bank.analysis(x.float(), lengths)):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, wide.bfloat16(), rtol=0, atol=0)


@each_bank
def test_a_bank_compiles_without_a_graph_break(make):
    bank = zoo.perturb(make())
    x, lengths = torch.randn(2, 9, zoo.CHANNELS), torch.tensor([9, 6])
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: bank.synthesis(bank.analysis(x, lengths), lengths), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(x), bank.synthesis(bank.analysis(x, lengths), lengths), rtol=1e-4, atol=1e-5)


@each_transform
def test_torch_func_and_forward_mode_see_through_a_transform(make):
    transform = zoo.perturb(make()).double()
    x, tangent = torch.randn(2, 3, 2, zoo.CHUNK, zoo.DIM, dtype=torch.float64).unbind(0)
    weight = torch.randn_like(x)

    def there_and_back(x):
        bands = transform(x)
        return transform.inverse(bands.replace(values=bands.values.tanh()))

    (gradient,) = torch.autograd.grad((there_and_back(x.requires_grad_()) * weight).sum(), x)
    x = x.detach()
    torch.testing.assert_close(torch.func.grad(lambda x: (there_and_back(x) * weight).sum())(x), gradient)
    _, moved = torch.func.jvp(there_and_back, (x,), (tangent,))
    torch.testing.assert_close((moved * weight).sum(), (gradient * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = there_and_back(torch.autograd.forward_ad.make_dual(x, tangent))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, moved)
    each = torch.func.vmap(lambda row: there_and_back(row[None])[0])(x)
    torch.testing.assert_close(each, there_and_back(x))
    lengths = torch.tensor([[zoo.CHUNK, zoo.CHUNK - 3], [zoo.CHUNK] * 2, [zoo.CHUNK, 5]])
    each = torch.func.vmap(lambda row, lengths: transform(row[None], lengths[None]).values[0])(x, lengths)
    torch.testing.assert_close(each, transform(x, lengths).values)


@each_transform
def test_a_transform_whose_shapes_alone_were_told_is_as_before(make):
    transform, x = make(), torch.randn(1, 2, zoo.CHUNK, zoo.DIM)
    with FakeTensorMode(allow_non_fake_inputs=True):
        shape = transform(torch.randn(1, 2, zoo.CHUNK, zoo.DIM)).values.shape
    bands = transform(x)
    assert shape == bands.values.shape and type(bands.values) is torch.Tensor
    torch.testing.assert_close(transform.inverse(bands), x, rtol=0, atol=1e-5)


@each_exact_bank
def test_a_bank_is_inverted_under_autocast_as_well(make):
    bank, x = zoo.perturb(make()), torch.randn(2, 21, zoo.CHANNELS)
    for lengths in (None, torch.tensor([21, 21])):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            back = bank.synthesis(bank.analysis(x, lengths), lengths)
        torch.testing.assert_close(back, x, rtol=0, atol=2e-5)


@each_transform
def test_positions_are_those_of_the_model_that_is_built_again(make):
    """Whatever a bank had learned before it was put into a transform: no state dict says that it had."""
    built = make()
    banks = [zoo.perturb(bank) for bank in built.filter_banks]
    if isinstance(built, wc.DWT2d):
        trained = wc.DWT2d(banks[0], level=built.level, channel_bank=banks[1])
    else:
        trained = type(built)(banks[0] if len(banks) == 1 else banks, level=built.level)
    torch.testing.assert_close(trained.layout(zoo.CHUNK).position, built.layout(zoo.CHUNK).position, rtol=0, atol=0)


@pytest.mark.gpu
@each_bank
def test_a_bank_on_the_gpu_equals_the_cpu(make):
    bank = zoo.perturb(make())
    x, lengths = torch.randn(3, 21, zoo.CHANNELS), torch.tensor([21, 8, 1])
    expected = bank.analysis(x, lengths)
    for mine, reference in zip(bank.cuda().analysis(x.cuda(), lengths.cuda()), expected):
        torch.testing.assert_close(mine.cpu(), reference, rtol=1e-4, atol=1e-5)


@each_transform
def test_transform_inverts_exactly_with_one_short_chunk_a_row(make):
    transform = zoo.perturb(make().double())
    for length in (zoo.CHUNK, zoo.CHUNK + 3, 27):
        lengths = torch.tensor([[length, length], [length, 5], [1, 0], [0, 0]])
        x = torch.randn(4, 2, length, zoo.DIM, dtype=torch.float64)
        behind = torch.arange(length) >= lengths[..., None]
        x[behind] = torch.nan
        bands = transform(x, lengths)
        assert torch.isfinite(bands.values).all() and not bands.values[~bands.mask].any()
        back = transform.inverse(bands)
        torch.testing.assert_close(back, torch.where(behind[..., None], 0, x), rtol=0, atol=1e-11)
        dense = transform(torch.nan_to_num(x))
        torch.testing.assert_close(transform.inverse(dense), torch.nan_to_num(x), rtol=0, atol=1e-11)


@each_transform
def test_transform_of_ragged_rows_equals_the_rows_alone(make):
    transform = zoo.perturb(make().double())
    lengths = torch.arange(zoo.CHUNK + 1)
    x = torch.randn(len(lengths), zoo.CHUNK, zoo.DIM, dtype=torch.float64)
    bands = transform(x, lengths)
    for row, n in enumerate(lengths.tolist()):
        if n >= 9:  # long enough for every transform's level by itself
            alone = transform(x[row : row + 1, :n])
            torch.testing.assert_close(bands.values[row][bands.mask[row]], alone.values[0], rtol=0, atol=1e-11)


@each_transform
def test_transform_inverts_from_what_is_known_of_some_coefficients(make):
    transform = zoo.perturb(make().double())
    lengths = torch.tensor([[16, 16], [16, 5], [1, 0]])
    bands = transform(torch.randn(3, 2, zoo.CHUNK, zoo.DIM, dtype=torch.float64), lengths)
    known = bands.mask & (torch.rand(bands.mask.shape) < 0.4)
    values = torch.where(known[..., None], bands.values, 0)
    layout = transform.layout_of(torch.where(known, bands.layout.level, 0), zoo.CHUNK)
    torch.testing.assert_close(
        transform.inverse(bands.replace(values=values, layout=layout)),
        transform.inverse(bands.replace(values=values)),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in zoo.every_transform() if hasattr(make(), "inverse_levels")]
)
def test_all_levels_at_once_are_each_alone(make):
    transform = zoo.perturb(make().double())
    for length, lengths in ((27, None), (zoo.CHUNK, torch.tensor([[16, 16], [16, 5], [1, 0]]))):
        bands = transform(torch.randn(3, 2, length, zoo.DIM, dtype=torch.float64), lengths)
        values = bands.values.detach().requires_grad_()
        together = transform.inverse_levels(bands.replace(values=values))
        alone = [transform.inverse(bands.replace(values=values), level) for level in range(transform.level, -1, -1)]
        alone = torch.cat(alone, dim=-2)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)
        wanted = [values, *(p for p in transform.parameters() if p.numel())]
        weight = torch.randn_like(alone)
        mine, theirs = (torch.autograd.grad((x * weight).sum(), wanted, allow_unused=True) for x in (together, alone))
        for one, other in zip(mine, theirs):
            torch.testing.assert_close(one, other)
        assert together.shape[-2] == len(transform.approximations(length))


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.every_transform() if make().dyadic])
def test_an_approximation_goes_up_as_if_its_details_were_zero(make):
    transform = zoo.perturb(make().double())
    for length, lengths in ((27, None), (zoo.CHUNK, torch.tensor([[16, 16], [16, 5], [1, 0]]))):
        bands = transform(torch.randn(3, 2, length, zoo.DIM, dtype=torch.float64), lengths)
        smooth = bands.replace(values=torch.where(bands.layout.always[:, None], bands.values, 0))
        for level in range(transform.level, 0, -1):
            low = transform.inverse(smooth, to_level=level)
            up = transform.upsample(low, lengths, level=level, chunk_length=length)
            torch.testing.assert_close(up, transform.inverse(smooth, to_level=level - 1), rtol=0, atol=1e-11)
    for level in (0, 3):
        with pytest.raises(ValueError, match=f"level={level} is out of range; allowed: 1 to 2"):
            transform.upsample(low, level=level, chunk_length=zoo.CHUNK)


@each_transform
def test_transform_gradients(make):
    transform = zoo.perturb(make().double())
    x = torch.randn(2, zoo.CHUNK, zoo.DIM, dtype=torch.float64, requires_grad=True)
    parameters = tuple(transform.parameters())
    forward = lambda x, *_: transform(x).values  # noqa: E731
    back = lambda x, *_: transform.inverse(transform(x).replace(values=x.square()))  # noqa: E731
    for function in (forward, back):
        assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)


@each_transform
def test_layout_of_a_transform_says_what_its_rows_say(make):
    """Rows of the transform, taken by gradients, have their weight where the layout puts them."""
    transform = make().double()
    layout = transform.layout(3 * zoo.CHUNK)
    assert len(layout) == sum(layout.counts) and layout.length == 3 * zoo.CHUNK
    x = torch.zeros(len(layout), 3 * zoo.CHUNK, zoo.DIM, dtype=torch.float64, requires_grad=True)
    outputs = transform(x).values[torch.arange(len(layout)), torch.arange(len(layout))]
    power, spectrum = 0, 0
    for channel in range(zoo.DIM):
        (rows,) = torch.autograd.grad(outputs[:, channel].sum(), x, retain_graph=True)
        power = power + rows.square().sum(-1)
        spectrum = spectrum + torch.fft.rfft(rows, n=1024, dim=1).abs().square().sum(-1)
    wraps = any(isinstance(part, wc.FilterBank) and part.wraps for part in transform.modules())
    centre = zoo.centroids(power, layout.support, layout.index, wraps=wraps)
    assert (layout.position - centre).abs().max() < 1e-4
    inside = (layout.position > 12) & (layout.position < 36)
    loudest = (spectrum @ torch.linspace(0, 0.5, 513, dtype=torch.float64)) / spectrum.sum(-1)
    assert ((loudest - layout.frequency).abs() < 0.12)[inside].all() and inside.any()


@each_transform
def test_learning_moves_no_position(make):
    transform = make()
    before = transform.layout(zoo.CHUNK).position.clone()
    zoo.perturb(transform, std=0.5)
    transform._layouts.clear()
    assert torch.equal(transform.layout(zoo.CHUNK).position, before)


@each_compressor
def test_compressor_fills_static_slots_at_its_ratio(make):
    compressor = make().eval()
    codes = compressor(chunks(length=3 * zoo.CHUNK))
    assert codes.values.shape == (2, 3 * compressor.capacity(zoo.CHUNK), zoo.DIM)
    controlled = any(isinstance(module, wc.RatioController) for module in compressor.modules())
    expected = {wc.NoCompression: 1.0, wc.NoCodes: float("inf")}.get(type(compressor), zoo.CHUNK / zoo.COUNT)
    assert float(codes.ratio) == expected or controlled
    assert not codes.values[~codes.mask].any()
    assert torch.equal(codes.statistics["kept"], codes.mask.view(2, 3, -1).sum(-1))
    assert torch.equal(codes.statistics["places"], torch.full((2, 3), zoo.CHUNK))


controlled = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name)
        for name, make in zoo.every_compressor()
        if any(isinstance(module, wc.RatioController) for module in make().modules())
    ],
)


@controlled
@pytest.mark.parametrize("target", [2.5, 4.0])
@torch.no_grad()
def test_the_ratio_is_met_by_control_and_by_calibration(make, target):
    compressor = make()
    (controller,) = (module for module in compressor.modules() if isinstance(module, wc.RatioController))
    x = torch.randn(64, 2 * zoo.CHUNK, zoo.DIM) * torch.rand(64, 2 * zoo.CHUNK, 1).exp() + torch.randn(64, 1, zoo.DIM)
    x = x.view(2, -1, zoo.DIM)  # two long rows: some draw by the place of a chunk
    encode = lambda x: compressor(wc.Codes.from_tokens(x).cut(zoo.CHUNK))  # noqa: E731
    start = controller.log_threshold.clone()
    controller.target_ratio = target
    reached = wc.calibrate(compressor, [x], encode=encode)
    assert abs(reached / controller.target_ratio - 1) < 0.05
    controller.set_threshold(float(start.exp()))
    tokens, kept = [], []
    for _ in range(300):
        codes = encode(x)
        tokens.append(codes.statistics["places"].sum())
        kept.append(codes.statistics["kept"].sum())
        controller.update(tokens=tokens[-1], codes=kept[-1])
    held = float(sum(tokens[-100:]) / sum(kept[-100:]))
    assert abs(held / controller.target_ratio - 1) < 0.05
    compressor.eval()
    assert abs(float(encode(x).ratio) / controller.target_ratio - 1) < 0.1


@controlled
def test_a_forward_pass_moves_no_threshold_and_a_checkpoint_keeps_it(make):
    compressor, other = make(), make()
    (controller,) = (module for module in compressor.modules() if isinstance(module, wc.RatioController))
    before = controller.log_threshold.clone()
    compressor(chunks())
    assert torch.equal(controller.log_threshold, before)
    controller.update(tokens=torch.tensor(100), codes=torch.tensor(50))
    assert not torch.equal(controller.log_threshold, before)
    zoo.perturb(compressor)
    other.load_state_dict(compressor.state_dict())
    for one, two in ((compressor.eval(), other.eval()),):
        same(one(chunks()), two(chunks()))
    (restored,) = (module for module in other.modules() if isinstance(module, wc.RatioController))
    for name, value in controller.named_buffers():
        assert torch.equal(value, restored.get_buffer(name)), name


@each_compressor
def test_compressor_rows_equal_rows_alone_whatever_lies_behind_them(make):
    compressor = zoo.perturb(make()).eval()
    lengths = torch.tensor([40, 37, 16, 5, 1])
    values = torch.randn(5, 40, zoo.DIM)
    values[torch.arange(40) >= lengths[:, None]] = torch.nan
    together = compressor(wc.Codes.from_tokens(values, lengths).cut(zoo.CHUNK))
    assert torch.isfinite(together.values).all()
    slots = compressor.capacity(zoo.CHUNK)
    for row, n in enumerate(lengths.tolist()):
        alone = compressor(wc.Codes.from_tokens(values[row : row + 1, :n]).cut(zoo.CHUNK))
        count = -(-n // zoo.CHUNK) * slots
        for name in ("values", *wc.Codes.per_slot):
            # what an empty slot says of itself has no meaning
            kept = alone.mask[0]
            mine, theirs = getattr(together, name)[row, :count], getattr(alone, name)[0]
            torch.testing.assert_close(mine[kept], theirs[kept], rtol=1e-5, atol=1e-6)
        assert torch.equal(together.mask[row, :count], alone.mask[0])
        assert not together.mask[row, count:].any()


@each_compressor
@pytest.mark.parametrize("training", [False, True])
def test_compressor_has_no_influence_between_chunks_or_rows(make, training):
    compressor = zoo.perturb(make()).train(training)
    before = chunks(length=48)
    values = before.values.clone()
    values[0, 1] = torch.randn(zoo.CHUNK, zoo.DIM)
    torch.manual_seed(0)  # in training some draw
    codes = compressor(before)
    torch.manual_seed(0)
    after = compressor(before.replace(values=values))
    slots = compressor.capacity(zoo.CHUNK)
    changed = (after.values != codes.values).any(-1) | (after.index != codes.index) | (after.mask != codes.mask)
    rows = changed.view(2, 3, slots).any(-1).tolist()
    if isinstance(compressor, wc.NoCodes):
        assert not codes.mask.any()
    elif compressor.causal:
        assert rows == [[False, True, False], [False, False, False]]
    else:  # between chunks there is, and so a causal model refuses it; never between rows
        assert rows[1] == [False, False, False]
        with pytest.raises(ValueError, match="not causal"):
            zoo.language_model(make())


@each_compressor
def test_compressor_gradients_against_finite_differences(make):
    compressor = zoo.perturb(make()).double().eval()
    whole = chunks(batch=1, length=21, lengths=torch.tensor([21]), dtype=torch.float64)
    values = whole.values.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: compressor(whole.replace(values=v * whole.mask[..., None])).values, values, fast_mode=True
    )


@each_compressor
def test_compressor_parameters_get_gradients(make):
    torch.manual_seed(0)
    compressor = zoo.perturb(make(), std=0.03)
    given = chunks(length=64)
    smooth = given.values.clone()
    smooth[0, :, :8] = smooth[0, :, :1] + 0.05 * smooth[0, :, :8]  # half a chunk in which little happens
    smooth[1, 0] = smooth[1, 0, :1] + 0.05 * smooth[1, 0]  # and a whole one
    for _ in range(8):  # some draw a rate, and at some rates a parameter has nothing to do
        codes = compressor(given.replace(values=smooth))
        back = compressor.expand(codes, given)  # some learn the way back
        loss = sum((x * torch.randn_like(x)).sum() for x in (codes.values, back)) + sum(codes.losses.values())
        if loss.requires_grad:  # not all have parameters
            loss.backward()
    for name, parameter in compressor.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@each_compressor
@pytest.mark.parametrize("length, lengths", [(0, None), (1, None), (5, [1, 1]), (20, [0, 0]), (20, [20, 0])])
def test_rows_too_short_to_say_anything_leave_finite_losses_and_gradients(make, length, lengths):
    compressor = zoo.perturb(make())
    given = chunks(length=length, lengths=None if lengths is None else torch.tensor(lengths))
    values = given.values.clone().requires_grad_()
    codes = compressor(given.replace(values=values))
    back = compressor.expand(codes, given)
    loss = codes.values.square().sum() + back.sum() + sum(codes.losses.values())
    found = [loss, *codes.statistics.values()]
    if loss.requires_grad:
        loss.backward()
        found += [p.grad for p in (values, *compressor.parameters()) if p.grad is not None]
    assert all(torch.isfinite(x).all() for x in found)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.causal_compressors()])
def test_chunks_of_a_first_stage_may_all_be_short(make):
    compressor = zoo.perturb(make()).eval()
    values = torch.randn(2, 8, zoo.CHUNK, zoo.DIM)
    values[:, ::2] = values[:, ::2, :1]  # every other chunk says one thing, and has few codes
    first = zoo.leaves()(wc.Codes.from_tokens(values.flatten(1, 2)).cut(zoo.CHUNK))
    whole = first.cut(zoo.CHUNK)
    assert whole.ragged and (whole.lengths < zoo.CHUNK).sum() > 4
    codes = compressor(whole)
    back = compressor.expand(codes, whole)
    slots = compressor.capacity(zoo.CHUNK)
    for chunk in range(whole.lengths.shape[1]):
        alone = first.part(chunk * zoo.CHUNK, (chunk + 1) * zoo.CHUNK).cut(zoo.CHUNK)
        mine = compressor(alone)
        own = slice(chunk * slots, (chunk + 1) * slots)
        assert torch.equal(codes.mask[:, own], mine.mask)
        torch.testing.assert_close(codes.values[:, own][mine.mask], mine.values[mine.mask], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back[:, chunk], compressor.expand(mine, alone)[:, 0], rtol=1e-4, atol=1e-5)


def coded(compressor, lengths=None, **given):
    """Codes of some chunks as a network may have changed them, and the chunks, without what has no meaning."""
    whole = chunks(lengths=lengths, **given)
    codes = compressor(whole)
    codes = codes.replace(
        values=torch.randn_like(codes.values).where(codes.mask[..., None], torch.nan),
        position=codes.position.where(codes.mask, torch.nan),
        level=codes.level.where(codes.mask, 1),
    )
    return codes, whole.replace(values=torch.full_like(whole.values, torch.nan))


@each_compressor
def test_expand_gives_whole_chunks_and_reads_neither_their_values_nor_empty_slots(make):
    compressor = zoo.perturb(make()).eval()
    codes, whole = coded(compressor, torch.tensor([40, 37, 16, 5, 0]), batch=5)
    back = compressor.expand(codes, whole)
    assert back.shape == whole.values.shape and torch.isfinite(back).all()
    assert not back[~whole.mask].any()
    assert back[whole.mask].any(-1).all() != isinstance(compressor, wc.NoCodes)
    half = compressor.expand(codes.replace(values=codes.values.bfloat16()), whole)
    assert half.dtype == torch.bfloat16 and (half - back).abs().mean() <= 0.03 * back.std()
    with pytest.raises(ValueError, match=r"expand: codes.mask has shape \(5, .*\), expected \(5, "):
        compressor.expand(codes, chunks(batch=5, length=16))


@each_compressor
def test_expand_of_rows_equals_rows_alone(make):
    compressor = zoo.perturb(make()).eval()
    lengths = torch.tensor([40, 37, 16, 5, 1])
    codes, whole = coded(compressor, lengths, batch=5)
    together = compressor.expand(codes, whole)
    slots = compressor.capacity(zoo.CHUNK)
    for row, n in enumerate(lengths.tolist()):
        alone = chunks(batch=1, length=n)
        count = alone.lengths.shape[1]
        its = {name: getattr(codes, name)[row : row + 1, : count * slots] for name in ("values", *wc.Codes.per_slot)}
        back = compressor.expand(codes.replace(**its, tokens=lengths[row : row + 1]), alone)
        torch.testing.assert_close(together[row, :count], back[0], rtol=1e-5, atol=1e-5)
        assert not together[row, count:].any()


@each_compressor
def test_expand_has_no_influence_between_chunks_or_rows(make):
    compressor = zoo.perturb(make()).eval()
    codes, whole = coded(compressor, length=48)
    values = codes.values.clone()
    values.view(2, 3, -1, zoo.DIM)[0, 1] += 1
    before, after = compressor.expand(codes, whole), compressor.expand(codes.replace(values=values), whole)
    changed = (after != before).flatten(2).any(-1).tolist()
    assert changed == [[False, not isinstance(compressor, wc.NoCodes), False], [False, False, False]]


@each_compressor
def test_expand_hands_a_gradient_to_every_code(make):
    compressor = zoo.perturb(make()).double().eval()
    codes, whole = coded(compressor, length=37, dtype=torch.float64)
    values = codes.values.requires_grad_()
    back = lambda values: compressor.expand(codes.replace(values=values), whole)  # noqa: E731
    (gradient,) = torch.autograd.grad((back(values) * torch.randn(whole.values.shape)).sum(), values)
    assert torch.equal(gradient.any(-1), codes.mask)
    smooth = torch.nan_to_num(values.detach()).requires_grad_()
    assert torch.autograd.gradcheck(back, smooth, fast_mode=True)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.every_compressor_that_keeps_all()])
def test_expand_is_the_inverse_of_a_compressor_that_keeps_all(make):
    compressor = make().eval()
    # these take as many numbers of a short chunk as it has tokens, but need more
    whole_alone = (wc.RandomMeasurementCompressor, wc.DWT2d)
    short = not any(isinstance(module, whole_alone) for module in compressor.modules())
    every = torch.arange(1, 41)
    for length, lengths in ((48, None), (40, every))[: 1 + short]:
        whole = chunks(batch=len(every), length=length, lengths=lengths)
        codes = compressor(whole)
        assert float(codes.ratio) == 1
        wanted = nn.functional.rms_norm(whole.values, (zoo.DIM,))
        torch.testing.assert_close(compressor.expand(codes, whole), wanted, rtol=0, atol=1e-5)


def test_no_public_class_escapes_the_inverse():
    assert set(zoo.PRUNERS_THAT_KEEP_ALL) == set(zoo.PRUNERS)
    assert set(zoo.COMPRESSORS_THAT_KEEP_ALL) | zoo.COMPRESSORS_THAT_CANNOT == set(zoo.COMPRESSORS)


@pytest.mark.parametrize("make", [pytest.param(make, id=kind.__name__) for kind, make in zoo.PRUNERS.items()])
def test_expand_of_a_pruned_orthogonal_transform_loses_the_energy_of_what_was_pruned(make):
    transform = wc.DWT1d(wc.OrthogonalFilterBank("haar"), level=2 if make is zoo.PRUNERS[wc.KeepLowpass] else 4)
    compressor = wc.WaveletCompressor(transform=transform, pruner=make()).eval()
    whole = chunks(batch=4, length=40, lengths=torch.tensor([40, 37, 16, 5]))
    wanted = nn.functional.rms_norm(whole.values, (zoo.DIM,))
    codes = compressor(whole)
    bands = transform(wanted, whole.lengths).values
    index = codes.index.view(4, 3, -1)
    kept = torch.zeros(4, 3, zoo.CHUNK).scatter_add(-1, index, codes.mask.view(4, 3, -1).float())[..., None]
    codes = codes.replace(values=bands.gather(-2, index[..., None].expand(-1, -1, -1, zoo.DIM)).flatten(1, 2))
    lost = (compressor.expand(codes, whole) - wanted).square().sum((-2, -1))
    torch.testing.assert_close(lost, (bands * (1 - kept)).square().sum((-2, -1)), rtol=1e-4, atol=1e-4)
    assert lost.sum() > 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name)
        for name, make in zoo.some_compressors()
        if not any(pruner.__name__ in name for pruner in zoo.PRUNERS)  # which have no part in it
    ],
)
@torch.no_grad()
def test_expand_compiles_without_a_graph_break(make):
    compressor = zoo.perturb(make()).eval()
    codes, whole = coded(compressor, torch.tensor([40, 21]))
    torch._dynamo.reset()
    compiled = torch.compile(compressor.expand, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(codes, whole), compressor.expand(codes, whole), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@each_compressor
def test_expand_on_the_gpu_equals_the_cpu(make):
    compressor = zoo.perturb(make()).eval()
    codes, whole = coded(compressor, torch.tensor([40, 21]))
    expected = compressor.expand(codes, whole)
    mine = compressor.cuda().expand(codes.to("cuda"), whole.to("cuda"))
    torch.testing.assert_close(mine.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@each_compressor
def test_the_codes_of_a_compressor_on_the_gpu_are_those_of_the_cpu(make):
    compressor = zoo.perturb(make()).eval()
    whole = chunks(length=40, lengths=torch.tensor([40, 21]))
    expected = compressor(whole)
    mine = compressor.cuda()(whole.to("cuda")).to("cpu")
    assert float(mine.ratio) == float(expected.ratio)
    for name in ("values", *wc.Codes.per_slot):
        found, wanted = getattr(mine, name)[expected.mask], getattr(expected, name)[expected.mask]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in zoo.some_compressors()])
@torch.no_grad()
def test_compressor_compiles_without_a_graph_break(make):
    compressor = zoo.perturb(make()).eval()
    values = torch.randn(2, 40, zoo.DIM)
    torch._dynamo.reset()
    encode = lambda values, lengths: compressor(wc.Codes.from_tokens(values, lengths).cut(zoo.CHUNK))  # noqa: E731
    compiled = torch.compile(encode, fullgraph=True, backend="aot_eager")
    lengths = torch.tensor([40, 21])
    found, expected = compiled(values, lengths), encode(values, lengths)
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)


@each_compressor
def test_a_compressor_that_was_first_used_under_torch_func_is_one_like_others(make):
    compressor, other = make().eval(), make().eval()
    other.load_state_dict(compressor.state_dict())
    x = torch.randn(3, 2 * zoo.CHUNK, zoo.DIM)

    def loud(row, compressor=compressor):
        codes = compressor(wc.Codes.from_tokens(row[None]).cut(zoo.CHUNK))
        return codes.values.square().sum()

    each = torch.func.vmap(torch.func.grad(loud))(x)
    rows = x.requires_grad_()
    (expected,) = torch.autograd.grad(sum(loud(row, other) for row in rows), rows)
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5)
    for same in (compressor, copy.deepcopy(compressor), pickle.loads(pickle.dumps(compressor))):
        torch.testing.assert_close(loud(x[0], same), loud(x[0], other))


@each_compressor
def test_a_compressor_trains_after_it_was_used_in_inference_mode(make):
    compressor = make()
    given = chunks()
    with torch.inference_mode():
        compressor.expand(compressor(given), given)
    values = given.values.clone().requires_grad_()
    codes = compressor(given.replace(values=values))
    (codes.values.sum() + compressor.expand(codes, given).sum() + sum(codes.losses.values())).backward()
    assert torch.isfinite(values.grad).all()


@each_compressor
def test_end_is_that_of_the_chunk_and_never_for_a_short_one(make):
    compressor = make()
    codes = compressor(chunks(length=40))
    slots = compressor.capacity(zoo.CHUNK)
    assert codes.end.view(2, 3, slots)[..., 0].tolist() == [[16, 32, NEVER]] * 2
    assert codes.chunk.view(2, 3, slots)[..., 0].tolist() == [[0, 1, 2]] * 2


@each_compressor
def test_quiet_and_flat_chunks_stay_finite(make):
    compressor = make()
    for values in (torch.zeros(1, 16, zoo.DIM), torch.ones(1, 16, zoo.DIM), torch.full((1, 16, zoo.DIM), 1e15)):
        values.requires_grad_()
        codes = compressor(wc.Codes.from_tokens(values).cut(zoo.CHUNK))
        codes.values.sum().backward()
        assert torch.isfinite(codes.values).all() and torch.isfinite(values.grad).all()


def causal_models():
    for name, make in zoo.causal_compressors():
        if name != "WaveletCompressor":
            yield pytest.param(lambda make=make: zoo.language_model(make()).eval(), id=name)
    yield from model_shapes()


def model_shapes():
    yield pytest.param(lambda: zoo.language_model(), id="WaveletCompressor")
    yield pytest.param(lambda: zoo.language_model(reduce_window=4), id="ReduceNetwork-window")
    yield pytest.param(lambda: zoo.language_model(plain_encoder=True), id="encoder-without-lengths")
    yield pytest.param(lambda: zoo.language_model(pooled=True), id="ReduceNetwork-input_pooling")
    yield pytest.param(lambda: zoo.language_model(chunk=8, second=4), id="two-stages")


each_model = pytest.mark.parametrize("make", list(causal_models()))


@each_model
def test_logits_of_every_prefix_equal_the_full_run(make):
    model = zoo.perturb(make()).double().eval()
    tokens = torch.randint(256, (2, 53))
    full = model(tokens)
    for length in range(1, 54):
        torch.testing.assert_close(model(tokens[:, :length]), full[:, :length], rtol=0, atol=1e-10)


@each_model
def test_no_gradient_from_the_future_and_one_from_the_distant_past(make):
    model = zoo.perturb(make()).double()
    tokens = torch.randint(256, (1, 70))
    embeddings = model.embedding(tokens).detach().requires_grad_()
    model.embedding = zoo.Given(embeddings)
    logits = model(tokens)
    for t in (0, 1, 15, 16, 17, 33, 48, 69):
        (gradient,) = torch.autograd.grad(logits[:, t].sum(), embeddings, retain_graph=True)
        per_token = gradient[0].abs().sum(-1)
        assert not per_token[t:].any(), t
    # two blocks of window 8 and a convolution of width 4 read back less than 18 tokens
    if not isinstance(model.body.chunk_networks[0].compressor, wc.NoCodes):
        assert per_token[:16].any() and per_token[16:32].any()
    without = model(tokens, codes="hidden")
    (gradient,) = torch.autograd.grad(without[:, 69].sum(), embeddings)
    assert not gradient[0, : 69 - 18].any()


@each_model
def test_permuting_rows_permutes_logits(make):
    model = zoo.perturb(make()).double()
    tokens = torch.randint(256, (4, 40))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(tokens[order]), model(tokens)[order], rtol=0, atol=1e-10)


@each_model
def test_ragged_rows_of_a_model_equal_the_rows_alone(make):
    model = zoo.perturb(make()).double()
    for longest in (53, zoo.CHUNK + 1, zoo.CHUNK, zoo.CHUNK - 1, 1, 0):
        lengths = torch.tensor([53, 40, 32, 17, 16, 1]).clamp(max=longest)
        tokens = torch.randint(256, (6, longest))
        tokens[torch.arange(longest) >= lengths[:, None]] = -100
        together = model(tokens, lengths)
        for row, n in enumerate(lengths.tolist()):
            torch.testing.assert_close(together[row, :n], model(tokens[row : row + 1, :n])[0], rtol=0, atol=1e-10)


@each_model
def test_generation_step_by_step_equals_the_full_forward(make):
    model = zoo.perturb(make(), std=0.3).double().eval()
    prompt = torch.randint(256, (2, 13))
    out = model.generate(prompt, max_new_tokens=24, temperature=0)
    assert torch.equal(out[:, :13], prompt)
    assert torch.equal(out[:, 13:], model(out).argmax(-1)[:, 13:])


@pytest.mark.parametrize("make", list(model_shapes()))
def test_model_compiles_without_a_graph_break(make):
    model = zoo.perturb(make())
    tokens = torch.randint(256, (2, 40))
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), model(tokens), rtol=1e-4, atol=1e-5)
    compiled(tokens).sum().backward()
    lengths = torch.tensor([40, 21])
    with torch.no_grad():  # a graph of its own, without that of the gradient
        ragged = compiled(tokens, lengths)
    torch.testing.assert_close(ragged[1, :21], model(tokens, lengths)[1, :21], rtol=1e-4, atol=1e-5)


@each_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_stays_close(make, dtype):
    model = zoo.perturb(make())
    tokens = torch.randint(256, (2, 40))
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(tokens)
    for half in (mixed, model.to(dtype)(tokens)):
        assert (half.float() - exact).abs().mean() < 0.1 * exact.std()


@pytest.mark.gpu
@each_model
def test_gpu_equals_cpu(make):
    model = zoo.perturb(make())
    tokens = torch.randint(256, (2, 53))
    lengths = torch.tensor([53, 30])
    expected = model(tokens, lengths)
    on_gpu = model.cuda()(tokens.cuda(), lengths.cuda()).cpu()
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(on_gpu[row, :n], expected[row, :n], rtol=1e-3, atol=1e-4)
