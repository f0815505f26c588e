"""A sequence that is read piece by piece becomes the codes of the whole, in memory that does not grow."""

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc
from wavecomp.pace import NEVER


def model(lengths=(16, 8), compressor=zoo.wavelet_compressor, *, window=8, pooling=None, **settings):
    compressors = [compressor(), *(wc.MeanPoolCompressor(count=4) for _ in lengths[1:])]
    networks = [
        wc.ChunkNetwork(
            chunk_length=length, encoder=wc.TransformerEncoder(dim=zoo.DIM, heads=2, layers=1), compressor=one
        )
        for length, one in zip(lengths, compressors)
    ]
    reduce_network = wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=window, input_pooling=pooling)
    language_model = wc.ChunkReduceLM(
        embedding=nn.Embedding(256, zoo.DIM),
        body=wc.ChunkReduce(chunk_networks=networks, reduce_network=reduce_network, **settings),
        decoder=wc.LocalDecoder(dim=zoo.DIM, heads=2, layers=1, window=8),
        head=nn.Linear(zoo.DIM, 256),
    )
    return zoo.perturb(language_model).eval()


def pooling():
    """That marks its codes by the number of their chunk."""
    compressor = wc.MeanPoolCompressor(count=1, encoding=wc.DyadicPositionCode(zoo.DIM, chunk_length=16))
    return wc.ChunkNetwork(chunk_length=2, compressor=compressor)


SHAPES = {
    "one-stage": lambda: model((16,)),
    "adaptive": lambda: model((16, 16), zoo.leaves),
    "three-stages": lambda: model((16, 8, 8), overlap=16),
    "last-stage": lambda: model((16, 8), keep="last"),
    "pooled": lambda: model((16, 8), pooling=pooling()),
    "whole-window": lambda: model((16,), window=None),
}


@pytest.mark.parametrize("block", [1, 100, 4096])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_codes_together_are_those_of_the_whole(shape, block):
    language_model = SHAPES[shape]()
    tokens = torch.randint(256, (2, 333))
    with torch.no_grad():
        whole = language_model.encode(tokens)
    encoder = wc.StreamingEncoder(language_model, block=block)
    parts = [encoder.feed(part) for part in tokens.split([0, 1, 15, 1, 150, 160, 6], dim=1)]
    codes = wc.Codes.join(parts)
    assert encoder.tokens == 333 and not codes.values.requires_grad
    complete = int((whole.end[0] < NEVER).sum())
    torch.testing.assert_close(codes.values, whole.values[:, :complete], rtol=0, atol=1e-5)
    for name in wc.Codes.per_slot:
        assert torch.equal(getattr(codes, name), getattr(whole, name)[:, :complete]), name
    span = language_model.body.spans[0 if shape != "last-stage" else -1]
    assert codes.tokens.tolist() == [333 // span * span] * 2
    assert set(codes.statistics) == set(whole.statistics)
    for name, expected in whole.statistics.items():
        count = 333 // language_model.body.spans[int(name.split(".")[1])]
        torch.testing.assert_close(codes.statistics[name], expected[:, :count], rtol=1e-5, atol=1e-5)


def test_statistics_are_of_every_chunk():
    language_model = model((16,), zoo.leaves)
    tokens = torch.randint(256, (1, 336))
    encoder = wc.StreamingEncoder(language_model, block=100)
    parts = [encoder.feed(part) for part in tokens.split([300, 36], dim=1)]
    whole = language_model.encode(tokens).statistics
    assert set(parts[0].statistics) == set(whole)
    for name, expected in whole.items():
        made = torch.cat([part.statistics[name] for part in parts], dim=1)
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_bytes_are_tokens():
    text, language_model = bytes(range(256)) * 2, model()
    codes = wc.StreamingEncoder(language_model).feed(text)
    assert torch.equal(codes.values, wc.StreamingEncoder(language_model).feed(torch.tensor([list(text)])).values)
    assert int(codes.tokens) == 512 and codes.values.shape[0] == 1


@pytest.mark.parametrize("window, grows", [(8, False), (None, True)])
def test_what_is_remembered_does_not_grow_within_a_window(window, grows):
    encoder, sizes = wc.StreamingEncoder(model(window=window)), []
    for _ in range(20):
        encoder.feed(torch.randint(256, (1, 64)))
        waiting = sum(codes.values.numel() for codes in encoder._state.pending)
        sizes.append(waiting + sum(x.room.numel() for pair in encoder._state.reduce.layers for x in pair))
    assert (sizes[-1] > 4 * sizes[2]) if grows else (sizes[-1] == sizes[2])


def test_codes_of_a_stream_stand_in_for_the_text():
    language_model, tokens = model((16,)), torch.randint(256, (1, 300))
    encoder = wc.StreamingEncoder(language_model)
    codes = wc.Codes.join([encoder.feed(part) for part in tokens.split(77, dim=1)])
    reach = language_model.decoder.reach
    answer = language_model(tokens[:, 250:], codes=codes, start=250)
    torch.testing.assert_close(answer[:, reach:], language_model(tokens)[:, 250 + reach :], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda encoder: wc.StreamingEncoder(model(), block=0), "block=0 is too small"),
        (lambda encoder: encoder.feed(torch.zeros(4, dtype=torch.int64)), r"tokens has shape \(4,\), expected"),
        (lambda encoder: encoder.feed(b"one row"), "tokens has 1 rows, those before had 2"),
    ],
)
def test_bad_input_is_named(call, message):
    encoder = wc.StreamingEncoder(model())
    encoder.feed(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=message):
        call(encoder)


def test_what_cannot_be_read_is_as_if_it_had_not_been_given():
    language_model = model()
    tokens = torch.randint(256, (1, 100))
    expected = wc.StreamingEncoder(language_model).feed(tokens)
    encoder = wc.StreamingEncoder(language_model)
    parts = [encoder.feed(tokens[:, :45])]
    with pytest.raises(IndexError):
        encoder.feed(torch.full((1, 50), 999))
    parts.append(encoder.feed(tokens[:, 45:]))
    found = wc.Codes.join(parts)
    assert torch.equal(found.position, expected.position) and encoder.tokens == 100
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-5)
