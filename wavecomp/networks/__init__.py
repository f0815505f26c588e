"""Networks from Codes to Codes, and the models made of them.

A :class:`ChunkNetwork` encodes and compresses each chunk by itself, a :class:`ReduceNetwork` lets codes read each
other, and :class:`ChunkReduce` puts them one behind the other, in one stage or several. Around it go the models:
:class:`ChunkReduceLM` predicts the next token, :class:`ChunkReduceAutoencoder` gives back the tokens, and
:class:`ChunkReduceClassifier` names a class. Any other module takes part through :class:`SequenceAdapter` and
:class:`ReduceAdapter`.
"""

from wavecomp.networks.adapters import ReduceAdapter, SequenceAdapter
from wavecomp.networks.autoencoder import ChunkDecoder, ChunkReduceAutoencoder
from wavecomp.networks.chunk import ChunkNetwork
from wavecomp.networks.chunk_reduce import ChunkReduce
from wavecomp.networks.classifier import ChunkReduceClassifier
from wavecomp.networks.decoder import LocalDecoder
from wavecomp.networks.language_model import ChunkReduceLM
from wavecomp.networks.reduce import ReduceNetwork
from wavecomp.networks.streaming import StreamingEncoder
from wavecomp.networks.transformer import TransformerBlock, TransformerEncoder

__all__ = [
    "ChunkDecoder",
    "ChunkNetwork",
    "ChunkReduce",
    "ChunkReduceAutoencoder",
    "ChunkReduceClassifier",
    "ChunkReduceLM",
    "LocalDecoder",
    "ReduceAdapter",
    "ReduceNetwork",
    "SequenceAdapter",
    "StreamingEncoder",
    "TransformerBlock",
    "TransformerEncoder",
]
