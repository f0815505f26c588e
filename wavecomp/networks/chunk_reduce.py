"""Chunk- and Reduce-Networks, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.compressors import RatioController


class ChunkReduce(nn.Module):
    """``Reduce-Network(Chunk-Network(chunk_1), ..., Chunk-Network(chunk_k))``, one or several stages deep.

    The codes of the last stage go on: tokens behind its last complete chunk have none yet.

    Args:
        chunk_networks: modules from Codes to fewer Codes, first stage first. In a causal model each says so in an
            attribute ``causal``.
        reduce_network: a module from Codes to Codes, likewise.

    Raises:
        ValueError: no Chunk-Network.
    """

    def __init__(self, *, chunk_networks: Sequence[nn.Module], reduce_network: nn.Module) -> None:
        super().__init__()
        if not chunk_networks:
            raise ValueError("chunk_networks=[] is empty; give at least one")
        self.chunk_networks = nn.ModuleList(chunk_networks)
        self.reduce_network = reduce_network

    @property
    def causal(self) -> bool:
        """Whether every code depends on what was read before its ``end`` alone."""
        return all(getattr(network, "causal", False) for network in [*self.chunk_networks, self.reduce_network])

    @property
    def chunk_length(self) -> int:
        """Tokens per chunk of the first stage."""
        return self.chunk_networks[0].chunk_length  # type: ignore[return-value]

    def controllers(self) -> dict[str, RatioController]:
        """The ratio controller of each Chunk-Network that has one, by the path that its statistics begin with."""
        return {
            f"chunk_networks.{stage}": module
            for stage, network in enumerate(self.chunk_networks)
            for module in network.modules()
            if isinstance(module, RatioController)
        }

    def forward(self, codes: Codes) -> Codes:
        """``Codes`` to fewer ``Codes``; the statistics of each stage go under its path, ``chunk_networks.0.kept``."""
        statistics: dict[str, Tensor] = {}
        for stage, network in enumerate(self.chunk_networks):
            codes = network(codes)
            statistics |= {f"chunk_networks.{stage}.{name}": value for name, value in codes.statistics.items()}
        return self.reduce_network(codes).replace(statistics=statistics)
