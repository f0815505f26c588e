"""Arguments of another kind are refused where they come, by name."""

import re

import pytest
import torch
from torch import nn

import wavecomp as wc


def compressor(**changes):
    return wc.WaveletCompressor(**{"transform": wc.DWT1d("haar", level=3), "pruner": wc.KeepLowpass(8)} | changes)


def network(**changes):
    return wc.ChunkNetwork(**{"chunk_length": 64, "compressor": compressor()} | changes)


def body(**changes):
    return wc.ChunkReduce(**{"chunk_networks": [network()], "reduce_network": nn.Identity()} | changes)


def model(*, embedding=8, **decoder):
    reduce_network = wc.ReduceNetwork(dim=8, heads=2, layers=1)
    return wc.ChunkReduceLM(
        embedding=nn.Embedding(256, embedding),
        body=body(reduce_network=reduce_network),
        decoder=wc.LocalDecoder(**{"dim": 8, "heads": 2, "layers": 1, "window": 8} | decoder),
        head=nn.Linear(8, 256),
    )


TOKENS = torch.randint(256, (2, 130))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: compressor(transform="haar"), "transform has type str; allowed: ChunkTransform, such as DWT1d("),
        (lambda: compressor(pruner=8), "pruner has type int; allowed: Pruner, such as KeepLowpass(8)"),
        (
            lambda: compressor(encoding=wc.PositionFrequencyEncoding),
            "encoding is the class PositionFrequencyEncoding; allowed: Module or None",
        ),
        (lambda: wc.MeanPoolCompressor(count=4, encoding="sine"), "encoding has type str; allowed: Module or None"),
        (
            lambda: wc.PartialSynthesis(
                transform=wc.DWT1d("haar", level=2), target_ratio=4, predictor=torch.nn.Linear(4, 4)
            ),
            "predictor has type Linear; allowed: DetailPredictor or None",
        ),
        (lambda: wc.PartialSynthesis(transform="haar", target_ratio=8), "transform has type str; allowed: DWT1d"),
        (lambda: network(compressor=nn.Linear(8, 8)), "compressor has type Linear; allowed: Compressor, such as"),
        (lambda: network(compressor=wc.KeepLowpass(8)), "compressor has type KeepLowpass; allowed: Compressor, such"),
        (lambda: network()(torch.randn(2, 128, 8)), "codes has type Tensor; allowed: Codes; Codes.from_tokens makes"),
        (lambda: body(chunk_networks=network()), "chunk_networks has type ChunkNetwork; allowed: list or tuple or"),
        (lambda: body(reduce_network=None), "reduce_network has type NoneType; allowed: Module; torch.nn.Identity()"),
        (lambda: wc.DWT1d("haar", level=1).inverse(torch.randn(1, 2, 8, 3)), "bands has type Tensor; allowed: Bands"),
        (lambda: model().generate("def ", max_new_tokens=1), "prompt has type str; allowed: Tensor (batch, length)"),
        (lambda: model()([[1, 2]]), "tokens has type list; allowed: Tensor (batch, length) of int64"),
        (lambda: model(embedding=16)(TOKENS), "was given values 16 wide; allowed: dim=8"),
        (lambda: model(dim=16)(TOKENS), "LocalDecoder was given values 8 wide; allowed: dim=16"),
        (lambda: wc.Shrinkage(target_ratio="8"), "target_ratio='8' is a str; allowed: a number"),
        (lambda: wc.ReduceNetwork(dim=8, heads="2", layers=1), "heads='2' is a str; allowed: int"),
        (
            lambda: wc.ChunkReduceLM(embedding=nn.Identity(), body=body(), decoder=nn.Identity(), head=nn.Identity()),
            "body.reduce_network Identity does not say whether it is causal; allowed: ReduceNetwork, ReduceAdapter(",
        ),
        (lambda: model(period=48), "decoder has period=48, but chunks are 64 long; allowed: period=64 or None"),
    ],
)
def test_what_is_of_another_kind_is_named(call, message):
    kind = ValueError if any(word in message for word in ("wide;", "period=", "causal;")) else TypeError
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_parts_that_were_compiled_pass():
    compiled = torch.compile(compressor(pruner=torch.compile(wc.KeepLowpass(8))), backend="eager")
    assert network(compressor=compiled).capacity == 8
