"""Every public class that a gate has to hold for, and how to make a small one.

The gates loop over these tables; ``test_gates.py`` fails when a public class is missing from them.
"""

import functools
from pathlib import Path

import torch
import yaml
from torch import nn

import wavecomp as wc

DIM = 16
CHUNK = 16
COUNT = 4

RATIO = 4.0  # of those that are given one

TINY = Path(__file__).parent / "tiny.yaml"

PRUNERS = {
    wc.KeepLowpass: lambda: wc.KeepLowpass(COUNT),
    wc.ElasticRatio: lambda: wc.ElasticRatio(least=RATIO, most=16),
    wc.TopK: lambda: wc.TopK(COUNT),
    wc.RandomK: lambda: wc.RandomK(COUNT),
    wc.StraightThroughTopK: lambda: wc.StraightThroughTopK(COUNT, dim=DIM),
    wc.Shrinkage: lambda: wc.Shrinkage(target_ratio=RATIO),
    wc.HardConcrete: lambda: wc.HardConcrete(dim=DIM, target_ratio=RATIO),
    wc.BandDrop: lambda: wc.BandDrop(target_ratio=RATIO),
    wc.GlobalTopK: lambda: wc.GlobalTopK(target_ratio=RATIO),
}

CHANNELS = 4  # of the signals that banks and transforms are given

FILTER_BANKS = {
    wc.WaveletFilterBank: {
        "db2": lambda: wc.WaveletFilterBank("db2"),
        "bior2.2": lambda: wc.WaveletFilterBank("bior2.2"),
    },
    wc.OrthogonalFilterBank: {
        "haar": lambda: wc.OrthogonalFilterBank("haar"),
        "db4": lambda: wc.OrthogonalFilterBank("db4"),
        "sym5-heads": lambda: wc.OrthogonalFilterBank("sym5", heads=2),
        "db3-free": lambda: wc.OrthogonalFilterBank("db3", vanishing_moments=0),
    },
    wc.LiftingFilterBank: {
        "haar": lambda: wc.LiftingFilterBank("haar"),
        "db2": lambda: wc.LiftingFilterBank("db2"),
        "bior2.2": lambda: wc.LiftingFilterBank("bior2.2"),
        "bior4.4-heads": lambda: wc.LiftingFilterBank("bior4.4", heads=2),
    },
    wc.NeuralLiftingFilterBank: {
        "bior2.2": lambda: wc.NeuralLiftingFilterBank(dim=CHANNELS),
        "db2": lambda: wc.NeuralLiftingFilterBank(dim=CHANNELS, init="db2", hidden=2),
    },
    wc.MBandFilterBank: {
        "3": lambda: wc.MBandFilterBank(3),
        "4-heads": lambda: wc.MBandFilterBank(4, order=2, heads=2),
    },
    wc.FreeFilterBank: {
        "db3": lambda: wc.FreeFilterBank("db3"),
        "bior2.2-heads": lambda: wc.FreeFilterBank("bior2.2", heads=2),
    },
}


def every_bank():
    """Name and maker of each bank."""
    for kind, makers in FILTER_BANKS.items():
        for name, make in makers.items():
            yield f"{kind.__name__}-{name}", make


# each transform of chunks, with a bank of every sort in DWT1d
TRANSFORMS = {
    wc.DWT1d: {
        "db4": lambda level: wc.DWT1d("db4", level=level),
        "cascade": lambda level: wc.DWT1d("db2", level=level, backend="cascade"),
        "lattice": lambda level: wc.DWT1d(wc.OrthogonalFilterBank("db4"), level=level),
        "lattice-per-level": lambda level: wc.DWT1d(
            [wc.OrthogonalFilterBank("db2") for _ in range(level)], level=level
        ),
        "lattice-heads": lambda level: wc.DWT1d(wc.OrthogonalFilterBank("db2", heads=2), level=level),
        "lifting": lambda level: wc.DWT1d(wc.LiftingFilterBank("bior2.2"), level=level),
        "neural": lambda level: wc.DWT1d(wc.NeuralLiftingFilterBank(dim=DIM), level=level),
        "three-bands": lambda level: wc.DWT1d(wc.MBandFilterBank(3), level=min(level, 2)),
    },
    wc.WaveletPackets1d: {
        "haar": lambda level: wc.WaveletPackets1d("haar", level=level),
        "lattice": lambda level: wc.WaveletPackets1d(wc.OrthogonalFilterBank("db2"), level=level),
    },
    wc.BestBasis1d: {
        "haar": lambda level: wc.BestBasis1d("haar", level=level),
        "lattice": lambda level: wc.BestBasis1d(wc.OrthogonalFilterBank("db2"), level=level),
    },
    wc.DWT2d: {
        "haar": lambda level: wc.DWT2d("haar", level=level),
        "lattice": lambda level: wc.DWT2d(wc.OrthogonalFilterBank("db2"), level=level),
    },
}


