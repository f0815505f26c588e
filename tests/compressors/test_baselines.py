import copy
import math

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F
from zoo import CHUNK, COUNT, DIM

import wavecomp as wc
from wavecomp.bands import Bands
from wavecomp.compressors.dct import DCTCompressor, cosines
from wavecomp.compressors.latent_queries import LatentQueriesCompressor
from wavecomp.compressors.max_pool import MaxPoolCompressor
from wavecomp.compressors.no_codes import NoCodes
from wavecomp.compressors.no_compression import NoCompression
from wavecomp.compressors.random_measurement import RandomMeasurementCompressor, SparseRecovery
from wavecomp.compressors.strided_conv import StridedConvCompressor
from wavecomp.compressors.surprisal_drop import SurprisalDropCompressor
from wavecomp.pace import NEVER


@pytest.fixture
def half_precision():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def test_latent_queries_are_built_in_half_precision(half_precision):
    out = LatentQueriesCompressor(dim=DIM, heads=2, count=COUNT).out.weight
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float() @ out.float().T, torch.eye(DIM, dtype=torch.float32), rtol=0, atol=2e-2)


def encoding():
    return wc.PositionFrequencyEncoding(DIM)


BASELINES = {
    MaxPoolCompressor: lambda: MaxPoolCompressor(count=COUNT, encoding=encoding()),
    StridedConvCompressor: lambda: StridedConvCompressor(dim=DIM, count=COUNT, chunk_length=CHUNK, encoding=encoding()),
    LatentQueriesCompressor: lambda: LatentQueriesCompressor(dim=DIM, heads=2, count=COUNT, encoding=encoding()),
    DCTCompressor: lambda: DCTCompressor(count=COUNT, encoding=encoding()),
    RandomMeasurementCompressor: lambda: RandomMeasurementCompressor(count=COUNT, encoding=encoding()),
    SurprisalDropCompressor: lambda: SurprisalDropCompressor(dim=DIM, count=COUNT, encoding=encoding()),
    NoCompression: lambda: NoCompression(encoding=encoding()),
    NoCodes: lambda: NoCodes(),
}
RATIOS = {NoCompression: 1, NoCodes: math.inf}  # the others': CHUNK / COUNT


def each(table):
    return pytest.mark.parametrize("make", [pytest.param(make, id=kind.__name__) for kind, make in table.items()])


each_baseline = each(BASELINES)
each_that_has_codes = each({kind: make for kind, make in BASELINES.items() if kind is not NoCodes})


def chunks(batch=2, length=40, lengths=None, dtype=torch.float32):
    values = torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return wc.Codes.from_tokens(values, lengths).cut(CHUNK)


def normalised(x):
    return F.rms_norm(x, x.shape[-1:])


def expected_count(compressor, length):
    whole = CHUNK / RATIOS.get(type(compressor), CHUNK / COUNT)
    return math.ceil(whole * length / CHUNK)


# what holds for all of them


@each_baseline
def test_static_slots_at_the_ratio(make):
    compressor = make()
    codes = compressor(chunks(length=3 * CHUNK))
    assert compressor.causal
    assert codes.values.shape == (2, 3 * compressor.capacity(CHUNK), DIM)
    assert float(codes.ratio) == RATIOS.get(type(compressor), CHUNK / COUNT)
    assert not codes.values[~codes.mask].any()


@each_baseline
def test_short_chunks_have_codes_in_proportion_and_all_lie_inside(make):
    compressor = make()
    for length in range(1, CHUNK + 1):
        codes = compressor(chunks(batch=1, length=length))
        assert int(codes.mask.sum()) == expected_count(compressor, length), length
        position, support = codes.position[codes.mask], codes.support[codes.mask]
        assert (position >= 0).all() and (position <= length - 1).all()
        assert (support > 0).all() and (support <= length).all()
        frequency, level = codes.frequency[codes.mask], codes.level[codes.mask]
        assert (frequency >= 0).all() and (frequency <= 0.5).all() and (level >= 0).all()


