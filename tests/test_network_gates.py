"""The gates that every public network passes: rows alone, rows in another order, gradients against differences."""

import inspect

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc
from wavecomp.networks import TransformerBlock

# the first is a part of TransformerEncoder, the other reads with a network that is here
ELSEWHERE = {TransformerBlock, wc.networks.StreamingEncoder}


def within(values, lengths):
    """Places of tokens, and which of them are of a row."""
    length = values.shape[1]
    rows = torch.full(values.shape[:1], length) if lengths is None else lengths
    return values, torch.arange(length) < rows[:, None]


def on_tokens(model, x, lengths):
    return within(model((40 * x[..., 0]).long() % 256, lengths), lengths)


def on_codes(network, x, lengths):
    codes = network(wc.Codes.from_tokens(x, lengths))
    return codes.values, codes.mask


def on_places(network, x, lengths):
    x, mask = within(x, lengths)
    return network(torch.where(mask[..., None], x, 0), lengths=lengths), mask


def on_chunks(network, x, lengths):
    return within(network(wc.Codes.from_tokens(x, lengths)), lengths)


def on_pooled(decoder, x, lengths):
    codes = pool(zoo.CHUNK)(wc.Codes.from_tokens(x, lengths))
    return within(decoder(x, codes), lengths)


def on_rows(model, x, lengths):
    return model((40 * x[..., 0]).long() % 256, lengths)[:, None], torch.ones(len(x), 1, dtype=torch.bool)


def pool(length, count=4):
    return wc.ChunkNetwork(chunk_length=length, compressor=wc.MeanPoolCompressor(count=count))


def body(reduce_network, *, stages=2, compressor=None):
    first = wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=compressor or zoo.wavelet_compressor())
    second = [pool(2 * first.capacity, 2)] if stages == 2 else []
    return wc.ChunkReduce(chunk_networks=[first, *second], reduce_network=reduce_network)


def classifier(reduce_network, stages):
    return wc.ChunkReduceClassifier(
        embedding=nn.Embedding(256, zoo.DIM), body=body(reduce_network, stages=stages), head=nn.Linear(zoo.DIM, 5)
    )


def chunk_decoder():
    network = wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1)
    return wc.ChunkDecoder(chunk_length=zoo.CHUNK, network=network, head=nn.Linear(zoo.DIM, 7))


def autoencoder():
    network = wc.ChunkNetwork(chunk_length=zoo.CHUNK, compressor=zoo.wavelet_compressor())
    return wc.ChunkReduceAutoencoder(
        embedding=nn.Embedding(256, zoo.DIM),
        body=wc.ChunkReduce(chunk_networks=[network], reduce_network=nn.Identity(), keep="last"),
        decoder=chunk_decoder(),
    )


def layer():
    return nn.TransformerEncoderLayer(zoo.DIM, 2, 32, dropout=0.0, batch_first=True)


def gru():
    return wc.ReduceAdapter(network=wc.SequenceAdapter(nn.GRU(zoo.DIM, zoo.DIM, batch_first=True)), causal=True)


def reduce(**more):
    return wc.ReduceNetwork(**({"dim": zoo.DIM, "heads": 2, "layers": 2} | more))


REDUCE_NETWORKS = {
    "window": lambda: reduce(window=6),
    "whole": lambda: reduce(window=None),
    "two-way": lambda: reduce(window=None, causal=False),
    "pooled": lambda: reduce(window=None, input_pooling=pool(2, 1)),
    "gru": gru,
}