def every_transform(level=2):
    """Name and maker of each transform of chunks."""
    for kind, makers in TRANSFORMS.items():
        for name, make in makers.items():
            yield f"{kind.__name__}-{name}", lambda make=make: make(level)


def centroids(power, support, index, *, wraps):
    """Where squared rows ``(rows, length)`` lie; one that wraps is cut open opposite to the samples it stands for."""
    length = power.shape[-1]
    place = torch.arange(length, dtype=torch.float64)
    if wraps:
        own = (support * index + (support - 1) / 2)[:, None]
        place = own + (place - own + length / 2).remainder(length) - length / 2
    return ((power * place).sum(-1) / power.sum(-1)).clamp(0, length - 1)


def wavelet_compressor(pruner=None, *, wavelet="haar", transform=None, width=None):
    pruner = pruner or wc.KeepLowpass(COUNT)
    level = 2 if isinstance(pruner, wc.KeepLowpass) else 4
    transform = transform or wc.DWT1d(wavelet, level=level)
    detail = wc.DetailChannel(dim=DIM, level=level, width=width) if transform.binary else None
    return wc.WaveletCompressor(
        transform=transform,
        pruner=pruner,
        band_weight=wc.BandWeight(bands=transform.bands, content=True),
        detail_channel=detail,
        encoding=wc.PositionFrequencyEncoding(DIM),
    )


def leaves():
    return wc.DyadicLeaves(
        transform=wc.DWT1d("haar", level=4),
        target_ratio=RATIO,
        dim=DIM,
        detail_channel=wc.DetailChannel(dim=DIM, level=4, width=8),
        encoding=wc.PositionFrequencyEncoding(DIM),
    )


def partial(**more):
    compressor = wc.PartialSynthesis(
        transform=wc.DWT1d("haar", level=3),
        target_ratio=RATIO,
        **more,
        band_weight=wc.BandWeight(bands=4),
        detail_channel=wc.DetailChannel(dim=DIM, level=3, width=8),
        encoding=wc.PositionFrequencyEncoding(DIM),
    )
    compressor.controller.set_threshold(20.0)  # so that a quiet chunk is coarser than others
    return compressor


COMPRESSORS = {
    wc.WaveletCompressor: wavelet_compressor,
    wc.MeanPoolCompressor: lambda: wc.MeanPoolCompressor(count=COUNT, encoding=wc.PositionFrequencyEncoding(DIM)),
    wc.MaxPoolCompressor: lambda: wc.MaxPoolCompressor(count=COUNT, encoding=wc.PositionFrequencyEncoding(DIM)),
    wc.StridedConvCompressor: lambda: wc.StridedConvCompressor(dim=DIM, count=COUNT, chunk_length=CHUNK, kernel=8),
    wc.LatentQueriesCompressor: lambda: wc.LatentQueriesCompressor(dim=DIM, heads=2, count=COUNT),
    wc.DCTCompressor: lambda: wc.DCTCompressor(count=COUNT, encoding=wc.PositionFrequencyEncoding(DIM)),
    wc.RandomMeasurementCompressor: lambda: wc.RandomMeasurementCompressor(count=COUNT),
    wc.SurprisalDropCompressor: lambda: wc.SurprisalDropCompressor(dim=DIM, count=COUNT),
    wc.NoCompression: wc.NoCompression,
    wc.NoCodes: wc.NoCodes,
    wc.DyadicLeaves: leaves,
    wc.PartialSynthesis: partial,
}


def sparse_measurements(count):
    recovery = wc.SparseRecovery(transform=wc.DWT1d("haar", level=2))
    return wc.RandomMeasurementCompressor(count=count, recovery=recovery)


def all_through(pruner, *, transform=None):
    """A wavelet compressor that loses nothing, if the pruner keeps all."""
    return wc.WaveletCompressor(transform=transform or wc.DWT1d("db2", level=2), pruner=pruner)


def opened(module):
    """The module with the least of thresholds."""
    (controller,) = (part for part in module.modules() if isinstance(part, wc.RatioController))
    controller.set_threshold(1e-9)
    return module