@each_baseline
def test_rows_equal_rows_alone_whatever_lies_behind_them(make):
    compressor = zoo.perturb(make())
    lengths = torch.tensor([40, 37, 16, 5, 1, 0])
    values = torch.randn(6, 40, DIM)
    values[torch.arange(40) >= lengths[:, None]] = torch.nan
    values.requires_grad_()
    together = compressor(wc.Codes.from_tokens(values, lengths).cut(CHUNK))
    assert torch.isfinite(together.values).all()
    slots = compressor.capacity(CHUNK)
    for row, n in enumerate(lengths.tolist()):
        alone = compressor(wc.Codes.from_tokens(values[row : row + 1, :n]).cut(CHUNK))
        count = -(-n // CHUNK) * slots
        for name in ("values", *wc.Codes.per_slot):
            kept = alone.mask[0]
            mine, theirs = getattr(together, name)[row, :count], getattr(alone, name)[0]
            torch.testing.assert_close(mine[kept], theirs[kept], rtol=1e-5, atol=2e-6)
        assert torch.equal(together.mask[row, :count], alone.mask[0])
        assert not together.mask[row, count:].any()
    (together.values.square().sum() + sum(together.losses.values())).backward()
    assert torch.isfinite(values.grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in compressor.parameters())


@each_baseline
def test_no_influence_between_chunks_or_rows(make):
    compressor = zoo.perturb(make())
    before = chunks(length=48)
    codes = compressor(before)
    values = before.values.clone()
    values[0, 1] = torch.randn(CHUNK, DIM)
    after = compressor(before.replace(values=values))
    slots = compressor.capacity(CHUNK)
    changed = (after.values != codes.values).any(-1) | (after.index != codes.index) | (after.mask != codes.mask)
    has_codes = not isinstance(compressor, NoCodes)
    assert changed.view(2, 3, slots).any(-1).tolist() == [[False, has_codes, False], [False, False, False]]


@each_baseline
def test_gradients_against_finite_differences(make):
    compressor = zoo.perturb(make()).double()
    whole = chunks(batch=1, length=21, lengths=torch.tensor([21]), dtype=torch.float64)
    values = whole.values.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: compressor(whole.replace(values=v * whole.mask[..., None])).values, values, fast_mode=True
    )


@each_baseline
def test_parameters_get_gradients_from_codes_or_losses(make):
    compressor = zoo.perturb(make())
    codes = compressor(chunks())
    loss = (codes.values * torch.randn_like(codes.values)).sum() + sum(codes.losses.values())
    loss.backward() if loss.requires_grad else None
    for name, parameter in compressor.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@each_baseline
def test_end_is_that_of_the_chunk_and_never_for_a_short_one(make):
    compressor = make()
    codes = compressor(chunks(length=40))
    slots = compressor.capacity(CHUNK)
    assert codes.end.view(2, 3, slots)[..., 0].tolist() == [[16, 32, NEVER]] * 2
    assert codes.chunk.view(2, 3, slots)[..., 0].tolist() == [[0, 1, 2]] * 2


@each_baseline
def test_quiet_and_flat_chunks_stay_finite(make):
    for value in (0, 1, 1e15):
        compressor = make()
        values = torch.full((1, 21, DIM), float(value), requires_grad=True)
        codes = compressor(wc.Codes.from_tokens(values).cut(CHUNK))
        (codes.values.sum() + sum(codes.losses.values())).backward()
        assert torch.isfinite(codes.values).all() and torch.isfinite(values.grad).all()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in compressor.parameters())


