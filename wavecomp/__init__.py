"""Compress long token sequences with learnable wavelets: Chunk- and Reduce-Networks in PyTorch.

A sequence is cut into chunks. A wavelet splits the embeddings of each chunk into low and high frequencies; few codes of
what it finds are kept, more where there is more; and a second network reads those:

    Reduce-Network( Chunk-Network(chunk_1), ..., Chunk-Network(chunk_k) )

What lies between tokens and head is modules from :class:`Codes` to fewer :class:`Codes`, put together as you like and
trained end to end. Public names are reached from here, as ``wc.DWT1d`` or ``wc.training.TextDataModule``:

- :mod:`wavecomp.wavelets`: transforms and filter banks on tensors, fixed and learnable, with pywt's numbers.
- :mod:`wavecomp.positions`: where a code lies, and which frequency it is.
- :mod:`wavecomp.compressors`: from chunks to fewer codes, by wavelets and by what they are compared to.
- :mod:`wavecomp.networks`: Chunk-Networks, Reduce-Networks, and models made of them.
- :mod:`wavecomp.files`: models and codes on disk, and on the Hugging Face Hub.
- :mod:`wavecomp.metrics`: bits per byte, compression ratio, and what the codes are worth.
- :mod:`wavecomp.plots` and :mod:`wavecomp.report`: figures, and a page that shows a text as its codes see it.
- :mod:`wavecomp.training`: training and data with Lightning.
- :mod:`wavecomp.allocator`: memory that glibc keeps from step to step, for training on a CPU.

Shapes are written ``(batch, length, dim)``. Lengths and positions are in tokens unless said, frequencies in cycles per
token. Level 1 is the finest. The compression ratio is tokens over codes.
"""

import importlib
from typing import TYPE_CHECKING, Any

from wavecomp import allocator, compressors, files, networks, positions, wavelets
from wavecomp.bands import BandLayout, Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors import (
    AdaptivePruner,
    BandDrop,
    BandWeight,
    Compressor,
    DCTCompressor,
    DetailChannel,
    DetailPredictor,
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
from wavecomp.files import load, load_codes, save_codes
from wavecomp.modules import Module
from wavecomp.networks import (
    ChunkDecoder,
    ChunkNetwork,
    ChunkReduce,
    ChunkReduceAutoencoder,
    ChunkReduceClassifier,
    ChunkReduceLM,
    LocalDecoder,
    ReduceAdapter,
    ReduceNetwork,
    SequenceAdapter,
    StreamingEncoder,
    TransformerBlock,
    TransformerEncoder,
)
from wavecomp.pace import NEVER
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

if TYPE_CHECKING:
    from wavecomp import metrics, plots, report, training

__version__ = "0.1.0"

__all__ = [
    "NEVER",
    "AdaptivePruner",
    "BandDrop",
    "BandLayout",
    "BandWeight",
    "Bands",
    "BestBasis1d",
    "ChunkDecoder",
    "ChunkNetwork",
    "ChunkReduce",
    "ChunkReduceAutoencoder",
    "ChunkReduceClassifier",
    "ChunkReduceLM",
    "ChunkTransform",
    "Chunks",
    "Codes",
    "Compressor",
    "DCTCompressor",
    "DWT1d",
    "DWT2d",
    "DetailChannel",
    "DetailPredictor",
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
    "Module",
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
    "ReduceAdapter",
    "ReduceNetwork",
    "RotaryPositionFrequency",
    "SequenceAdapter",
    "Shrinkage",
    "SparseRecovery",
    "StraightThroughTopK",
    "StreamingEncoder",
    "StridedConvCompressor",
    "SurprisalDropCompressor",
    "TopK",
    "TransformerBlock",
    "TransformerEncoder",
    "WaveletCompressor",
    "WaveletFilterBank",
    "WaveletPackets1d",
    "allocator",
    "calibrate",
    "compressors",
    "files",
    "load",
    "load_codes",
    "metrics",
    "networks",
    "plots",
    "positions",
    "report",
    "save_codes",
    "training",
    "wavelets",
]


def __getattr__(name: str) -> Any:
    # torchmetrics, matplotlib and lightning take seconds to import: only who asks waits
    if name in ("metrics", "plots", "report", "training"):
        return importlib.import_module(f"wavecomp.{name}")
    raise AttributeError(f"module 'wavecomp' has no attribute {name!r}")
