"""Compress long token sequences with learnable wavelets."""

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
from wavecomp.wavelets import DWT1d, FilterBank, FilterTaps, WaveletFilterBank
