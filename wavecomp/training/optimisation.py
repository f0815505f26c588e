"""What training needs whatever the model is for: an optimiser and its rate, ratio controllers, a first try."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from wavecomp.codes import Codes
from wavecomp.compressors import RatioController
from wavecomp.modules import evaluating
from wavecomp.networks import LocalDecoder, ReduceNetwork, TransformerEncoder
from wavecomp.records import check_count
from wavecomp.training.data import Batch, LabelledBatch
from wavecomp.wavelets import FilterBank


class CompressionModule(L.LightningModule):
    """Trains a model with a body from Codes to Codes, with AdamW, warm-up and a cosine.

    A kind of model says what a training step does, which metrics there are (:meth:`metrics`) and how a batch moves
    them (:meth:`evaluate`). They are logged under ``val/`` and ``test/``; the one called ``loss`` chooses the best
    checkpoint.

    Args:
        model: with ``embedding``, ``body`` and ``encode``.
        learning_rate: at its peak.
        weight_decay: of matrices; vectors and scalars have none.
        betas: of AdamW.
        warmup_steps: steps until the peak.
        final_share: share of the peak that is left at the end of the cosine.
        activation_checkpointing: have the blocks of encoders, Reduce-Network and decoder of this library computed again
            for their gradients rather than remember what they computed: ``checkpoint`` of each.

    Raises:
        ValueError: a rate that is not positive, a negative decay or warm-up, a share outside 0 to 1; activation
            checkpointing where there is nothing to compute again.
    """

    shown: tuple[str, ...] = ()
    """Metrics that the progress bar shows."""

    def __init__(
        self,
        *,
        model: nn.Module,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        warmup_steps: int = 50,
        final_share: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate={learning_rate} is out of range; allowed: above 0, finite")
        if weight_decay < 0:
            raise ValueError(f"weight_decay={weight_decay} is negative; allowed: 0 and above")
        check_count("warmup_steps", warmup_steps, least=0)
        check_share("final_share", final_share)
        self.model: Any = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas = betas
        self.warmup_steps = warmup_steps
        self.final_share = final_share
        self.activation_checkpointing = activation_checkpointing
        self.statistics: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._random: dict[str, Any] | None = None
        self._check_controllers()
        self.val_metrics = nn.ModuleDict(self.metrics())
        self.test_metrics = nn.ModuleDict(self.metrics())

    def metrics(self) -> dict[str, Metric]:
        """Fresh metrics by name, one of them ``loss``."""
        raise NotImplementedError

    def evaluate(self, batch: Any, metrics: dict[str, Any]) -> list[str]:
        """Move the metrics by a batch; the names of those that are to be logged."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        if self.activation_checkpointing:
            able = [m for m in self.modules() if isinstance(m, (TransformerEncoder, ReduceNetwork, LocalDecoder))]
            if not able:
                raise ValueError(
                    "activation_checkpointing=True, but no part of the model can; allowed: with a TransformerEncoder, "
                    "ReduceNetwork or LocalDecoder"
                )
            for module in able:
                module.activation_checkpointing = True
        self.check_data(getattr(self.trainer, "datamodule", None))

    def check_data(self, data: L.LightningDataModule | None) -> None:
        """Try the model on what a data module says of itself, before any work; see :meth:`check`."""
        self.check(getattr(data, "vocabulary", 1))

    def check(self, vocabulary: int) -> None:
        """Try a few tokens before any work.

        Args:
            vocabulary: how many tokens the data has.

        Raises:
            ValueError: parts of the model that do not fit together, or tokens that it does not know.
        """
        predicted = self.try_model(vocabulary).shape[-1]
        if predicted < vocabulary:
            raise ValueError(
                f"the data has tokens up to {vocabulary - 1}, the model's head predicts 0 to {predicted - 1}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where random numbers are too: a run that resumes draws on, as one that was not interrupted."""
        on_gpu = self.device.type == "cuda"
        checkpoint["random"] = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if on_gpu else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._random = checkpoint.get("random")

    def on_fit_start(self) -> None:
        if self.trainer.ckpt_path is None:  # a new run, maybe of a model that was loaded
            self._random = None
            for controller in self._controllers().values():
                controller.restart()

    def on_train_start(self) -> None:
        """Warn of settings that a run does not go on with, since its optimiser came with its own."""
        if self.trainer.ckpt_path is None:
            return
        group = self.trainer.optimizers[0].param_groups[0]
        for name, key in (("learning_rate", "initial_lr"), ("weight_decay", "weight_decay"), ("betas", "betas")):
            now, then = getattr(self, name), group.get(key)
            if then is not None and then != (tuple(now) if name == "betas" else now):
                rank_zero_warn(
                    f"{name}={now} is not what this run began with: its optimiser goes on with {then}. For another, "
                    "begin a run anew, with the model of the checkpoint"
                )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self._random is None:
            return
        # not before: to begin with the data draws as well
        torch.set_rng_state(self._random["cpu"].cpu())
        if self.device.type == "cuda" and self._random["cuda"] is not None:
            torch.cuda.set_rng_state(self._random["cuda"].cpu(), self.device)
        self._random = None

    @torch.no_grad()
    def try_model(self, vocabulary: int) -> Tensor:
        """Logits of a few tokens, the highest of the vocabulary.

        Raises:
            ValueError: parts of the model that do not fit together, or tokens that its embedding does not know.
        """
        device = next(self.model.parameters()).device
        length = getattr(self.model.body, "chunk_length", 1) + 1
        tokens = torch.full((1, length), vocabulary - 1, device=device)
        embedded = getattr(self.model.embedding, "num_embeddings", vocabulary)
        if vocabulary > embedded:
            raise ValueError(
                f"the data has tokens up to {vocabulary - 1}, the model's embedding allows 0 to {embedded - 1}"
            )
        try:
            # it leaves no trace: no running mean, and the same random numbers afterwards
            with evaluating(self.model), torch.random.fork_rng([device] if device.type == "cuda" else []):
                return self.model(tokens)
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"the parts of the model do not fit together: {error}") from error

    def log_step(self, codes: Codes, figures: dict[str, Tensor]) -> None:
        """Log what a training step found, with the ratio and overflow of its codes, and count these.

        The attribute ``statistics`` keeps those of the codes until the next step, for callbacks.
        """
        self.statistics = {name: value.detach() for name, value in codes.statistics.items()}
        figures = {**figures, "compression_ratio": codes.ratio}
        overflow = [value.sum() for name, value in codes.statistics.items() if name.endswith(".overflow")]
        if overflow:
            figures["overflow"] = torch.stack(overflow).sum().float()
        for path in self._controllers():
            counted = torch.stack([codes.statistics[f"{path}.{name}"].sum() for name in ("places", "kept")])
            self._counts[path] = self._counts.get(path, 0) + counted
        for name, value in figures.items():
            bar = name not in ("answer_accuracy", "overflow")
            self.log(f"train/{name}", value, prog_bar=bar, batch_size=len(codes.tokens))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and then move the ratio controllers by the codes of all ranks in all batches of this step."""
        super().optimizer_step(*args, **kwargs)
        for path, controller in self._controllers().items():
            tokens, kept = self.trainer.strategy.reduce(self._counts[path], reduce_op="sum")
            controller.update(tokens=tokens, codes=kept)
        self._counts = {}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_metrics)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Codes:
        """The codes of a batch."""
        return self.model.encode(batch["tokens"], batch.get("lengths"))

    def configure_optimizers(self) -> Any:
        # zero is no better a place for the angles and taps of filters than another
        banks = [module for module in self.modules() if isinstance(module, FilterBank)]
        filters = {p for bank in banks for p in bank.parameters()}
        matrices = [p for p in self.parameters() if p.ndim >= 2 and p not in filters]
        others = [p for p in self.parameters() if p.ndim < 2 or p in filters]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
            betas=self.betas,
        )
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            raise ValueError(
                f"trainer.max_steps={self.trainer.max_steps} leaves the cosine {steps} steps; allowed: 1 and above, "
                "finite"
            )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step, int(steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step: a straight line up, then half a cosine down."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    def _evaluate(self, batch: Any, stage: str, modules: nn.ModuleDict) -> None:
        metrics: dict[str, Any] = dict(modules.items())
        for name in self.evaluate(batch, metrics):
            self.log(f"{stage}/{name}", metrics[name], on_step=False, on_epoch=True, prog_bar=name in self.shown)

    def _controllers(self) -> dict[str, RatioController]:
        body: Any = getattr(self.model, "body", None)
        return body.controllers() if hasattr(body, "controllers") else {}

    def _check_controllers(self) -> None:
        """Raise ``ValueError`` for a ratio that nothing would hold: its codes are not counted."""
        counted = list(self._controllers().values())
        for path, module in self.model.named_modules():
            if isinstance(module, RatioController) and module not in counted:
                raise ValueError(
                    f"model.{path} has target_ratio={module.target_ratio:g}, which nothing would hold in training; "
                    "allowed: in the chunk_networks of a ChunkReduce"
                )


def check_share(name: str, share: float) -> None:
    """Raise ``ValueError`` for a share outside 0 to 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"{name}={share} is out of range; allowed: 0 to 1")


def real_places(batch: Batch | LabelledBatch) -> Tensor:
    """``(batch, length)``: which places hold a token."""
    tokens, lengths = batch["tokens"], batch.get("lengths")
    if lengths is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]


def surprise(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each token in nats, and whether it was the likeliest: the shape of ``tokens`` each."""
    logits = logits.float()
    nats = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").view_as(tokens)
    return nats, logits.argmax(-1) == tokens


def mean_of(values: Tensor, mask: Tensor) -> Tensor:
    """Their mean where the mask holds; 0 where it holds nowhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)
