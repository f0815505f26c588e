"""Wavelet transforms on tensors, as functions and as modules.

Functions such as :func:`wavedec` and :func:`waverec` take any axis and have pywt's numbers. A :class:`FilterBank` is
one level of a transform that is exact at any length; several learn. :class:`DWT1d` and its kin put banks together to
transform the chunks of a sequence, short ones included, to :class:`wavecomp.Bands`. Nothing here knows of training.
"""

from wavecomp.wavelets.basis_layer import BestBasis1d
from wavecomp.wavelets.chunk_transform import ChunkTransform
from wavecomp.wavelets.filter_bank import FilterBank, WaveletFilterBank
from wavecomp.wavelets.free import FreeFilterBank
from wavecomp.wavelets.lattice import OrthogonalFilterBank
from wavecomp.wavelets.layers import DWT1d, WaveletPackets1d
from wavecomp.wavelets.layers2d import DWT2d
from wavecomp.wavelets.lifting import LiftingFilterBank, NeuralLiftingFilterBank
from wavecomp.wavelets.matrix import analysis_matrix, synthesis_matrix
from wavecomp.wavelets.mband import MBandFilterBank
from wavecomp.wavelets.packets import Basis, WaveletPacket, best_basis, wavelet_packet
from wavecomp.wavelets.stationary import causal_swt, iswt, swt
from wavecomp.wavelets.taps import FilterTaps, Wavelet
from wavecomp.wavelets.transform import dwt, dwt_coeff_len, dwt_max_level, idwt, wavedec, waverec
from wavecomp.wavelets.transform2d import wavedec2, waverec2

__all__ = [
    "Basis",
    "BestBasis1d",
    "ChunkTransform",
    "DWT1d",
    "DWT2d",
    "FilterBank",
    "FilterTaps",
    "FreeFilterBank",
    "LiftingFilterBank",
    "MBandFilterBank",
    "NeuralLiftingFilterBank",
    "OrthogonalFilterBank",
    "Wavelet",
    "WaveletFilterBank",
    "WaveletPacket",
    "WaveletPackets1d",
    "analysis_matrix",
    "best_basis",
    "causal_swt",
    "dwt",
    "dwt_coeff_len",
    "dwt_max_level",
    "idwt",
    "iswt",
    "swt",
    "synthesis_matrix",
    "wavedec",
    "wavedec2",
    "wavelet_packet",
    "waverec",
    "waverec2",
]