NETWORKS = {
    wc.TransformerEncoder: {"": (lambda: wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=2), on_places)},
    wc.SequenceAdapter: {
        "layer": (lambda: wc.SequenceAdapter(layer(), padding_mask="src_key_padding_mask"), on_places),
    },
    wc.ReduceNetwork: {name: (make, on_codes) for name, make in REDUCE_NETWORKS.items() if name != "gru"},
    wc.ReduceAdapter: {"gru": (gru, on_codes)},
    wc.ChunkNetwork: {
        "": (
            lambda: wc.ChunkNetwork(
                chunk_length=zoo.CHUNK,
                encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1),
                compressor=zoo.wavelet_compressor(),
            ),
            on_codes,
        )
    },
    wc.ChunkReduce: {name: (lambda make=make: body(make()), on_codes) for name, make in REDUCE_NETWORKS.items()},
    wc.LocalDecoder: {
        "": (
            lambda: wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=2, window=8, period=zoo.CHUNK),
            on_pooled,
        )
    },
    wc.ChunkDecoder: {"": (chunk_decoder, on_chunks)},
    wc.ChunkReduceLM: {"": (lambda: zoo.language_model(second=8, reduce_window=6), on_tokens)},
    wc.ChunkReduceAutoencoder: {"": (autoencoder, on_tokens)},
    wc.ChunkReduceClassifier: {
        f"{name}-{stages}": (lambda make=make, stages=stages: classifier(make(), stages), on_rows)
        for name, make in REDUCE_NETWORKS.items()
        for stages in (1, 2)
    },
}

each_network = pytest.mark.parametrize(
    "make, run",
    [
        pytest.param(make, run, id=f"{kind.__name__}-{name}")
        for kind, makers in NETWORKS.items()
        for name, (make, run) in makers.items()
    ],
)


def made(make):
    return zoo.perturb(make()).double().eval()


def test_no_public_network_escapes_the_gates():
    public = {getattr(wc.networks, name) for name in wc.networks.__all__}
    assert {value for value in public if inspect.isclass(value)} - ELSEWHERE == set(NETWORKS)
    for kind, makers in NETWORKS.items():
        assert makers and all(type(make()) is kind for make, _ in makers.values())


@each_network
def test_ragged_rows_equal_the_rows_alone_whatever_lies_behind_them(make, run):
    network, lengths = made(make), torch.tensor([90, 61, 40, 16, 9, 1])
    x = torch.randn(6, 90, zoo.DIM, dtype=torch.float64)
    values, mask = run(network, x, lengths)
    x[torch.arange(90) >= lengths[:, None]] = 7.0
    behind, _ = run(network, x, lengths)
    torch.testing.assert_close(behind[mask], values[mask], rtol=0, atol=0)
    for row, length in enumerate(lengths.tolist()):
        alone, own = run(network, x[row : row + 1, :length], None)
        torch.testing.assert_close(values[row][mask[row]], alone[0][own[0]], rtol=0, atol=1e-10)


@each_network
def test_rows_in_another_order_are_the_same_rows(make, run):
    network, lengths = made(make), torch.tensor([50, 33, 16, 3])
    x, order = torch.randn(4, 50, zoo.DIM, dtype=torch.float64), torch.tensor([2, 0, 3, 1])
    values, mask = run(network, x, lengths)
    moved, where = run(network, x[order], lengths[order])
    assert torch.equal(where, mask[order])
    torch.testing.assert_close(moved[where], values[order][where], rtol=0, atol=1e-12)


@each_network
def test_gradients_are_those_of_differences(make, run):
    network = made(make)
    x, lengths = torch.randn(3, 40, zoo.DIM, dtype=torch.float64), torch.tensor([40, 35, 7])
    _, mask = run(network, x, lengths)
    parameters = list(network.parameters())
    directions = [torch.randn_like(parameter) for parameter in parameters]
    weight = torch.randn(mask.shape, dtype=torch.float64)

    def loss():
        values, mask = run(network, x, lengths)
        return (values.tanh().sum(-1) * weight)[mask].sum()

    def moved(by):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions):
                parameter += by * direction
            found = float(loss())
            for parameter, direction in zip(parameters, directions):
                parameter -= by * direction
        return found

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    slope = float(sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions)))
    step = 1e-6
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6) and slope
