"""Compress long token sequences with learnable wavelets: Chunk- and Reduce-Networks in PyTorch."""

import importlib
from typing import Any

from wavecomp import compressors, networks, positions, wavelets
from wavecomp.bands import BandLayout, Bands
from wavecomp.codes import NEVER, Chunks, Codes
from wavecomp.compressors import (
    AdaptivePruner,
    BandDrop,
    BandWeight,
    Compressor,
    DCTCompressor,
    DetailChannel,
    DyadicLeaves,
    ElasticRatio,
    GlobalTopK,
    HardConcrete,
    KeepLowpass,
    Kept,
    LatentQueriesCompressor,
    MaxPoolCompressor,
    MeanPoolCompressor,
    NoCodes,
    NoCompression,
    PartialSynthesis,
    Pruner,
    RandomK,
    RandomMeasurementCompressor,
    RatioController,
    Shrinkage,
    SparseRecovery,
    StraightThroughTopK,
    StridedConvCompressor,
    SurprisalDropCompressor,
    TopK,
    WaveletCompressor,
    calibrate,
)
from wavecomp.networks import (
    ChunkNetwork,
    ChunkReduce,
    ChunkReduceLM,
    LocalDecoder,
    ReduceNetwork,
    TransformerBlock,
    TransformerEncoder,
)
from wavecomp.positions import DyadicPositionCode, PositionFrequencyEncoding, RotaryPositionFrequency
from wavecomp.wavelets import (
    BestBasis1d,
    ChunkTransform,
    DWT1d,
    DWT2d,
    FilterBank,
    FilterTaps,
    FreeFilterBank,
    LiftingFilterBank,
    MBandFilterBank,
    NeuralLiftingFilterBank,
    OrthogonalFilterBank,
    WaveletFilterBank,
    WaveletPackets1d,
)

__version__ = "0.1.0"

__all__ = [
    "NEVER",
    "AdaptivePruner",
    "BandDrop",
    "BandLayout",
    "BandWeight",
    "Bands",
    "BestBasis1d",
    "ChunkNetwork",
    "ChunkReduce",
    "ChunkReduceLM",
    "ChunkTransform",
    "Chunks",
    "Codes",
    "Compressor",
    "DCTCompressor",
    "DWT1d",
    "DWT2d",
    "DetailChannel",
    "DyadicLeaves",
    "DyadicPositionCode",
    "ElasticRatio",
    "FilterBank",
    "FilterTaps",
    "FreeFilterBank",
    "GlobalTopK",
    "HardConcrete",
    "KeepLowpass",
    "Kept",
    "LatentQueriesCompressor",
    "LiftingFilterBank",
    "LocalDecoder",
    "MBandFilterBank",
    "MaxPoolCompressor",
    "MeanPoolCompressor",
    "NeuralLiftingFilterBank",
    "NoCodes",
    "NoCompression",
    "OrthogonalFilterBank",
    "PartialSynthesis",
    "PositionFrequencyEncoding",
    "Pruner",
    "RandomK",
    "RandomMeasurementCompressor",
    "RatioController",
    "ReduceNetwork",
    "RotaryPositionFrequency",
    "Shrinkage",
    "SparseRecovery",
    "StraightThroughTopK",
    "StridedConvCompressor",
    "SurprisalDropCompressor",
    "TopK",
    "TransformerBlock",
    "TransformerEncoder",
    "WaveletCompressor",
    "WaveletFilterBank",
    "WaveletPackets1d",
    "calibrate",
    "compressors",
    "load",
    "metrics",
    "networks",
    "positions",
    "training",
    "wavelets",
]


def __getattr__(name: str) -> Any:
    # torchmetrics, jsonargparse and lightning take seconds to import: only who asks waits
    if name in ("metrics", "training"):
        return importlib.import_module(f"wavecomp.{name}")
    if name == "load":
        return importlib.import_module("wavecomp.files").load
    raise AttributeError(f"module 'wavecomp' has no attribute {name!r}")
