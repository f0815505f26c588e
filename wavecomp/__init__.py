"""Compress long token sequences with learnable wavelets: Chunk- and Reduce-Networks in PyTorch."""

import importlib
from typing import Any

from wavecomp import compressors, networks, positions, wavelets
from wavecomp.bands import BandLayout, Bands
from wavecomp.codes import NEVER, Chunks, Codes
from wavecomp.compressors import (
    Compressor,
    DetailChannel,
    KeepLowpass,
    Kept,
    MeanPoolCompressor,
    Pruner,
    TopK,
    WaveletCompressor,
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
from wavecomp.positions import PositionFrequencyEncoding
from wavecomp.wavelets import (
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
    "BandLayout",
    "Bands",
    "ChunkNetwork",
    "ChunkReduce",
    "ChunkReduceLM",
    "ChunkTransform",
    "Chunks",
    "Codes",
    "Compressor",
    "DWT1d",
    "DWT2d",
    "DetailChannel",
    "FilterBank",
    "FilterTaps",
    "FreeFilterBank",
    "KeepLowpass",
    "Kept",
    "LiftingFilterBank",
    "LocalDecoder",
    "MBandFilterBank",
    "MeanPoolCompressor",
    "NeuralLiftingFilterBank",
    "OrthogonalFilterBank",
    "PositionFrequencyEncoding",
    "Pruner",
    "ReduceNetwork",
    "TopK",
    "TransformerBlock",
    "TransformerEncoder",
    "WaveletCompressor",
    "WaveletFilterBank",
    "WaveletPackets1d",
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
