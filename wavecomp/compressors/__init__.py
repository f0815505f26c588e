"""Chunks to fewer Codes: one contract, many ways.

A :class:`Compressor` is given :class:`wavecomp.Chunks` and makes :class:`wavecomp.Codes`, in a static number of slots
for each chunk; ``expand`` is the way back. :class:`WaveletCompressor` takes a transform and a :class:`Pruner`, which
says what stays, and perhaps a :class:`DetailChannel` for what does not. Where a pruner or compressor has a
``target_ratio``, a :class:`RatioController` moves its threshold so that this is the ratio over all, while each chunk
gets as many codes as it needs. The others are what wavelets are compared with.
"""

from wavecomp.compressors.adaptive import AdaptivePruner, BandDrop, HardConcrete, Shrinkage
from wavecomp.compressors.band_weight import BandWeight
from wavecomp.compressors.calibration import calibrate
from wavecomp.compressors.compressor import Compressor
from wavecomp.compressors.dct import DCTCompressor
from wavecomp.compressors.detail import DetailChannel
from wavecomp.compressors.latent_queries import LatentQueriesCompressor
from wavecomp.compressors.leaves import DyadicLeaves
from wavecomp.compressors.max_pool import MaxPoolCompressor
from wavecomp.compressors.mean_pool import MeanPoolCompressor
from wavecomp.compressors.no_codes import NoCodes
from wavecomp.compressors.no_compression import NoCompression
from wavecomp.compressors.partial import PartialSynthesis
from wavecomp.compressors.prediction import DetailPredictor
from wavecomp.compressors.pruner import Kept, Pruner
from wavecomp.compressors.pruning import ElasticRatio, GlobalTopK, KeepLowpass, RandomK, StraightThroughTopK, TopK
from wavecomp.compressors.random_measurement import RandomMeasurementCompressor, SparseRecovery
from wavecomp.compressors.ratio import RatioController
from wavecomp.compressors.selection import ContentScore
from wavecomp.compressors.strided_conv import StridedConvCompressor
from wavecomp.compressors.surprisal_drop import SurprisalDropCompressor
from wavecomp.compressors.wavelet import WaveletCompressor

__all__ = [
    "AdaptivePruner",
    "BandDrop",
    "BandWeight",
    "Compressor",
    "ContentScore",
    "DCTCompressor",
    "DetailChannel",
    "DetailPredictor",
    "DyadicLeaves",
    "ElasticRatio",
    "GlobalTopK",
    "HardConcrete",
    "KeepLowpass",
    "Kept",
    "LatentQueriesCompressor",
    "MaxPoolCompressor",
    "MeanPoolCompressor",
    "NoCodes",
    "NoCompression",
    "PartialSynthesis",
    "Pruner",
    "RandomK",
    "RandomMeasurementCompressor",
    "RatioController",
    "Shrinkage",
    "SparseRecovery",
    "StraightThroughTopK",
    "StridedConvCompressor",
    "SurprisalDropCompressor",
    "TopK",
    "WaveletCompressor",
    "calibrate",
]
