"""The way back: codes to as many slots as they were made of, stage by stage, and to the logits of the same tokens."""

import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F

import wavecomp as wc


def reads_both_ways():
    return wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False)


def stage(compressor, chunk_length=zoo.CHUNK):
    encoder = wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1)
    return wc.ChunkNetwork(chunk_length=chunk_length, encoder=encoder, compressor=compressor)


def decoder(network=None):
    return wc.ChunkDecoder(
        chunk_length=zoo.CHUNK,
        network=network or wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
        head=nn.Linear(zoo.DIM, 256),
        encoding=wc.PositionFrequencyEncoding(zoo.DIM),
    )


def autoencoder(*stages, network=None, keep="last"):
    body = wc.ChunkReduce(chunk_networks=stages, reduce_network=reads_both_ways(), keep=keep)
    return wc.ChunkReduceAutoencoder(embedding=nn.Embedding(256, zoo.DIM), body=body, decoder=decoder(network))


def global_top_k():
    return zoo.wavelet_compressor(wc.GlobalTopK(target_ratio=zoo.RATIO))


MODELS = {
    "WaveletCompressor": lambda: autoencoder(stage(zoo.wavelet_compressor())),
    "GlobalTopK": lambda: autoencoder(stage(global_top_k())),
    "DyadicLeaves": lambda: autoencoder(stage(zoo.leaves())),
    "RandomMeasurement": lambda: autoencoder(stage(zoo.sparse_measurements(zoo.COUNT))),
    "MeanPool": lambda: autoencoder(stage(wc.MeanPoolCompressor(count=3))),
    "two-stages": lambda: autoencoder(
        stage(zoo.wavelet_compressor()), stage(zoo.wavelet_compressor(wc.KeepLowpass(2)), 8)
    ),
    # chunks of the second stage have holes
    "leaves-first": lambda: autoencoder(stage(zoo.leaves()), stage(wc.MeanPoolCompressor(count=4), 16)),
    "network-without-lengths": lambda: autoencoder(
        stage(zoo.wavelet_compressor()), network=nn.Sequential(nn.Linear(zoo.DIM, zoo.DIM), nn.GELU())
    ),
}
each_model = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in MODELS.items()])


def ready(make, std=0.1):
    return zoo.perturb(make(), std=std).double().eval()


@each_model
def test_ragged_rows_equal_the_rows_alone_whatever_lies_behind_them(make):
    model = ready(make)
    for longest in (53, 16, 1):
        lengths = torch.tensor([53, 40, 32, 17, 5, 1, 0]).clamp(max=longest)
        tokens = torch.randint(256, (7, longest))
        tokens[torch.arange(longest) >= lengths[:, None]] = -100
        together = model(tokens, lengths)
        assert together.shape == (7, longest, 256) and torch.isfinite(together).all()
        for row, n in enumerate(lengths[:-1].tolist()):
            torch.testing.assert_close(together[row, :n], model(tokens[row : row + 1, :n])[0], rtol=0, atol=1e-10)


def test_nothing_comes_back_from_nothing():
    assert MODELS["two-stages"]()(torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, 256)


