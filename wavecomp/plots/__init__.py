"""Figures of codes, bands, banks and runs, for notebooks and papers.

Each function draws into the axes that it is given, or into a figure of its own that pyplot does not know:
``plot_band_energy(codes).figure.savefig("bands.pdf")``.
"""

from wavecomp.plots.energy import plot_band_energy, plot_scalogram
from wavecomp.plots.filters import plot_filter_bank
from wavecomp.plots.grids import plot_bits, plot_ratio_error
from wavecomp.plots.kept import plot_kept_codes
from wavecomp.plots.packets import plot_packet_tree
from wavecomp.plots.positions import plot_position_code
from wavecomp.plots.runs import plot_rate_distortion, plot_training

__all__ = [
    "plot_band_energy",
    "plot_bits",
    "plot_filter_bank",
    "plot_kept_codes",
    "plot_packet_tree",
    "plot_position_code",
    "plot_rate_distortion",
    "plot_ratio_error",
    "plot_scalogram",
    "plot_training",
]
