"""Wavelet transforms on tensors. Knows no tokens and no training."""

from wavecomp.wavelets.filter_bank import FilterBank, WaveletFilterBank
from wavecomp.wavelets.layers import DWT1d
from wavecomp.wavelets.matrix import analysis_matrix, synthesis_matrix
from wavecomp.wavelets.taps import FilterTaps
from wavecomp.wavelets.transform import dwt, dwt_coeff_len, dwt_max_level, idwt, wavedec, waverec

__all__ = [
    "DWT1d",
    "FilterBank",
    "FilterTaps",
    "WaveletFilterBank",
    "analysis_matrix",
    "dwt",
    "dwt_coeff_len",
    "dwt_max_level",
    "idwt",
    "synthesis_matrix",
    "wavedec",
    "waverec",
]
