"""pywt's own matrix of round trips of one level: wavelets x modes x precisions x lengths."""

import numpy as np
import pytest
import pywt
import torch

from wavecomp.wavelets import FilterTaps, dwt, idwt

# the ones that pywt's test leaves out are dmey, whose filters invert to four digits only, and a second name of db1
WAVELETS = [name for name in pywt.wavelist(kind="discrete") if name not in ("dmey", "haar")]
LENGTHS = (*range(2, 40), 100, 200, 500, 1000, 2000, 10000, 50000, 100000)
BOUNDS = {torch.float64: 5e-11, torch.float32: 6e-7}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["zero", "constant", "symmetric", "reflect", "periodic", "periodization"])
@torch.inference_mode()
def test_round_trips(mode):
    assert len(WAVELETS) * len(LENGTHS) * len(BOUNDS) * 6 == 57_408
    random = np.random.default_rng(1234)
    for length in LENGTHS:
        signal = torch.from_numpy(random.random((length, 1)))
        for name in WAVELETS:
            taps = FilterTaps.of(name)
            for dtype, bound in BOUNDS.items():
                x = signal.to(dtype)
                back = idwt(*dwt(x, taps, mode=mode, axis=-2), taps, mode=mode, length=length, axis=-2)
                rms = (back - x).square().mean().sqrt()
                assert back.dtype == dtype and rms < bound, (name, length, dtype, float(rms))  # NaN is not below
