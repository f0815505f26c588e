"""Networks from Codes to Codes, and the models made of them."""

from wavecomp.networks.chunk import ChunkNetwork
from wavecomp.networks.chunk_reduce import ChunkReduce
from wavecomp.networks.decoder import LocalDecoder
from wavecomp.networks.language_model import ChunkReduceLM
from wavecomp.networks.reduce import ReduceNetwork
from wavecomp.networks.transformer import TransformerBlock, TransformerEncoder

__all__ = [
    "ChunkNetwork",
    "ChunkReduce",
    "ChunkReduceLM",
    "LocalDecoder",
    "ReduceNetwork",
    "TransformerBlock",
    "TransformerEncoder",
]
