"""Models and codes on disk."""

from wavecomp.files.codes import CodesFile, CodesWriter, load_codes, save_codes
from wavecomp.files.models import CONFIG, build, fingerprint, load, read_checkpoint

__all__ = [
    "CONFIG",
    "CodesFile",
    "CodesWriter",
    "build",
    "fingerprint",
    "load",
    "load_codes",
    "read_checkpoint",
    "save_codes",
]
