"""Every public class that a gate has to hold for, and how to make a small one.

The gates loop over these tables; ``test_gates.py`` fails when a public class is missing from them.
"""

import torch
from torch import nn

import wavecomp as wc

DIM = 16
CHUNK = 16
COUNT = 4

FILTER_BANKS = {wc.WaveletFilterBank: lambda: wc.WaveletFilterBank("db2")}

PRUNERS = {
    wc.KeepLowpass: lambda: wc.KeepLowpass(COUNT),
    wc.TopK: lambda: wc.TopK(COUNT),
}


def wavelet_compressor(pruner=None, *, wavelet="haar"):
    pruner = pruner or wc.KeepLowpass(COUNT)
    level = 2 if pruner.lowpass else 4
    detail = wc.DetailChannel(dim=DIM, level=level) if pruner.lowpass else None
    return wc.WaveletCompressor(
        transform=wc.DWT1d(wavelet, level=level),
        pruner=pruner,
        detail_channel=detail,
        encoding=wc.PositionFrequencyEncoding(DIM),
    )


COMPRESSORS = {
    wc.WaveletCompressor: wavelet_compressor,
    wc.MeanPoolCompressor: lambda: wc.MeanPoolCompressor(count=COUNT, encoding=wc.PositionFrequencyEncoding(DIM)),
}


def every_compressor():
    """Name and maker of each compressor, the wavelet one with each pruner and with long filters too."""
    for kind, make in COMPRESSORS.items():
        yield kind.__name__, make
    for kind, make in PRUNERS.items():
        yield f"WaveletCompressor-{kind.__name__}", lambda make=make: wavelet_compressor(make())
    yield "WaveletCompressor-db4", lambda: wavelet_compressor(wavelet="db4")


def language_model(
    compressor=None,
    *,
    vocabulary=256,
    window=8,
    chunk=CHUNK,
    reduce_window=None,
    plain_encoder=False,
    pooled=False,
    second=None,
):
    encoder = nn.Linear(DIM, DIM) if plain_encoder else wc.TransformerEncoder(dim=DIM, heads=2, layers=1)
    pool = wc.ChunkNetwork(chunk_length=2, compressor=wc.MeanPoolCompressor(count=1))
    more = [wc.ChunkNetwork(chunk_length=second, compressor=wc.MeanPoolCompressor(count=2))] if second else []
    return wc.ChunkReduceLM(
        embedding=nn.Embedding(vocabulary, DIM),
        body=wc.ChunkReduce(
            chunk_networks=[
                wc.ChunkNetwork(
                    chunk_length=chunk,
                    encoder=encoder,
                    compressor=compressor or wavelet_compressor(),
                ),
                *more,
            ],
            reduce_network=wc.ReduceNetwork(
                dim=DIM, heads=2, layers=1, window=reduce_window, input_pooling=pool if pooled else None
            ),
        ),
        decoder=wc.LocalDecoder(dim=DIM, heads=2, layers=2, window=window, period=chunk),
        head=nn.Linear(DIM, vocabulary),
    )


def perturb(module, std=0.1, seed=0):
    """Move every parameter, so that nothing a test reads is zero only because it started so."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator).to(parameter)
    return module
