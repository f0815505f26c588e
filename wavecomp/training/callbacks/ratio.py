"""Whether the compression ratio that was asked for is kept in training."""

from __future__ import annotations

from collections import deque
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from wavecomp.codes import compression_ratio
from wavecomp.compressors import RatioController
from wavecomp.networks import ChunkReduce
from wavecomp.records import check_count
from wavecomp.training.optimisation import CompressionModule
from wavecomp.training.steps import StepWatch

PERCENTILES = (10, 50, 90)


class RatioMonitor(Callback):
    """Logs how each Chunk-Network compresses, and warns where the ratio that was asked for is not kept.

    Under ``chunk_networks.0/``, and so on for each stage, over the last steps and all processes:

    - ``ratio``: codes into the Chunk-Network over codes out, sum over sum,
    - ``target_ratio`` and ``threshold`` of its :class:`wavecomp.RatioController`, if it has one,
    - ``overflow``: codes per chunk that were to be kept and found no room, if its compressor counts them,
    - ``kept_10``, ``kept_50``, ``kept_90``: codes of a chunk, at these percentiles of all chunks.

    A controller finds its threshold within some tens of steps. After ``patience`` steps the ratio is judged; the first
    time that it is off by more than the tolerance, one warning says so.

    Args:
        steps: how many steps the figures go over.
        tolerance: relative error of a ratio that is kept, above 0.
        patience: steps of the run before the ratio is judged.

    Raises:
        ValueError: less than one step, a tolerance that is not positive, or a negative patience.
    """

    def __init__(self, *, steps: int = 50, tolerance: float = 0.1, patience: int = 100) -> None:
        check_count("steps", steps)
        if tolerance <= 0:
            raise ValueError(f"tolerance={tolerance} is out of range; allowed: above 0")
        check_count("patience", patience, least=0)
        self.steps, self.tolerance, self.patience = steps, tolerance, patience
        self._counts: dict[str, deque[Tensor]] = {}
        self._counting: dict[str, Tensor] = {}
        self._warned: set[str] = set()
        self._watch = StepWatch()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, CompressionModule) or not isinstance(pl_module.model.body, ChunkReduce):
            raise ValueError(
                f"RatioMonitor watches a {type(pl_module).__name__}; allowed: a CompressionModule whose model has a "
                "ChunkReduce as its body"
            )
        self._counts, self._counting = {}, {}
        self._watch.start(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, CompressionModule)
        body: ChunkReduce = pl_module.model.body
        for stage, network in enumerate(body.chunk_networks):
            path = f"chunk_networks.{stage}"
            counted = _counted(pl_module.statistics, path, network.capacity)  # type: ignore[arg-type]
            self._counting[path] = counted + self._counting.get(path, 0)
        if not self._watch.stepped(trainer):
            return
        for path, counted in self._counting.items():
            self._counts.setdefault(path, deque(maxlen=self.steps)).append(counted)
        self._counting = {}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step % every == 0:
            controllers = body.controllers()
            for path, steps in self._counts.items():
                counts = trainer.strategy.reduce(torch.stack([*steps]).sum(0), reduce_op="sum")
                figures = _figures(counts, f"{path}.overflow" in pl_module.statistics, controllers.get(path))
                for name, value in figures.items():
                    pl_module.log(f"{path}/{name}", value, batch_size=1)
                self._judge(path, figures, trainer.global_step)

    def _judge(self, path: str, figures: dict[str, Tensor], step: int) -> None:
        if "target_ratio" not in figures or step < self.patience or len(self._counts[path]) < self.steps:
            return
        ratio, target = float(figures["ratio"]), float(figures["target_ratio"])
        off = ratio / target - 1
        if abs(off) > self.tolerance and path not in self._warned:
            self._warned.add(path)
            rank_zero_warn(
                f"{path} reached a compression ratio of {ratio:.2f} over the last {self.steps} steps, {abs(off):.0%} "
                f"{'above' if off > 0 else 'below'} its target of {target:g}; give it more steps, more room, or "
                "another target"
            )


def _counted(statistics: dict[str, Tensor], path: str, capacity: int) -> Tensor:
    """``(capacity + 3,)``: codes in, codes without room, and how many chunks kept 0, 1, ... codes."""
    places, kept = statistics[f"{path}.places"].flatten(), statistics[f"{path}.kept"].flatten()
    overflow = statistics.get(f"{path}.overflow", torch.zeros_like(places)).sum()
    chunks = kept.new_zeros(capacity + 1).scatter_add(0, kept, (places > 0).to(kept.dtype))
    return torch.cat([torch.stack([places.sum(), overflow]), chunks])


def _figures(counts: Tensor, overflow: bool, controller: RatioController | None) -> dict[str, Tensor]:
    places, lost, *_ = counts
    chunks = counts[2:]
    number, upto = chunks.sum().clamp(min=1), chunks.cumsum(0)
    figures = {"ratio": compression_ratio(places, (chunks * torch.arange(len(chunks), device=chunks.device)).sum())}
    if controller is not None:
        figures |= {"target_ratio": places.new_tensor(controller.target_ratio, dtype=torch.float32)}
        figures |= {"threshold": controller.threshold}
    if overflow:
        figures["overflow"] = lost / number
    shares = torch.tensor(PERCENTILES, device=counts.device) / 100 * number
    kept = torch.searchsorted(upto.to(shares.dtype), shares).float()
    return figures | {f"kept_{percent}": value for percent, value in zip(PERCENTILES, kept)}