# each with a code for every token
PRUNERS_THAT_KEEP_ALL = {
    wc.KeepLowpass: lambda: wc.KeepLowpass(CHUNK),
    wc.ElasticRatio: lambda: wc.ElasticRatio(least=1, most=4),
    wc.TopK: lambda: wc.TopK(CHUNK),
    wc.RandomK: lambda: wc.RandomK(CHUNK),
    wc.StraightThroughTopK: lambda: wc.StraightThroughTopK(CHUNK, dim=DIM),
    wc.Shrinkage: lambda: opened(wc.Shrinkage(target_ratio=1)),
    wc.HardConcrete: lambda: opened(wc.HardConcrete(dim=DIM, target_ratio=1)),
    wc.BandDrop: lambda: opened(wc.BandDrop(target_ratio=1)),
    wc.GlobalTopK: lambda: wc.GlobalTopK(target_ratio=1),
}
COMPRESSORS_THAT_KEEP_ALL = {
    wc.WaveletCompressor: lambda: all_through(wc.KeepLowpass(CHUNK)),
    wc.MeanPoolCompressor: lambda: wc.MeanPoolCompressor(count=CHUNK),
    wc.MaxPoolCompressor: lambda: wc.MaxPoolCompressor(count=CHUNK),
    wc.DCTCompressor: lambda: wc.DCTCompressor(count=CHUNK),
    wc.RandomMeasurementCompressor: lambda: wc.RandomMeasurementCompressor(count=CHUNK),
    wc.SurprisalDropCompressor: lambda: wc.SurprisalDropCompressor(dim=DIM, count=CHUNK),
    wc.NoCompression: wc.NoCompression,
    wc.DyadicLeaves: lambda: opened(wc.DyadicLeaves(transform=wc.DWT1d("db2", level=2), target_ratio=1, dim=DIM)),
    wc.PartialSynthesis: lambda: opened(wc.PartialSynthesis(transform=wc.DWT1d("db2", level=2), target_ratio=1)),
}
# these learn what a code is, or have none
COMPRESSORS_THAT_CANNOT = {wc.StridedConvCompressor, wc.LatentQueriesCompressor, wc.NoCodes}


def every_compressor_that_keeps_all():
    """Name and maker of each, the wavelet one with each pruner and each transform."""
    for kind, make in COMPRESSORS_THAT_KEEP_ALL.items():
        yield kind.__name__, make
    for kind, make in PRUNERS_THAT_KEEP_ALL.items():
        yield f"WaveletCompressor-{kind.__name__}", lambda make=make: all_through(make())
    for name, make in every_transform():
        yield f"WaveletCompressor-{name}", lambda make=make: all_through(wc.KeepLowpass(CHUNK), transform=make())
    yield "RandomMeasurementCompressor-sparse", lambda: sparse_measurements(CHUNK)


def every_compressor():
    """Name and maker of each compressor, the wavelet one with each pruner and each transform too."""
    yield from some_compressors()
    for name, make in every_transform():
        yield f"WaveletCompressor-{name}", lambda make=make: wavelet_compressor(transform=make())
    yield "RandomMeasurementCompressor-sparse", lambda: sparse_measurements(COUNT)


def causal_compressors():
    for name, make in some_compressors():
        if make().causal:
            yield name, make


def some_compressors():
    """Those whose difference reaches a whole model: of each transform one."""
    for kind, make in COMPRESSORS.items():
        yield kind.__name__, make
    for kind, make in PRUNERS.items():
        yield f"WaveletCompressor-{kind.__name__}", lambda make=make: wavelet_compressor(make())
    for kind, makers in TRANSFORMS.items():
        make = makers["lattice"]
        yield f"WaveletCompressor-{kind.__name__}", lambda make=make: wavelet_compressor(transform=make(2))
    yield "PartialSynthesis-predicted", lambda: partial(predictor=wc.DetailPredictor(dim=DIM, level=3, hidden=8))
    yield "WaveletCompressor-narrow-channel", lambda: wavelet_compressor(width=4)
    priced = functools.partial(wc.Shrinkage, target_ratio=RATIO, price=0.1, spread=0)
    yield "WaveletCompressor-priced-loudest", lambda: wavelet_compressor(priced())
    yield "WaveletCompressor-neural", lambda: wavelet_compressor(transform=TRANSFORMS[wc.DWT1d]["neural"](2))


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


class Given(nn.Module):
    """Embeddings that were made before, for the first tokens asked for."""

    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = embeddings

    def forward(self, tokens):
        return self.embeddings[:, : tokens.shape[1]]


def tiny_recipe_of_wavelets(**changes):
    """The recipe of tiny.yaml with a wavelet compressor, of which some settings are changed; it is read more slowly."""
    recipe = yaml.safe_load(TINY.read_text())
    settings = {
        "transform": {"class_path": "wavecomp.DWT1d", "init_args": {"filter_bank": "haar", "level": 2}},
        "pruner": {"class_path": "wavecomp.KeepLowpass", "init_args": {"count": COUNT}},
        "detail_channel": {"class_path": "wavecomp.DetailChannel", "init_args": {"dim": DIM, "level": 2}},
        "encoding": {"class_path": "wavecomp.PositionFrequencyEncoding", "init_args": {"dim": DIM}},
    }
    (network,) = recipe["model"]["init_args"]["model"]["init_args"]["body"]["init_args"]["chunk_networks"]
    compressor = {"class_path": "wavecomp.WaveletCompressor", "init_args": settings | changes}
    network["init_args"]["compressor"] = compressor
    return recipe
