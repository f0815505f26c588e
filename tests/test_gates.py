"""The gates that every public transform, pruner, compressor and network passes, in loops over the public classes."""

import inspect

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc
from wavecomp.codes import NEVER


def public(base):
    return {
        value
        for name in wc.__all__
        if inspect.isclass(value := getattr(wc, name)) and issubclass(value, base) and value is not base
    }


@pytest.mark.parametrize(
    "base, table",
    [(wc.FilterBank, zoo.FILTER_BANKS), (wc.Pruner, zoo.PRUNERS), (wc.Compressor, zoo.COMPRESSORS)],
)
def test_no_public_class_escapes_the_gates(base, table):
    assert public(base) == set(table) and table


def chunks(batch=2, length=40, lengths=None, seed=0, dtype=torch.float32):
    values = torch.randn(batch, length, zoo.DIM, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return wc.Codes.from_tokens(values, lengths).cut(zoo.CHUNK)


each_compressor = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in zoo.every_compressor()]
)
each_bank = pytest.mark.parametrize(
    "make", [pytest.param(make, id=kind.__name__) for kind, make in zoo.FILTER_BANKS.items()]
)


def same(one, other, **tolerance):
    for name in ("values", *wc.Codes.per_slot):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **tolerance)


@each_bank
def test_bank_inverts_exactly_at_every_length(make):
    bank = make().double()
    for length in range(1, 65):
        x = torch.randn(2, length, 3, dtype=torch.float64)
        branches = bank.analysis(x)
        assert [b.shape[-2] for b in branches] == [-(-(length - b) // bank.branches) for b in range(bank.branches)]
        assert (bank.synthesis(branches) - x).abs().max() < 1e-12


@each_bank
def test_ragged_rows_of_a_bank_equal_the_rows_alone(make):
    bank = make().double()
    for length in (1, 2, 5, 8, 13):
        lengths = torch.arange(length + 1)
        x = torch.randn(length + 1, length, 3, dtype=torch.float64)
        behind = torch.arange(length) >= lengths[:, None]
        x[behind] = torch.nan
        branches = bank.analysis(x, lengths)
        back = bank.synthesis(branches, lengths)
        torch.testing.assert_close(back, torch.where(behind[..., None], 0, x), rtol=0, atol=1e-12)
        for row, n in enumerate(lengths.tolist()):
            if n:
                for ragged, alone in zip(branches, bank.analysis(x[row : row + 1, :n])):
                    torch.testing.assert_close(ragged[row, : alone.shape[-2]], alone[0], rtol=0, atol=1e-12)
                    assert not ragged[row, alone.shape[-2] :].any()


@each_bank
def test_bank_gradients(make):
    bank = make().double()
    x = torch.randn(3, 7, 2, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([7, 4, 1])
    assert torch.autograd.gradcheck(bank.analysis, x)
    assert torch.autograd.gradcheck(lambda x: bank.synthesis(bank.analysis(2 * x)), x)
    assert torch.autograd.gradcheck(lambda x: bank.analysis(x, lengths), x)
    assert torch.autograd.gradgradcheck(lambda x: bank.analysis(x.square(), lengths), x)


@each_compressor
def test_compressor_fills_static_slots_at_its_ratio(make):
    compressor = make()
    codes = compressor(chunks(length=3 * zoo.CHUNK))
    assert codes.values.shape == (2, 3 * compressor.capacity(zoo.CHUNK), zoo.DIM)
    assert float(codes.ratio) == zoo.CHUNK / zoo.COUNT
    assert not codes.values[~codes.mask].any()


@each_compressor
def test_compressor_rows_equal_rows_alone_whatever_lies_behind_them(make):
    compressor = zoo.perturb(make())
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
def test_compressor_has_no_influence_between_chunks_or_rows(make):
    compressor = zoo.perturb(make())
    before = chunks(length=48)
    codes = compressor(before)
    values = before.values.clone()
    values[0, 1] = torch.randn(zoo.CHUNK, zoo.DIM)
    after = compressor(before.replace(values=values))
    slots = compressor.capacity(zoo.CHUNK)
    changed = (after.values != codes.values).any(-1) | (after.index != codes.index) | (after.mask != codes.mask)
    assert changed.view(2, 3, slots).any(-1).tolist() == [[False, True, False], [False, False, False]]


@each_compressor
def test_compressor_gradients_against_finite_differences(make):
    compressor = zoo.perturb(make()).double()
    whole = chunks(batch=1, length=21, lengths=torch.tensor([21]), dtype=torch.float64)
    values = whole.values.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: compressor(whole.replace(values=v * whole.mask[..., None])).values, values, fast_mode=True
    )


@each_compressor
def test_compressor_parameters_get_gradients(make):
    compressor = make()
    codes = compressor(chunks())
    (codes.values * torch.randn_like(codes.values)).sum().backward()
    for name, parameter in compressor.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


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
    for name, make in zoo.every_compressor():
        yield pytest.param(lambda make=make: zoo.language_model(make()), id=name)
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
    model.embedding = Given(embeddings)
    logits = model(tokens)
    for t in (0, 1, 15, 16, 17, 33, 48, 69):
        (gradient,) = torch.autograd.grad(logits[:, t].sum(), embeddings, retain_graph=True)
        per_token = gradient[0].abs().sum(-1)
        assert not per_token[t:].any(), t
    # two blocks of window 8 and a convolution of width 4 read back less than 18 tokens
    assert per_token[:16].any() and per_token[16:32].any()
    without = model(tokens, codes="hidden")
    (gradient,) = torch.autograd.grad(without[:, 69].sum(), embeddings)
    assert not gradient[0, : 69 - 18].any()


class Given(nn.Module):
    """Embeddings that were made before, for the first tokens asked for."""

    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = embeddings

    def forward(self, tokens):
        return self.embeddings[:, : tokens.shape[1]]


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


@each_model
def test_model_compiles_without_a_graph_break(make):
    model = zoo.perturb(make())
    tokens = torch.randint(256, (2, 40))
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), model(tokens), rtol=1e-4, atol=1e-5)
    compiled(tokens).sum().backward()
    lengths = torch.tensor([40, 21])
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
