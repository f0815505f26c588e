"""Models and codes on disk, and models on the Hugging Face Hub.

A model is a folder. That of a run holds checkpoints and the run's ``config.yaml``; that of ``model.save_pretrained``
holds ``model.safetensors`` and a ``config.yaml`` which names nothing but the model. :func:`load` reads both. Tensors
are only ever read as tensors: nothing is unpickled. Codes go to safetensors files of their own, with
:func:`save_codes` or, as they come, with a :class:`CodesWriter`.
"""

from wavecomp.files.codes import CodesFile, CodesWriter, load_codes, save_codes
from wavecomp.files.config import CONFIG, build, describe
from wavecomp.files.hub import Pretrained
from wavecomp.files.identity import fingerprint
from wavecomp.files.models import load, read_checkpoint
from wavecomp.files.shared import WEIGHTS

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "CodesFile",
    "CodesWriter",
    "Pretrained",
    "build",
    "describe",
    "fingerprint",
    "load",
    "load_codes",
    "read_checkpoint",
    "save_codes",
]