@each_model
def test_gradients_reach_every_parameter(make):
    model = make()
    for _ in range(4):
        logits = model(tokens_with_a_quiet_row(), torch.tensor([61, 48, 30, 7]))
        (logits * torch.randn_like(logits)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def tokens_with_a_quiet_row():
    tokens = torch.randint(256, (4, 61))
    tokens[1] = 0  # in which little happens, for what is asked of quiet chunks alone
    return tokens


@each_model
def test_nothing_but_codes_and_structure_is_decoded(make):
    model = ready(make)
    tokens, lengths = torch.randint(256, (2, 40)), torch.tensor([40, 29])
    *before, codes = model.stages(tokens, lengths)
    without = [given.replace(values=torch.full_like(given.values, torch.nan)) for given in before]
    expected = model(tokens, lengths)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(model.decode(codes, without)[row, :n], expected[row, :n])
    silent = model.decode(codes.replace(values=0 * codes.values), before)
    assert (silent - expected)[0].abs().max() > 1e-3
    assert torch.equal(model.encode(tokens, lengths).values, codes.values)


def test_without_their_codes_all_texts_are_alike():
    model = ready(MODELS["WaveletCompressor"])
    first, second = (model.stages(torch.randint(256, (1, 40))) for _ in range(2))
    silent = [model.decode(codes.replace(values=0 * codes.values), before) for *before, codes in (first, second)]
    assert torch.equal(*silent)


def test_one_body_may_look_at_the_whole_sequence_both_ways():
    model = ready(MODELS["GlobalTopK"])
    embedded = torch.randn(1, 48, zoo.DIM, dtype=torch.float64, requires_grad=True)
    model.embedding = zoo.Given(embedded)
    logits = model(torch.zeros(1, 48, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(logits[0, 3].square().sum(), embedded)
    assert gradient[0, 40:].any()


def test_what_a_stage_keeps_comes_back_to_the_slots_that_it_came_from():
    values = torch.randn(3, 80, zoo.DIM)
    values[:, 16:32] = values[:, 16:17]  # a chunk of few codes
    first = zoo.leaves().eval()
    tokens = wc.Codes.from_tokens(values, torch.tensor([80, 51, 0]))
    fine = wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=first)(tokens)
    counts = fine.mask.unflatten(1, (5, -1)).sum(-1)
    assert counts[0, 1] < counts[0, 2]
    for length in (first.capacity(zoo.CHUNK), 3 * first.capacity(zoo.CHUNK)):
        network = wc.ChunkNetwork(chunk_length=length, compressor=wc.NoCompression())
        back = network.expand(network(fine), fine)
        assert torch.equal(back.mask, fine.mask)
        torch.testing.assert_close(back.values, F.rms_norm(fine.values, (zoo.DIM,)))
        assert not back.values[~fine.mask].any()


def test_stages_are_undone_from_the_last_to_the_first():
    halves = [wc.ChunkNetwork(chunk_length=8, compressor=wc.MeanPoolCompressor(count=4)) for _ in range(2)]
    body = wc.ChunkReduce(chunk_networks=halves, reduce_network=nn.Identity(), keep="last")
    tokens = wc.Codes.from_tokens(torch.randn(1, 40, zoo.DIM))
    stages = body.stages(tokens)
    assert torch.equal(body.reduce(stages).values, body(tokens).values)
    back = body.expand(stages[-1], [tokens, stages[0]])
    fours = stages[-1].values.repeat_interleave(4, dim=1)
    assert torch.equal(back.values, fours[:, :40])
    assert torch.equal(back.position, tokens.position)


def test_a_decoder_may_read_across_the_chunks_of_the_codes():
    codes = wc.Codes.from_tokens(torch.randn(1, 40, zoo.DIM, requires_grad=True))
    for length, reached in ((16, 16), (32, 32)):
        network = wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1)
        read = wc.ChunkDecoder(chunk_length=length, network=network, head=nn.Identity())(codes)
        (gradient,) = torch.autograd.grad(read[0, 0].square().sum(), codes.values)
        assert gradient[0].any(-1).tolist() == [True] * reached + [False] * (40 - reached)


def test_tokens_of_one_code_are_told_apart_by_their_position():
    tokens = wc.Codes.from_tokens(torch.ones(1, 32, zoo.DIM))
    network = nn.Sequential(nn.Linear(zoo.DIM, zoo.DIM), nn.GELU())
    for encoding, alike in ((None, True), (wc.PositionFrequencyEncoding(zoo.DIM), False)):
        read = wc.ChunkDecoder(chunk_length=16, network=network, head=nn.Identity(), encoding=encoding)(tokens)
        assert bool(((read - read[:, :1]).abs() < 1e-6).all()) == alike


def test_how_loud_an_inverse_is_makes_no_difference_to_the_decoder():
    codes = wc.Codes.from_tokens(torch.randn(2, 32, zoo.DIM))
    read = decoder()
    torch.testing.assert_close(read(codes.replace(values=100 * codes.values)), read(codes))
    marks = read.encoding(codes.replace(values=torch.zeros_like(codes.values))).values
    assert 0.5 < read.gain.item() / marks.square().mean().sqrt().item() < 2


def test_model_compiles_without_a_graph_break():
    model = zoo.perturb(MODELS["MeanPool"]())
    tokens, lengths = torch.randint(256, (2, 40)), torch.tensor([40, 21])
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found, expected = compiled(tokens, lengths), model(tokens, lengths)
    torch.testing.assert_close(found[1, :21], expected[1, :21], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_stays_close(dtype):
    model = zoo.perturb(MODELS["two-stages"]())
    tokens = torch.randint(256, (2, 40))
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(tokens)
    for half in (mixed, model.to(dtype)(tokens)):
        assert (half.float() - exact).abs().mean() < 0.1 * exact.std()


@pytest.mark.gpu
@each_model
def test_gpu_equals_cpu(make):
    model = zoo.perturb(make()).eval()
    tokens, lengths = torch.randint(256, (2, 53)), torch.tensor([53, 30])
    expected = model(tokens, lengths)
    on_gpu = model.cuda()(tokens.cuda(), lengths.cuda()).cpu()
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(on_gpu[row, :n], expected[row, :n], rtol=1e-3, atol=1e-4)


def pooled():
    pooling = wc.ChunkNetwork(chunk_length=2, compressor=wc.MeanPoolCompressor(count=1))
    network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False, input_pooling=pooling)
    body = wc.ChunkReduce(chunk_networks=[stage(wc.MeanPoolCompressor(count=4))], reduce_network=network)
    model = wc.ChunkReduceAutoencoder(embedding=nn.Embedding(256, zoo.DIM), body=body, decoder=decoder())
    return model(torch.zeros(1, 32, dtype=torch.int64))


def mean_pools(**settings):
    return autoencoder(*(stage(wc.MeanPoolCompressor(count=4), length) for length in (16, 8)), **settings)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mean_pools(keep="all"), "body has keep='all' and 2 stages, .* allowed: keep='last', or one stage"),
        (pooled, r"expand: codes.mask has shape \(1, 4\), expected \(1, 8\)"),
        (
            lambda: mean_pools().decode(*[wc.Codes.from_tokens(torch.randn(1, 16, zoo.DIM))] * 1, []),
            "before holds 0 codes; allowed: one per stage, 2",
        ),
        (
            lambda: decoder(nn.Linear(zoo.DIM, 7))(wc.Codes.from_tokens(torch.randn(1, 8, zoo.DIM))),
            r"network Linear returned shape \(1, 16, 7\), expected \(1, 16, 16\)",
        ),
        (lambda: wc.ChunkDecoder(chunk_length=0, network=nn.Identity(), head=nn.Identity()), "chunk_length=0 is too"),
        (lambda: mean_pools()(torch.zeros(3, dtype=torch.int64)), r"tokens has shape \(3,\), expected \(batch"),
        (
            lambda: mean_pools()(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 4])),
            "tokens: lengths holds 4; allowed: 0 to 3",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_autoencoder_learns_to_recover_what_is_sparse():
    compressor = zoo.sparse_measurements(zoo.COUNT)
    model = autoencoder(stage(compressor))
    tokens = torch.randint(256, (2, 40))
    F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in compressor.recovery.parameters())
