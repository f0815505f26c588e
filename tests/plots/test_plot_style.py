import subprocess
import sys

import numpy as np
from matplotlib.colors import to_rgb

from wavecomp.plots.style import COLOURS, decibels, line


def test_colours_are_apart_in_print_and_lines_in_more_than_colour():
    shades = [sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(colour))) for colour in COLOURS]
    assert max(shades) < 0.75  # seen on white
    first, second = line(0), line(1)
    assert all(first[key] != second[key] for key in ("color", "marker", "linestyle"))
    assert len({(line(n)["color"], line(n)["marker"]) for n in range(56)}) == 56


def test_no_plot_touches_pyplot_or_the_settings():
    code = """if True:
        import sys, matplotlib, torch, wavecomp as wc
        settings = lambda: dict(dict.items(matplotlib.rcParams))  # to ask rcParams for its backend would load one
        before = settings()
        bands = wc.DWT1d("haar", level=2)(torch.randn(1, 3, 16, 4))
        compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(4))
        codes = wc.ChunkNetwork(chunk_length=16, compressor=compressor)(wc.Codes.from_tokens(torch.randn(1, 48, 4)))
        drawn = [
            wc.plots.plot_band_energy(codes, text="x" * 48),
            wc.plots.plot_scalogram(bands),
            wc.plots.plot_kept_codes(codes, surprisal=torch.ones(48)),
            wc.plots.plot_packet_tree(wc.BestBasis1d("haar", level=2)(torch.randn(1, 3, 16, 4))),
            wc.plots.plot_rate_distortion([dict(compressor="a", codes_per_byte=0.5, bits_per_byte=2, seed=0)]),
            wc.plots.plot_bits([dict(compressor="a", bits=2.0)]),
            wc.plots.plot_ratio_error([dict(compressor="a", asked=8, trained=8.1)]),
        ]
        figures = [ax.figure for ax in drawn]
        figures.append(wc.plots.plot_filter_bank(wc.OrthogonalFilterBank("db2")))
        figures.append(wc.plots.plot_position_code(wc.PositionFrequencyEncoding(4), codes))
        for figure in figures:
            figure.savefig("/dev/null", format="png", dpi=20)
        assert settings() == before
        print("matplotlib.pyplot" in sys.modules)
    """
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "False", out.stderr


def test_what_is_no_number_leaves_the_others_as_they_are():
    found = decibels(np.array([1.0, 10.0, np.nan, np.inf, 0.0]))
    assert found[:2].tolist() == [0.0, 10.0] and np.isnan(found[2]) and found[4] == -30.0
    assert decibels(np.array([np.nan])).shape == (1,)
