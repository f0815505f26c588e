"""Chunk- and Reduce-Networks, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.compressors import RatioController
from wavecomp.modules import Module
from wavecomp.networks.chunk import check_codes
from wavecomp.pace import Pace
from wavecomp.records import check_count, check_type


class ChunkReduceState(NamedTuple):
    """What a :class:`ChunkReduce` that reads step by step has not used up, and what its Reduce-Network remembers.

    Args:
        pending: of each stage, codes that do not fill a chunk yet; ``None`` for none.
        reduce: state of the Reduce-Network.
    """

    pending: tuple[Codes | None, ...]
    reduce: Any


class ChunkReduce(Module):
    """``Reduce-Network(Chunk-Network(chunk_1), ..., Chunk-Network(chunk_k))``, one or several stages deep.

    Each stage makes fewer codes of those of the stage before. All go on, and in a causal model the codes of a stage
    are seen until coarser ones stand in for them (``until``): the recent past stays fine, the distant past is coarse.

    Args:
        chunk_networks: modules from Codes to fewer Codes, first stage first, each with ``chunk_length`` and
            ``capacity``, slots in and out of a chunk. In a causal model each says so in an attribute ``causal``.
        reduce_network: a module from Codes to Codes, likewise ``causal`` or not. For streams and generation in steps
            it has ``step(codes, state) -> codes, state`` too, with what it remembers as its state (``None`` at the
            beginning): all steps together give what it gives of the whole.
        keep: the codes of ``"all"`` stages go on, or of the ``"last"`` alone (then tokens behind its last complete
            chunk have none).
        overlap: tokens that finer codes are seen beside the coarser ones that stand in for them.

    Raises:
        TypeError: Chunk-Networks in no list, or a Reduce-Network that is no module.
        ValueError: no Chunk-Network, a stage whose chunks are not made of whole chunks of the stage before, another
            ``keep``, or a negative overlap.

    Example:
        >>> def stage(length):
        ...     wavelet = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(length // 4))
        ...     return wc.ChunkNetwork(chunk_length=length, compressor=wavelet)
        >>> reduce_network = wc.ReduceNetwork(dim=8, heads=2, layers=1)
        >>> body = ChunkReduce(chunk_networks=[stage(16), stage(8)], reduce_network=reduce_network)
        >>> codes = body(wc.Codes.from_tokens(torch.randn(1, 64, 8)))
        >>> codes.visible(torch.tensor([31, 32, 63])).sum(-1)  # 4 fine codes, then 2 coarse, then 2 and 4
        tensor([[4, 2, 6]])
    """

    def __init__(
        self,
        *,
        chunk_networks: Sequence[nn.Module],
        reduce_network: nn.Module,
        keep: Literal["all", "last"] = "all",
        overlap: int = 0,
    ) -> None:
        super().__init__()
        check_type(
            "chunk_networks", chunk_networks, list, tuple, nn.ModuleList, hint=" of ChunkNetwork, stage by stage"
        )
        check_type("reduce_network", reduce_network, nn.Module, hint="; torch.nn.Identity() leaves codes as they are")
        if not chunk_networks:
            raise ValueError("chunk_networks=[] is empty; give at least one")
        if keep not in ("all", "last"):
            raise ValueError(f"keep={keep!r} is unknown; allowed: 'all' or 'last'")
        check_count("overlap", overlap, least=0)
        self.chunk_networks = nn.ModuleList(chunk_networks)
        self.reduce_network = reduce_network
        self.keep = keep
        self.overlap = overlap
        if len(chunk_networks) > 1:
            _spans(chunk_networks)

    def extra_repr(self) -> str:
        return f"keep={self.keep!r}, overlap={self.overlap}"

    @property
    def causal(self) -> bool:
        """Whether every code depends on what was read before its ``end`` alone."""
        return all(getattr(network, "causal", False) for network in [*self.chunk_networks, self.reduce_network])

    @property
    def spans(self) -> tuple[int, ...]:
        """Tokens per chunk of each stage."""
        return _spans(self.chunk_networks)

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
        return self.reduce(self.stages(codes))

    if TYPE_CHECKING:
        __call__ = forward

    def stages(self, codes: Codes) -> list[Codes]:
        """What each Chunk-Network makes, first stage first: what :meth:`reduce` takes and :meth:`expand` goes by."""
        made: list[Codes] = []
        for stage, network in enumerate(self.chunk_networks):
            codes = _made(stage, network, codes)
            made.append(self._until(stage, codes))
        return made

    def reduce(self, stages: Sequence[Codes]) -> Codes:
        """The codes of all stages, or of the last alone, through the Reduce-Network."""
        out = check_codes("reduce_network", self.reduce_network, self.reduce_network(self._kept(stages)))
        return out.replace(statistics=_statistics(stages))

    def expand(self, codes: Codes, before: Sequence[Codes]) -> Codes:
        """The way back from the codes of the last stage, one by one; encoders and Reduce-Network are not undone.

        Args:
            codes: of the last stage, or what a network made of their values, in the same slots.
            before: what each stage was given, first stage first; only which slots hold a code and where these lie is
                read.

        Returns:
            ``before[0]`` with the values that its slots get from the codes.

        Raises:
            ValueError: something else than one ``before`` per stage, or codes in other slots.

        Example:
            >>> network = wc.ChunkNetwork(chunk_length=16, compressor=wc.MeanPoolCompressor(count=4))
            >>> body = ChunkReduce(chunk_networks=[network], reduce_network=torch.nn.Identity())
            >>> tokens = wc.Codes.from_tokens(torch.randn(1, 40, 8))
            >>> body.expand(body(tokens), [tokens]).values.shape
            torch.Size([1, 40, 8])
        """
        if len(before) != len(self.chunk_networks):
            raise ValueError(f"before holds {len(before)} codes; allowed: one per stage, {len(self.chunk_networks)}")
        networks: list[Any] = list(self.chunk_networks)
        for network, given in zip(networks[::-1], before[::-1]):
            codes = network.expand(codes, given)
        return codes

    def step(self, codes: Codes, state: ChunkReduceState | None = None) -> tuple[Codes, ChunkReduceState]:
        """Read on: the codes that came to exist with some further tokens.

        All steps together give the codes that ``forward`` gives of the whole, but for those of short last chunks.

        Args:
            codes: of the further tokens, all rows equally many; their ``end`` goes on where it stopped.
            state: as returned by the step before; ``None`` at the beginning.

        Returns:
            New codes, maybe none, with ``tokens`` and statistics of what they were made from; and the state.

        Raises:
            ValueError: a network that is not causal, or a Reduce-Network without steps.
        """
        if not self.causal:
            raise ValueError("a Chunk- or Reduce-Network is not causal; step is for causal ones")
        if not hasattr(self.reduce_network, "step"):
            name = type(self.reduce_network).__name__
            raise ValueError(
                f"reduce_network {name} has no step; allowed: ReduceNetwork, ReduceAdapter, or what has one"
            )
        networks: list[Any] = list(self.chunk_networks)
        pending, reduce = state or ChunkReduceState((None,) * len(networks), None)
        waiting = list(pending)
        begin = (codes if pending[0] is None else pending[0]).first
        made: list[Codes] = []
        nothing = codes.part(0, 0).replace(tokens=codes.tokens * 0)
        for stage, (network, before) in enumerate(zip(networks, pending)):
            codes = codes if before is None else Codes.cat([before, codes])
            slots = codes.values.shape[1]
            whole = slots - slots % network.chunk_length
            waiting[stage] = codes.part(whole, slots)
            if not whole:
                break
            span, count, _ = codes.pace[0]
            tokens = torch.full_like(codes.tokens, whole // count * span)
            codes = _made(stage, network, codes.part(0, whole).replace(tokens=tokens))
            made.append(self._until(stage, codes))
        if not made or (self.keep == "last" and len(made) < len(networks)):
            return nothing.replace(statistics=_statistics(made)), ChunkReduceState(tuple(waiting), reduce)
        tokens = made[0 if self.keep == "all" else -1].tokens
        kept = self._kept(made)
        if self.keep == "all" and len(networks) > 1:
            # stages that made none in this step have made some before, in slots that the pace of these does not know
            kept = kept.replace(
                first=sum(begin // span * part.capacity for span, part in zip(self.spans, networks)),
                pace=kept.pace if len(made) == len(networks) else (),
            )
        codes, reduce = self.reduce_network.step(kept, reduce)  # type: ignore[operator]
        codes = codes.replace(tokens=tokens, statistics=_statistics(made))
        return codes, ChunkReduceState(tuple(waiting), reduce)

    def _until(self, stage: int, codes: Codes) -> Codes:
        """The codes of a stage with the token from which the next one stands in for them."""
        if self.keep == "last" or stage + 1 == len(self.chunk_networks):
            return codes
        return codes.replaced_after(self.spans[stage + 1], self.overlap)

    def _kept(self, stages: Sequence[Codes]) -> Codes:
        return Codes.merge(stages) if self.keep == "all" else stages[-1]


def _made(stage: int, network: Any, given: Codes) -> Codes:
    """The codes of a Chunk-Network, with how they come and go where it does not say.

    Raises:
        ValueError: another number of slots than its chunks have capacity.
    """
    codes = check_codes(f"chunk_networks[{stage}]", network, network(given))
    slots = -(-given.values.shape[1] // network.chunk_length) * network.capacity
    if codes.values.shape[1] != slots:
        raise ValueError(
            f"chunk_networks[{stage}] {type(network).__name__} returned {codes.values.shape[1]} slots, expected "
            f"{slots}: capacity={network.capacity} for each chunk of {network.chunk_length}"
        )
    if codes.pace or len(given.pace) != 1:
        return codes
    span, count, _ = given.pace[0]
    return codes.replace(pace=(Pace(span * network.chunk_length // count, network.capacity),))


def _statistics(stages: Sequence[Codes]) -> dict[str, Tensor]:
    """Those of each stage under its path."""
    return {
        f"chunk_networks.{stage}.{name}": value
        for stage, codes in enumerate(stages)
        for name, value in codes.statistics.items()
    }


def _spans(chunk_networks: Iterable[Any]) -> tuple[int, ...]:
    """Tokens per chunk of each stage."""
    first, *others = chunk_networks
    spans = [first.chunk_length]
    before = first
    for stage, network in enumerate(others, 1):
        slots = before.capacity
        if not slots or network.chunk_length % slots:
            raise ValueError(
                f"chunk_networks[{stage}] has chunk_length={network.chunk_length}, and each chunk of the stage before "
                f"becomes {slots} slots; allowed: whole multiples"
            )
        spans.append(spans[-1] * network.chunk_length // slots)
        before = network
    return tuple(spans)
