"""Chunks to fewer Codes: one contract, many ways."""

from wavecomp.compressors.compressor import Compressor
from wavecomp.compressors.detail import DetailChannel
from wavecomp.compressors.mean_pool import MeanPoolCompressor
from wavecomp.compressors.pruning import KeepLowpass, Kept, Pruner, TopK
from wavecomp.compressors.wavelet import WaveletCompressor

__all__ = [
    "Compressor",
    "DetailChannel",
    "KeepLowpass",
    "Kept",
    "MeanPoolCompressor",
    "Pruner",
    "TopK",
    "WaveletCompressor",
]