@each_baseline
def test_nothing_to_compress(make):
    compressor = make()
    for batch, length in ((0, 20), (2, 0), (0, 0)):
        codes = compressor(chunks(batch=batch, length=length))
        assert codes.values.shape == (batch, -(-length // CHUNK) * compressor.capacity(CHUNK), DIM)
        assert all(torch.isfinite(loss) for loss in codes.losses.values())


@each_that_has_codes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(make, dtype):
    compressor = zoo.perturb(make())
    whole = chunks()
    exact = compressor(whole)
    with torch.autocast("cpu", dtype):
        mixed = compressor(whole)
    halved = copy.deepcopy(compressor).to(dtype)(whole.replace(values=whole.values.to(dtype)))
    assert halved.values.dtype == dtype
    for half in (mixed, halved):
        # close surprisals may change places
        same = exact.mask & (half.index == exact.index)
        assert same.sum() > 0.8 * exact.mask.sum() and torch.equal(half.mask, exact.mask)
        assert (half.values - exact.values)[same].abs().mean() < 0.03 * exact.values[same].std()
        (half.values.float().square().sum() + sum(half.losses.values())).backward()
    assert all(torch.isfinite(p.grad).all() for p in compressor.parameters() if p.grad is not None)


@each_baseline
def test_whole_chunks_are_the_same_whether_known_to_be_or_not(make):
    compressor = zoo.perturb(make())
    dense = chunks(length=32)
    assert dense.dense
    torch.testing.assert_close(compressor(dense).values, compressor(dense.replace(dense=False)).values)


@each_baseline
def test_a_model_with_it_is_causal(make):
    model = zoo.perturb(zoo.language_model(make())).double().eval()
    tokens = torch.randint(256, (2, 53))
    full = model(tokens)
    for length in (1, 16, 17, 33, 40):
        torch.testing.assert_close(model(tokens[:, :length]), full[:, :length], rtol=0, atol=1e-10)


@each_baseline
def test_it_compresses_the_codes_of_a_first_stage(make):
    first = wc.MeanPoolCompressor(count=4)(wc.Codes.from_tokens(torch.randn(2, 8 * CHUNK, DIM)).cut(8))
    second = make()(first.cut(CHUNK))
    assert second.values.shape[1] == 4 * make().capacity(CHUNK)
    assert second.end.amax() == 8 * CHUNK and second.position.amax() < 8 * CHUNK
    if second.mask.any():
        torch.testing.assert_close(second.ratio, 2.0 * make()(chunks(length=32)).ratio)


@pytest.mark.gpu
@each_baseline
def test_gpu_equals_cpu(make):
    compressor = zoo.perturb(make())
    whole = chunks(lengths=torch.tensor([40, 21]))
    expected = compressor(whole)
    codes = compressor.cuda()(whole.to("cuda")).to("cpu")
    for name in ("values", *wc.Codes.per_slot):
        torch.testing.assert_close(getattr(codes, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


# what each of them means


def test_max_is_max_in_the_groups_that_the_mean_is_taken_of():
    x = torch.randn(2, 27, 8) - 3  # all maxima negative: nothing that is absent may look like zero
    for count, length in ((4, 16), (3, 10), (7, 10), (10, 10), (1, 5)):
        whole = wc.Codes.from_tokens(x).cut(length)
        codes, means = MaxPoolCompressor(count=count)(whole), wc.MeanPoolCompressor(count=count)(whole)
        for name in ("mask", "position", "support", "frequency", "level", "index", "end"):
            mine, theirs = getattr(codes, name)[codes.mask], getattr(means, name)[codes.mask]
            torch.testing.assert_close(mine, theirs)
        values = codes.values.view(2, -1, count, 8)
        for place in range(27):
            group = place % length * count // length
            assert (values[:, place // length, group] >= normalised(x)[:, place]).all()
        is_max = (values[:, :, :, None] == normalised(x)[:, None, None]).any(3)
        assert is_max.all(-1)[codes.mask.view(2, -1, count)].all()


@pytest.mark.parametrize("kernel, least, most", [(4, 0.05, 0.2), (8, 0.1, 0.3)])
def test_strided_conv_starts_near_the_mean(kernel, least, most):
    whole = wc.Codes.from_tokens(torch.randn(2, 32, 64)).cut(16)
    compressor = StridedConvCompressor(dim=64, count=4, chunk_length=16, kernel=kernel)
    codes, means = compressor(whole), wc.MeanPoolCompressor(count=4)(whole)
    noise = (codes.values - means.values).std() / means.values.std()
    assert least < noise < most
    for name in ("mask", "position", "support", "frequency", "level", "index", "end"):
        torch.testing.assert_close(getattr(codes, name), getattr(means, name))


@pytest.mark.parametrize("kernel", [None, 4, 8])
def test_strided_conv_is_the_convolution_of_each_chunk(kernel):
    x = torch.randn(2, 32, 64)
    compressor = StridedConvCompressor(dim=64, count=4, chunk_length=16, kernel=kernel)
    weight = compressor.project.weight.unflatten(1, (-1, 64)).transpose(1, 2)
    alone = normalised(x).unflatten(1, (2, 16)).flatten(0, 1).transpose(1, 2)
    expected = F.conv1d(alone, weight, stride=4, padding=((kernel or 4) - 4) // 2).transpose(1, 2)
    codes = compressor(wc.Codes.from_tokens(x).cut(16))
    torch.testing.assert_close(codes.values, expected.reshape(2, 8, 64), rtol=1e-4, atol=1e-5)


def test_latent_queries_read_the_whole_chunk_and_stand_in_their_group():
    compressor = LatentQueriesCompressor(dim=DIM, heads=2, count=COUNT)
    x = torch.randn(1, CHUNK, DIM, requires_grad=True)
    codes = compressor(wc.Codes.from_tokens(x).cut(CHUNK))
    assert codes.position.tolist() == [[1.5, 5.5, 9.5, 13.5]] and codes.support.tolist() == [[4.0] * 4]
    (gradient,) = torch.autograd.grad(codes.values[0, 0].square().sum(), x)
    assert gradient.abs().sum(-1).all()
    short = compressor(wc.Codes.from_tokens(x[:, :6]).cut(CHUNK))
    assert short.mask.tolist() == [[True, True, False, False]]
    assert short.position[short.mask].tolist() == [1.5, 4.5] and short.support[short.mask].tolist() == [4.0, 2.0]
    uneven = LatentQueriesCompressor(dim=DIM, heads=2, count=3)
    assert [int(uneven(wc.Codes.from_tokens(x[:, :n]).cut(7)).mask.sum()) for n in range(1, 8)] == [1, 1, 1, 2, 2, 3, 3]


def test_latent_queries_can_tell_places_apart_and_start_as_loud_as_a_mean():
    compressor = LatentQueriesCompressor(dim=64, heads=4, count=COUNT)
    whole = wc.Codes.from_tokens(torch.randn(8, CHUNK, 64)).cut(CHUNK)
    codes = compressor(whole)
    turned = compressor(whole.replace(values=whole.values.flip(-2)))
    assert (codes.values - turned.values).abs().max() > 1e-2
    means = wc.MeanPoolCompressor(count=COUNT)(whole)
    assert 0.5 < codes.values.std() / means.values.std() < 2


def test_dct_of_what_is_flat_or_one_cosine_is_one_coefficient():
    for n in (1, 2, 7, 16):
        flat = DCTCompressor(count=16)(wc.Codes.from_tokens(torch.full((1, n, 1), 5.0)).cut(16))
        expected = torch.zeros(16)
        expected[0] = n**0.5
        torch.testing.assert_close(flat.values[0, :, 0], expected, rtol=0, atol=1e-5)
    wave = torch.cos(math.pi * (torch.arange(16) + 0.5) * 3 / 16)
    # two channels of equal loudness in every token, so that the normalisation changes no shape
    quadrature = torch.sin(math.pi * (torch.arange(16) + 0.5) * 3 / 16)
    values = torch.stack([wave, quadrature], dim=-1)
    codes = DCTCompressor(count=8)(wc.Codes.from_tokens(values[None]).cut(16))
    assert codes.values[0, :, 0].abs().argmax() == 3 and (codes.values[0, :, 0].abs() > 1e-5).sum() == 1
    assert codes.frequency[0].tolist() == [k / 32 for k in range(8)]
    assert codes.position.unique().tolist() == [7.5] and codes.support.unique().tolist() == [16]
    assert codes.level.unique().tolist() == [4]


def test_dct_tables_are_orthonormal_at_each_length():
    lengths = torch.tensor([[0, 1, 5], [8, 13, 16]])
    table = cosines(lengths, 16, 16, dtype=torch.float64)
    for n, mine in zip(lengths.flatten().tolist(), table.flatten(0, 1)):
        mine = mine[:n, :n]
        torch.testing.assert_close(mine @ mine.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)
        k, t = np.arange(n)[:, None], np.arange(n)
        theirs = np.cos(np.pi * (2 * t + 1) * k / (2 * max(n, 1))) * np.sqrt(np.where(k == 0, 1, 2) / max(n, 1))
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    long = cosines(torch.tensor(1024), 1024, 1024)
    exact = cosines(torch.tensor(1024), 1024, 1024, dtype=torch.float64)
    assert (long - exact).abs().max() < 2e-8


def test_dct_of_a_short_chunk_is_that_of_its_own_length():
    x = torch.randn(1, 22, DIM)
    codes = DCTCompressor(count=4)(wc.Codes.from_tokens(x).cut(16))
    expected = cosines(torch.tensor(6), 6, 2) @ normalised(x)[0, 16:]
    torch.testing.assert_close(codes.values[0, 4:6], expected, rtol=1e-5, atol=1e-6)
    assert codes.mask[0].tolist() == [True] * 6 + [False] * 2
    assert codes.position[0, 4:6].tolist() == [18.5, 18.5] and codes.support[0, 4:6].tolist() == [6, 6]
    torch.testing.assert_close(codes.frequency[0, 4:6], torch.tensor([0, 1 / 12]))


def test_measurements_are_orthonormal_and_follow_from_the_seed():
    like = torch.empty(0, dtype=torch.float64)
    compressor = RandomMeasurementCompressor(count=5, seed=3)
    matrix = compressor.matrix(16, like)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(RandomMeasurementCompressor(count=5, seed=3).matrix(16, like), matrix)
    assert not torch.allclose(RandomMeasurementCompressor(count=5, seed=4).matrix(16, like), matrix)
    assert torch.equal(compressor.half().double().matrix(16, like), matrix) and not compressor.state_dict()
    x = torch.randn(1, 22, DIM, dtype=torch.float64)
    codes = compressor(wc.Codes.from_tokens(x).cut(16))
    torch.testing.assert_close(codes.values[0, :5], matrix @ normalised(x)[0, :16])
    torch.testing.assert_close(codes.values[0, 5:7], matrix[:2, :6] @ normalised(x)[0, 16:])
    assert codes.mask[0].tolist() == [True] * 7 + [False] * 3


def sparse(batch, chunks, length, transform, dim=4):
    """Chunks whose approximation is dense and of whose details few are not zero."""
    layout = transform.layout(length)
    detail = (torch.rand(batch, chunks, length, dim) < 0.08) & ~layout.always[:, None]
    values = 3 * torch.randn(batch, chunks, length, dim) * (detail | layout.always[:, None])
    lengths = torch.full((batch, chunks), length)
    return transform.inverse(Bands(values=values, lengths=lengths, layout=layout, dense=True))


def error(estimate, truth):
    return float((estimate - truth).detach().square().sum() / truth.square().sum())


@pytest.mark.parametrize("wavelet", ["haar", "db4"])
def test_recovery_of_a_sparse_signal_beats_the_adjoint_and_learns(wavelet):
    transform = wc.DWT1d(wavelet, level=4)
    recovery = SparseRecovery(transform=transform)
    matrix = RandomMeasurementCompressor(count=32).matrix(64, torch.empty(0))
    truth = sparse(16, 2, 64, transform)
    measured = matrix @ truth
    before = error(recovery(measured, matrix), truth)
    assert before < 0.1 < 0.4 < error(matrix.T @ measured, truth)
    optimizer = torch.optim.Adam(recovery.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        other = sparse(16, 2, 64, transform)
        (recovery(matrix @ other, matrix) - other).square().mean().backward()
        optimizer.step()
    assert all(p.grad.any() for p in recovery.parameters())
    found = recovery(measured, matrix)
    assert error(found, truth) < 0.8 * before
    torch.testing.assert_close(matrix @ found, measured, rtol=0, atol=1e-4)


def test_recovery_from_as_many_measurements_as_tokens_is_exact_and_reads_nothing_behind():
    recovery = zoo.perturb(SparseRecovery(transform=wc.DWT1d("haar", level=2), iterations=2), std=0.3)
    compressor = RandomMeasurementCompressor(count=16, recovery=recovery)
    lengths = torch.tensor([32, 21])
    x = torch.randn(2, 32, DIM)
    x[1, 21:] = torch.nan
    chunks = wc.Codes.from_tokens(x, lengths).cut(16)
    codes = compressor(chunks)
    marked = codes.replace(values=torch.where(codes.mask[..., None], codes.values, torch.nan))
    back = compressor.expand(marked, chunks).flatten(1, 2)
    assert torch.isfinite(back).all() and not back[1, 21:].any()
    torch.testing.assert_close(back[0], normalised(x[0]), rtol=0, atol=1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(compressor.expand, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(marked, chunks).flatten(1, 2), back, rtol=0, atol=1e-5)


def test_surprisal_of_a_token_reads_no_later_token():
    compressor = zoo.perturb(SurprisalDropCompressor(dim=DIM, count=COUNT), std=0.3)
    values = torch.randn(1, 2, CHUNK, DIM)
    before = compressor.surprisal(values)
    for t in range(CHUNK):
        changed = values.clone()
        changed[0, 0, t] = torch.randn(DIM)
        differs = compressor.surprisal(changed) != before
        assert not differs[0, 0, :t].any() and differs[0, 0, t : t + 5].all() and not differs[0, 1].any()
        assert not differs[0, 0, t + 5 :].any()


def test_what_the_predictor_learns_to_foresee_is_dropped():
    table = torch.randn(6, DIM)

    def drawn(batch):
        """Rows that go round four symbols, with two others thrown in."""
        odd = torch.rand(batch, CHUNK) < 0.2
        symbols = torch.where(odd, torch.randint(4, 6, (batch, CHUNK)), torch.arange(CHUNK) % 4)
        return wc.Codes.from_tokens(table[symbols]).cut(CHUNK), odd

    compressor = SurprisalDropCompressor(dim=DIM, count=CHUNK // 2, weight=2.0)
    optimizer = torch.optim.Adam(compressor.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        compressor(drawn(32)[0]).losses["surprisal"].backward()
        optimizer.step()
    whole, odd = drawn(64)
    codes = compressor(whole)
    kept = torch.zeros(64, CHUNK, dtype=torch.bool).scatter(1, codes.index, True)
    assert (kept & odd).sum() > 0.95 * odd.sum()
    torch.testing.assert_close(codes.losses["surprisal"], 2 * codes.statistics["surprisal"].mean())


def test_surprising_tokens_stay_in_order_and_their_predictor_moves_no_encoder():
    compressor = SurprisalDropCompressor(dim=DIM, count=COUNT)
    x = torch.randn(2, 40, DIM, requires_grad=True)
    codes = compressor(wc.Codes.from_tokens(x).cut(CHUNK))
    assert (codes.index.view(2, 3, COUNT).diff() > 0)[:, :2].all()
    position = codes.position[codes.mask].view(2, -1).long()
    expected = normalised(x).gather(1, position[..., None].expand(-1, -1, DIM))
    torch.testing.assert_close(codes.values[codes.mask].view(2, -1, DIM), expected)
    assert codes.support[codes.mask].unique().tolist() == [1]
    before = torch.autograd.grad(codes.values.square().sum(), x, retain_graph=True)[0]
    both = torch.autograd.grad(codes.values.square().sum() + codes.losses["surprisal"], x)[0]
    assert torch.equal(before, both)
    alike = compressor(wc.Codes.from_tokens(torch.zeros(1, CHUNK, DIM)).cut(CHUNK))
    assert alike.index.tolist() == [[0, 1, 2, 3]]


def test_the_loss_of_the_predictor_is_a_mean_over_tokens_and_joins_that_of_a_first_stage():
    compressor = SurprisalDropCompressor(dim=DIM, count=COUNT, weight=1.0)
    x = torch.randn(2, 20, DIM)
    x[1, 7:] = torch.nan
    whole = wc.Codes.from_tokens(x, torch.tensor([20, 7])).cut(CHUNK)
    alone = [compressor(wc.Codes.from_tokens(x[i : i + 1, :n]).cut(CHUNK)) for i, n in ((0, 20), (1, 7))]
    mean = (20 * alone[0].losses["surprisal"] + 7 * alone[1].losses["surprisal"]) / 27
    torch.testing.assert_close(compressor(whole).losses["surprisal"], mean)
    second = compressor(whole.replace(losses={"surprisal": torch.tensor(2.0)}))
    torch.testing.assert_close(second.losses["surprisal"], mean + 2)


def test_no_compression_returns_the_tokens():
    x = torch.randn(2, 37, DIM)
    tokens = wc.Codes.from_tokens(x)
    codes = NoCompression()(tokens.cut(CHUNK))
    for name in ("values", *wc.Codes.per_slot):
        if name not in ("chunk", "index", "end"):
            expected = normalised(x) if name == "values" else getattr(tokens, name)
            torch.testing.assert_close(getattr(codes, name)[:, :37], expected)
    assert not codes.mask[:, 37:].any()


def test_no_codes_are_seen_by_nobody():
    codes = NoCodes()(chunks())
    assert not codes.visible(torch.arange(60)).any() and not codes.values.any()
    model = zoo.perturb(zoo.language_model(NoCodes()))
    tokens = torch.randint(256, (2, 40))
    torch.testing.assert_close(model(tokens), model(tokens, codes="hidden"))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MaxPoolCompressor(count=0), "count=0 is too small; allowed: 1 and above"),
        (lambda: DCTCompressor(count=9).capacity(8), "count=9 asks for more codes than the 8 tokens of a chunk"),
        (lambda: DCTCompressor(count=17)(chunks()), "count=17 asks for more codes than the 16 tokens"),
        (
            lambda: StridedConvCompressor(dim=4, count=3, chunk_length=16),
            "count=3 does not divide chunk_length=16; allowed: its divisors",
        ),
        *(
            (
                lambda kernel=kernel: StridedConvCompressor(dim=4, count=4, chunk_length=16, kernel=kernel),
                f"kernel={kernel} does not lie around groups of 4; allowed: 4, 6, ...",
            )
            for kernel in (2, 5)
        ),
        (
            lambda: StridedConvCompressor(dim=4, count=4, chunk_length=8)(chunks()),
            "chunk_length=16 is another than it was made for; allowed: 8",
        ),
        (
            lambda: LatentQueriesCompressor(dim=DIM, heads=3, count=1),
            r"heads=3 does not go with dim=16; allowed: dim a multiple of 4 \* heads",
        ),
        (lambda: LatentQueriesCompressor(dim=DIM, heads=0, count=1), "heads=0 does not go with dim=16"),
        (lambda: SurprisalDropCompressor(dim=DIM, count=1, window=0), "window=0 is too small; allowed: 1 and above"),
        (
            lambda: SurprisalDropCompressor(dim=DIM, count=1, weight=-1),
            "weight=-1 is out of range; allowed: 0 and above, finite",
        ),
        (
            lambda: SparseRecovery(transform=wc.DWT1d("haar", level=2), iterations=0),
            "iterations=0 is too small; allowed: 1 and above",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_baseline_is_a_module_with_a_name_that_can_be_copied_and_saved():
    assert len(BASELINES) == 8
    for kind, make in BASELINES.items():
        compressor = make()
        compressor(chunks())
        assert isinstance(compressor, nn.Module) and repr(compressor).startswith(kind.__name__)
        other = make()
        other.load_state_dict(copy.deepcopy(compressor).state_dict())
        torch.testing.assert_close(other(chunks()).values, compressor(chunks()).values)
