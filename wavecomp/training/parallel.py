"""Several processes: a sequence split over them by chunks, or a model split over them by parameters.

Plain data parallelism needs nothing from here: ``trainer.strategy: ddp``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn import functional as F

from wavecomp.codes import Codes, codes_first
from wavecomp.networks import ChunkReduce, ChunkReduceLM, TransformerBlock
from wavecomp.networks.embedding import embed_tokens
from wavecomp.training.data import Batch
from wavecomp.training.language_model import LanguageModelModule
from wavecomp.training.optimisation import surprise


class Share(NamedTuple):
    """What one rank does of a sequence, in tokens.

    Args:
        first: where it begins.
        encoded: up to where it makes codes, at most ``last``.
        last: up to where it predicts.
    """

    first: int
    encoded: int
    last: int


class ChunkParallel:
    """A language model on one long sequence that is split over ranks: what goes between them is codes.

    Each rank embeds, encodes and compresses its own stretch of chunks. The codes of all are gathered, ``1 / ratio`` of
    the tokens (where rows or ranks keep unequally many, as many of each as the one that keeps most has), and their
    gradients go back summed to the rank that made them. Every rank then runs the Reduce-Network on all codes, for they
    are few and its layers need no further exchange; and the decoder on its own tokens, with as many before them as its
    raw window reaches back.

    Every rank is given the whole rows of tokens. Shares are cut at multiples of a chunk of the last stage, so chunks
    are whole on one rank and codes are those of one process; ranks behind the last chunk have an empty share. The
    gradients of all ranks add up to those of one process, if their losses do: each a sum over the rank's own tokens,
    divided by the number of tokens on all. Losses that compressors add, such as those of :class:`HardConcrete`, of
    :class:`Shrinkage` with a price and of a :class:`DetailPredictor`, are of each rank's own chunks: they ask for a
    ratio, for a price by loudness or for better guesses in each share instead of in the whole.

    Args:
        model: all ranks hold the same.
        group: the ranks that share a sequence; all unless given.

    Raises:
        ValueError: a model whose body is no :class:`ChunkReduce`, or whose decoder does not say how far it reaches.
    """

    def __init__(self, model: ChunkReduceLM, group: dist.ProcessGroup | None = None) -> None:
        if not isinstance(model.body, ChunkReduce):
            raise ValueError(f"model.body is a {type(model.body).__name__}; allowed: ChunkReduce")
        if not hasattr(model.decoder, "reach"):
            raise ValueError(
                f"model.decoder {type(model.decoder).__name__} has no reach, the tokens before a place that it reads "
                "without codes; allowed: LocalDecoder, or what has one"
            )
        self.model = model
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)

    def share(self, length: int) -> Share:
        """The share of this rank in a sequence of so many tokens."""
        encoded, each = self._encoded(length), self._each(length)
        first, last = min(self.rank * each, encoded), min((self.rank + 1) * each, encoded)
        return Share(first, last, length if self.rank + 1 == self.ranks else last)

    def context(self, tokens: Tensor, lengths: Tensor | None = None) -> Codes:
        """The codes that a prediction within these rows can see, of all ranks: :meth:`ChunkReduceLM.context`.

        Statistics are those of the chunks of this rank; so are losses, by the part of all tokens that these are, so
        that they add up over the ranks.

        Args:
            tokens: ``(batch, length)`` int64, the same on all ranks.
            lengths: ``(batch,)``, tokens in each row; all unless given.
        """
        body, length = self.model.body, tokens.shape[1]
        share, encoded = self.share(length), self._encoded(length)
        own = _within(lengths, share.first, share.encoded)
        embedded = embed_tokens(self.model.embedding, tokens[:, share.first : share.encoded], own)
        stages = body.stages(Codes.from_tokens(embedded.values, own, start=share.first))
        total = tokens.new_full(tokens.shape[:1], encoded) if lengths is None else lengths.clamp(max=encoded)
        part = embedded.tokens.sum() / total.sum().clamp(min=1)
        for stage, span in enumerate(body.spans):
            if body.keep == "all" or stage + 1 == len(stages):
                capacity: Any = body.chunk_networks[stage].capacity
                each, slots = (-(-count // span) * capacity for count in (self._each(length), encoded))
                codes = gather_codes(stages[stage], each=each, total=slots, group=self.group)
                losses = {name: part * loss for name, loss in codes.losses.items()}
                stages[stage] = codes.replace(tokens=total, losses=losses)
        return body.reduce(stages)

    def logits(self, tokens: Tensor, lengths: Tensor | None = None, *, codes: Codes) -> Tensor:
        """Next-token logits of the tokens of this rank, ``share.first`` to ``share.last``.

        Args:
            tokens, lengths: as in :meth:`context`.
            codes: what :meth:`context` gave.

        Returns:
            ``(batch, share.last - share.first, vocabulary)``.
        """
        share = self.share(tokens.shape[1])
        reach: Any = self.model.decoder.reach
        start = max(share.first - reach, 0)
        stop = max(share.last, start + 1)  # an empty share reads a token too, for its part in the codes' gradients
        logits = self.model(tokens[:, start:stop], _within(lengths, start, stop), codes=codes, start=start)
        return logits[:, share.first - start : share.last - start]

    def _encoded(self, length: int) -> int:
        """Tokens whose codes a prediction can see."""
        return max(length - 1, 0) // self.model.body.chunk_length * self.model.body.chunk_length

    def _each(self, length: int) -> int:
        """Tokens that a rank encodes, unless the sequence ends: whole chunks of the last stage."""
        span = self.model.body.spans[-1]
        return -(-self._encoded(length) // (span * self.ranks)) * span


def _within(lengths: Tensor | None, first: int, last: int) -> Tensor | None:
    """How much of each row lies between two places."""
    return None if lengths is None else (lengths - first).clamp(0, last - first)


def gather_codes(codes: Codes, *, each: int, total: int, group: dist.ProcessGroup | None = None) -> Codes:
    """The codes of all ranks, one behind the other; losses and statistics stay those of this rank.

    Where each code lies is told of every slot; of the values none but those of codes travel. So as to know how many
    they are this waits for the device.

    Args:
        codes: of this rank, one stage.
        each: slots of a rank; those behind the end of the sequence have fewer, or none.
        total: slots of all ranks together.
        group: the ranks; all unless given.
    """
    fields: dict[str, Tensor] = {}
    by_dtype: dict[torch.dtype, list[str]] = {}
    for name in Codes.per_slot:
        by_dtype.setdefault(getattr(codes, name).dtype, []).append(name)
    for names in by_dtype.values():
        stacked = _gathered(torch.stack([getattr(codes, name) for name in names], dim=-1), each, group)
        fields.update(zip(names, stacked.unbind(-1)))
    mask = fields["mask"]
    most = max(int(mask.sum(-1).amax()), 1)
    order = codes_first(codes.mask)[:, :most]
    packed = _gathered(codes.values.gather(1, order[..., None].expand(-1, -1, codes.values.shape[-1])), most, group)
    place = (mask.cumsum(-1) - 1).clamp(min=0)[..., None].expand(*mask.shape, packed.shape[-1])
    fields["values"] = torch.where(mask[..., None], packed.gather(2, place), 0)
    together = {name: x.transpose(0, 1).flatten(1, 2)[:, :total] for name, x in fields.items()}
    return codes.replace(**together, pace=codes.pace, first=0)


def _gathered(x: Tensor, slots: int, group: dist.ProcessGroup | None) -> Tensor:
    """``(batch, up to slots, ...)`` of each rank to ``(ranks, batch, slots, ...)``."""
    padded = torch.cat([x, x.new_zeros(len(x), slots - x.shape[1], *x.shape[2:])], dim=1)
    return _AllGather.apply(padded, group).unflatten(0, (-1, len(x)))


class _AllGather(torch.autograd.Function):
    """The tensors of all ranks, of one shape, joined on the first axis; gradients go back to the owner, summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        out = x.new_empty(dist.get_world_size(group) * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(out, x.contiguous(), group=group)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient.new_empty(len(gradient) // dist.get_world_size(ctx.group), *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous(), group=ctx.group)
        return own, None


class ChunkParallelStrategy(DDPStrategy):
    """DDP for ranks that share each sequence: to data they are one reader, so all are given the same batches.

    A data module asks ``trainer.distributed_sampler_kwargs`` for its ``rank`` among ``num_replicas``.
    """

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": 1, "rank": 0}


class ChunkParallelModule(LanguageModelModule):
    """Trains a language model on sequences that are split over all ranks; see :class:`ChunkParallel`.

    Goes with :class:`ChunkParallelStrategy`. Each rank takes its share of a sum over tokens times the number of ranks
    for the whole, so that the mean over ranks, which DDP takes of gradients and metrics come to, is exact however the
    tokens, or the answers that count, lie. Ratio controllers are moved by the codes of all ranks.

    Args:
        settings: as in :class:`LanguageModelModule`; a ``reconstruction`` is not supported.

    Raises:
        ValueError: a reconstruction, another strategy, batches that differ between ranks, and what
            :class:`LanguageModelModule` and :class:`ChunkParallel` refuse.
    """

    parallel: ChunkParallel

    def __init__(self, *, model: ChunkReduceLM, **settings: Any) -> None:
        super().__init__(model=model, **settings)
        if self.reconstruction is not None:
            raise ValueError("reconstruction does not go with chunk parallelism; allowed: None")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        strategy = self.trainer.strategy
        if not isinstance(strategy, ChunkParallelStrategy):
            raise ValueError(
                f"trainer.strategy is {type(strategy).__name__}; ChunkParallelModule allows ChunkParallelStrategy"
            )
        self.parallel = ChunkParallel(self.model)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self._check_same(batch, batch_idx)

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._check_same(batch, batch_idx)

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._check_same(batch, batch_idx)

    def log_step(self, codes: Codes, figures: dict[str, Tensor]) -> None:
        """Log the figures of all ranks; the attribute ``statistics`` keeps those of this one."""
        reduce = self.trainer.strategy.reduce
        means: Any = reduce(torch.stack(list(figures.values())), reduce_op="mean")
        overflow = {
            name: reduce(value.sum(), reduce_op="sum")
            for name, value in codes.statistics.items()
            if name.endswith(".overflow")
        }
        super().log_step(codes.replace(statistics={**codes.statistics, **overflow}), dict(zip(figures, means)))
        self.statistics |= {name: codes.statistics[name] for name in overflow}

    def _check_same(self, batch: Batch, batch_idx: int) -> None:
        """Raise unless all ranks were given one batch; looks at the first of each loader."""
        if batch_idx:
            return
        tokens = batch["tokens"]
        place = torch.arange(1, tokens.numel() + 1, device=tokens.device)
        seen = torch.stack([*map(place.new_tensor, tokens.shape), (tokens.flatten() * place).sum()])
        found = seen.new_empty(self.parallel.ranks * len(seen))
        dist.all_gather_into_tensor(found, seen)
        if not torch.equal(found, seen.repeat(self.parallel.ranks)):
            raise ValueError(
                "ranks were given different batches, and share the tokens of one; allowed: a data module that asks "
                "trainer.distributed_sampler_kwargs for rank and num_replicas, not for global_rank and world_size"
            )

    def _context(self, batch: Batch) -> tuple[Codes, None]:
        codes = self.parallel.context(batch["tokens"], batch.get("lengths"))
        return codes.replace(losses={name: self.parallel.ranks * loss for name, loss in codes.losses.items()}), None

    def _read(self, batch: Batch, codes: Codes) -> tuple[Tensor, Tensor]:
        """As of the whole: ``ranks`` times what the tokens of this rank have, and 0 elsewhere."""
        tokens = batch["tokens"]
        share = self.parallel.share(tokens.shape[1])
        logits = self.parallel.logits(tokens, batch.get("lengths"), codes=codes)
        nats, right = surprise(logits, tokens[:, share.first : share.last])
        around = (share.first, tokens.shape[1] - share.last)
        nats, right = (self.parallel.ranks * F.pad(x, around) for x in (nats, right.float()))
        return nats, right


class FullyShardedModule(LanguageModelModule):
    """Trains a language model whose parameters are split over ranks (FSDP2), each with data of its own.

    Goes with Lightning's ``ModelParallelStrategy``, whose ``save_distributed_checkpoint=False`` keeps checkpoints that
    :func:`wavecomp.load` reads. A Transformer block is gathered while it works, everything else for a whole step.
    """

    def setup(self, stage: str) -> None:
        if not isinstance(self, FSDPModule):
            super().setup(stage)

    def configure_model(self) -> None:
        if isinstance(self, FSDPModule):
            return
        if self.device_mesh is None:
            raise ValueError(
                f"trainer.strategy is {type(self.trainer.strategy).__name__}; FullyShardedModule allows "
                "ModelParallelStrategy"
            )
        shard(self, self.device_mesh["data_parallel"])


def shard(module: FullyShardedModule, mesh: DeviceMesh) -> None:
    """Split the parameters of a module over the ranks of a mesh: each block by itself, the rest together."""
    scalars = {parameter for parameter in module.parameters() if not parameter.ndim}  # these cannot be split
    for parameter in scalars:
        parameter.register_hook(lambda gradient: _mean_over(gradient, mesh))
    for block in [part for part in module.modules() if isinstance(part, TransformerBlock)]:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh, ignored_params=scalars)
    for step in ("training_step", "validation_step", "test_step", "predict_step"):
        register_fsdp_forward_method(module, step)


def _mean_over(gradient: Tensor, mesh: DeviceMesh) -> Tensor:
    mean = gradient / mesh.size()
    dist.all_reduce(mean, group=mesh.get_group())
    return mean
