"""``torch.export`` of what makes codes: one program for every number of rows."""

import io

import pytest
import torch
import zoo
from torch import nn

import wavecomp as wc

LENGTH = 40  # two chunks and a short one


class Encoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, lengths=None):
        return self.model.encode(tokens, lengths)


MODELS = {
    "wavelet": lambda: zoo.language_model(),
    "adaptive": lambda: zoo.language_model(zoo.leaves()),
    "two-stages": lambda: zoo.language_model(
        zoo.wavelet_compressor(wc.Shrinkage(target_ratio=4)), second=8, pooled=True
    ),
}


def inputs(batch, ragged):
    tokens = torch.randint(256, (batch, LENGTH))
    return (tokens, torch.randint(1, LENGTH + 1, (batch,))) if ragged else (tokens,)


def exported(model, ragged):
    given = inputs(3, ragged)
    rows = {0: torch.export.Dim("batch")}
    return torch.export.export(Encoder(model), given, dynamic_shapes=(rows,) * len(given))


def same(codes, expected):
    for name in ("values", *wc.Codes.per_slot, "tokens"):
        torch.testing.assert_close(getattr(codes, name), getattr(expected, name), rtol=1e-5, atol=1e-5)
    assert codes.statistics.keys() == expected.statistics.keys() and codes.pace == expected.pace


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("name", MODELS)
def test_an_exported_encoder_is_the_eager_one_at_other_batch_sizes(name, ragged):
    model = zoo.perturb(MODELS[name]()).eval()
    program = exported(model, ragged)
    for batch in (1, 5):
        given = inputs(batch, ragged)
        same(program.module()(*given), model.encode(*given))


@torch.no_grad()
def test_an_exported_encoder_is_saved_and_read():
    network = wc.ChunkNetwork(chunk_length=16, compressor=wc.MeanPoolCompressor(count=4))
    body = wc.ChunkReduce(chunk_networks=[network], reduce_network=nn.Identity())
    model = wc.ChunkReduceClassifier(embedding=nn.Embedding(256, zoo.DIM), body=body, head=nn.Identity())
    file = io.BytesIO()
    torch.export.save(exported(model.eval(), False), file)
    file.seek(0)
    given = inputs(2, False)
    codes = torch.export.load(file).module()(*given)
    same(codes, model.encode(*given))
    assert codes.slots_for(0, 40) == 2 * 4  # the pace is one, and not what JSON made of it


@torch.no_grad()
def test_a_network_from_codes_to_codes_is_exported_saved_and_read():
    network = zoo.perturb(
        wc.ChunkReduce(
            chunk_networks=[wc.ChunkNetwork(chunk_length=16, compressor=zoo.wavelet_compressor())],
            reduce_network=wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=1),
        )
    ).eval()
    given = wc.Codes.from_tokens(torch.randn(2, LENGTH, zoo.DIM))
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (given,)), file)
    file.seek(0)
    same(torch.export.load(file).module()(given), network(given))
