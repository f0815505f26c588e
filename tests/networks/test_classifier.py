"""One answer per row, from the mean of its codes."""

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc
from wavecomp.networks.classifier import passage_weights


def classifier(compressor, classes=5):
    return wc.ChunkReduceClassifier(
        embedding=nn.Embedding(256, zoo.DIM),
        body=wc.ChunkReduce(
            chunk_networks=[
                wc.ChunkNetwork(
                    chunk_length=zoo.CHUNK,
                    encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
                    compressor=compressor,
                )
            ],
            reduce_network=wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1, window=None, causal=False),
        ),
        head=nn.Linear(zoo.DIM, classes),
    )


each_compressor = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in zoo.some_compressors()]
)


@each_compressor
def test_ragged_rows_equal_the_rows_alone_whatever_lies_behind_them(make):
    model = zoo.perturb(classifier(make())).double().eval()
    lengths = torch.tensor([53, 40, 32, 17, 5, 1, 0])
    tokens = torch.randint(256, (7, 53))
    tokens[torch.arange(53) >= lengths[:, None]] = -100
    together = model(tokens, lengths)
    assert together.shape == (7, 5) and torch.isfinite(together).all()
    for row, n in enumerate(lengths[:-1].tolist()):
        torch.testing.assert_close(together[row : row + 1], model(tokens[row : row + 1, :n]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [zoo.wavelet_compressor, zoo.leaves, zoo.PRUNERS[wc.GlobalTopK]])
def test_gradients_reach_every_parameter(make):
    made = make()
    model = classifier(zoo.wavelet_compressor(made) if isinstance(made, wc.Pruner) else made)
    for _ in range(4):
        tokens = torch.randint(256, (4, 61))
        tokens[1] = 0  # in which little happens, for what is asked of quiet chunks alone
        logits = model(tokens, torch.tensor([61, 48, 30, 7]))
        (logits * torch.randn_like(logits)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_passage_counts_by_its_length_not_by_its_codes():
    model = classifier(wc.NoCompression())
    model.head = nn.Identity()
    codes = wc.Codes.from_tokens(torch.randn(2, 10, zoo.DIM), torch.tensor([10, 4]))
    every = model.classify(codes)
    torch.testing.assert_close(every, torch.stack([codes.values[0].mean(0), codes.values[1, :4].mean(0)]))
    # eight tokens with one code between them, beside two with one each
    support = torch.tensor([[8.0, 1, 1] + [5.0] * 7] * 2)
    mask = torch.arange(10).expand(2, 10) < 3
    uneven = model.classify(codes.replace(support=support, mask=mask))
    x = codes.values[0]
    torch.testing.assert_close(uneven[0], (8 * x[0] + x[1] + x[2]) / 10)


@each_compressor
def test_a_busy_passage_counts_as_much_as_a_flat_one(make):
    """Whatever was kept of it; and a short one by its length, up to what its codes cover."""
    network = wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=make()).eval()
    flat, busy = torch.ones(1, 2 * zoo.CHUNK, zoo.DIM), torch.randn(1, 2 * zoo.CHUNK + 8, zoo.DIM)
    codes = network(wc.Codes.from_tokens(torch.cat([flat, busy], dim=1)))
    weight = passage_weights(codes)
    assert not weight[~codes.mask].any()
    least, most = codes.position - codes.support / 2, codes.position + codes.support / 2
    for chunk in codes.chunk[codes.mask].unique().tolist():
        here = codes.mask & (codes.chunk == chunk)
        torch.testing.assert_close(weight[here].sum(), most[here].max() - least[here].min())
        shares, supports = weight[here] / weight[here].sum(), codes.support[here] / codes.support[here].sum()
        torch.testing.assert_close(shares, supports.to(shares.dtype))
        if make is zoo.COMPRESSORS[wc.DCTCompressor]:
            assert weight[here].sum() == (zoo.CHUNK if chunk < 4 else 8)


@pytest.mark.parametrize("pruner", [wc.GlobalTopK, wc.Shrinkage, wc.TopK])
def test_details_take_no_weight_from_a_passage_without(pruner):
    network = wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=zoo.wavelet_compressor(zoo.PRUNERS[pruner]())).eval()
    halves = [torch.ones(1, 2 * zoo.CHUNK, zoo.DIM), torch.randn(1, 2 * zoo.CHUNK, zoo.DIM)]
    codes = network(wc.Codes.from_tokens(torch.cat(halves, dim=1)))
    weight = passage_weights(codes)
    flat, busy = (weight[codes.mask & (codes.chunk // 2 == half)].sum() for half in (0, 1))
    assert float(flat) == pytest.approx(2 * zoo.CHUNK) == float(busy)
    counts = [int((codes.mask & (codes.chunk // 2 == half)).sum()) for half in (0, 1)]
    assert pruner is wc.TopK or counts[1] > 2 * counts[0]


def test_stages_that_lie_side_by_side_weigh_what_they_cover():
    stages = [wc.ChunkNetwork(chunk_length=length, compressor=wc.MeanPoolCompressor(count=4)) for length in (16, 8)]
    body = wc.ChunkReduce(chunk_networks=stages, reduce_network=nn.Identity())
    codes = body(wc.Codes.from_tokens(torch.randn(2, 70, zoo.DIM), torch.tensor([70, 33])))
    expected = torch.where(codes.mask, codes.support, 0).double()
    torch.testing.assert_close(passage_weights(codes), expected)
    torch.testing.assert_close(expected.sum(-1), torch.tensor([70.0 + 70, 33 + 33]).double())


def test_a_row_without_codes_has_what_the_head_gives_of_nothing():
    model = classifier(wc.NoCodes())
    torch.testing.assert_close(model(torch.randint(256, (3, 40))), model.head.bias.expand(3, -1))


def test_codes_stand_in_for_tokens():
    model = zoo.perturb(classifier(zoo.wavelet_compressor()))
    tokens = torch.randint(256, (2, 48))
    codes = model.encode(tokens)
    assert float(codes.ratio) == zoo.RATIO
    assert torch.equal(model.classify(codes), model(tokens))
    assert (model.classify(codes.hidden()) - model(tokens)).abs().max() > 1e-4


def test_model_compiles_without_a_graph_break():
    model = zoo.perturb(classifier(wc.MeanPoolCompressor(count=4)))
    tokens, lengths = torch.randint(256, (2, 40)), torch.tensor([40, 21])
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, lengths), model(tokens, lengths), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_stays_close(dtype):
    model = zoo.perturb(classifier(zoo.wavelet_compressor()))
    tokens = torch.randint(256, (2, 40))
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(tokens)
    for half in (mixed, model.to(dtype)(tokens)):
        assert (half.float() - exact).abs().mean() < 0.1 * exact.std()


@pytest.mark.gpu
@each_compressor
def test_gpu_equals_cpu(make):
    model = zoo.perturb(classifier(make())).eval()
    tokens, lengths = torch.randint(256, (2, 53)), torch.tensor([53, 30])
    expected = model(tokens, lengths)
    torch.testing.assert_close(model.cuda()(tokens.cuda(), lengths.cuda()).cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "tokens, lengths, message",
    [
        (torch.zeros(3, dtype=torch.int64), None, r"tokens has shape \(3,\), expected \(batch, length\)"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3]), r"tokens: lengths has shape \(1,\), expected \(2,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 4]), "tokens: lengths holds 4; allowed: 0 to 3"),
    ],
)
def test_bad_input_is_named(tokens, lengths, message):
    with pytest.raises(ValueError, match=message):
        classifier(zoo.wavelet_compressor())(tokens, lengths)
