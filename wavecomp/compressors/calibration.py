"""Calibration: the threshold at which given data comes out at the ratio that is asked for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavecomp.codes import Codes
from wavecomp.compressors.compressor import Compressor
from wavecomp.compressors.pruner import check_ratio
from wavecomp.compressors.ratio import REACH, RatioController
from wavecomp.modules import evaluating
from wavecomp.records import check_count

SAME = 1e-4
"""Logarithms of thresholds that differ by less are one: what is between them is a jump of the ratio."""


@torch.no_grad()
def calibrate(
    model: nn.Module,
    data: Iterable[Tensor],
    target_ratio: float | None = None,
    *,
    encode: Callable[[Tensor], Codes] | None = None,
    controller: RatioController | None = None,
    steps: int = 30,
    tolerance: float = 0.002,
) -> float:
    """Set the threshold so that held-out data comes out at the target ratio, in the stage that the controller is in.

    The ratio rises with the threshold, so it is found between one that is too low and one that is too high.

    Args:
        model: holds a :class:`RatioController`.
        data: batches that ``encode`` takes; all are held, and gone through once per step.
        target_ratio: tokens per code, the controller's own target unless given. A new one becomes its target; it is a
            setting, which no state dict holds, so a model that is to be saved is built with it.
        encode: from a batch to Codes; ``model.encode`` unless given.
        controller: which one, of a model with several; that of the first stage first, for what it keeps is what the
            next one is given.
        steps: passes over the data at most.
        tolerance: relative error that is good enough, above 0. What stays beyond it and beyond half a percent is
            warned of: little data has too few codes to come closer, or the ratio is out of reach.

    Returns:
        The ratio reached by that stage, what came in over codes.

    Raises:
        ValueError: a model without a controller, or several and none named, or another's; that of a stage before the
            last and no ChunkReduce; a ratio or tolerance out of range, no data, no step, nothing to encode with; or a
            ratio that changes how many slots a further stage is given, which it was not built for. The model is as it
            was then.

    Example:
        >>> pruner = wc.Shrinkage(target_ratio=4)
        >>> compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=5), pruner=pruner)
        >>> data = [torch.randn(4, 256, 8)]
        >>> reached = calibrate(compressor, data, encode=lambda x: compressor(wc.Codes.from_tokens(x).cut(64)))
        >>> abs(reached - 4) < 0.1
        True
    """
    if controller is None:
        controller = _only(model)
    elif all(module is not controller for module in model.modules()):
        raise ValueError(f"controller is none of this {type(model).__name__}; allowed: one that it holds")
    batches = list(data)
    if not batches:
        raise ValueError("data is empty; give at least one batch")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance={tolerance} is out of range; allowed: above 0, finite")
    check_count("steps", steps)
    encode = getattr(model, "encode", None) if encode is None else encode
    if encode is None:
        raise ValueError(f"encode=None, and a {type(model).__name__} has no method of that name; give a function")
    if target_ratio is not None:
        check_ratio(target_ratio)
    before = controller.target_ratio, {name: value.clone() for name, value in controller.state_dict().items()}
    built_for = _spans(model)
    controller.target_ratio = target_ratio or controller.target_ratio
    try:
        if _spans(model) != built_for:
            raise ValueError(
                f"target_ratio={target_ratio:g} changes what chunks of further stages stand for, from {built_for} to "
                f"{_spans(model)} tokens; allowed: that of a model that is built with it"
            )
        with evaluating(model):
            reached = _search(controller, encode, _stage_of(model, controller), batches, steps, tolerance)
    except BaseException:
        controller.target_ratio = before[0]
        controller.load_state_dict(before[1])
        raise
    off = abs(reached / controller.target_ratio - 1)
    if off > max(tolerance, 0.005):
        warnings.warn(
            f"the target ratio of {controller.target_ratio:g} is out of reach on this data: it came to {reached:.4g}, "
            f"{off:.1%} off",
            stacklevel=3,  # under that of no_grad
        )
    return reached


def _only(model: nn.Module) -> RatioController:
    """The controller of a model that has one."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, RatioController)}
    if len(found) > 1:
        raise ValueError(f"model holds ratio controllers at {', '.join(found)}; allowed: one of them as controller")
    if not found:
        raise ValueError(f"{type(model).__name__} holds no ratio controller; allowed: a model with one")
    return next(iter(found.values()))


def _spans(model: nn.Module) -> list[object]:
    """Tokens that a chunk of each stage stands for, which follow the slots of the stages before."""
    return [module.spans for module in model.modules() if hasattr(module, "spans")]


def _stage_of(model: nn.Module, controller: RatioController) -> str:
    """What names of the statistics of its stage begin with.

    Raises:
        ValueError: that of a stage before the last outside of a body that tells their statistics apart.
    """
    bodies: list[Any] = [module for module in model.modules() if hasattr(module, "controllers")]
    paths = {id(found): path for body in bodies for path, found in body.controllers().items()}
    if id(controller) in paths:
        return f"{paths[id(controller)]}."
    stages = [module for module in model.modules() if isinstance(module, Compressor)]
    mine = [place for place, stage in enumerate(stages, 1) if any(part is controller for part in stage.modules())]
    if mine and mine[-1] < len(stages):
        raise ValueError(
            f"the controller is of compressor {mine[-1]} of {len(stages)} outside of a ChunkReduce, and the last one's "
            "counts hide its own; allowed: that of the last one"
        )
    return ""


def _search(
    controller: RatioController,
    encode: Callable[[Tensor], Codes],
    stage: str,
    batches: Sequence[Tensor],
    steps: int,
    tolerance: float,
) -> float:
    """The ratio at the best threshold that was found, which is set.

    Until both sides are known, steps follow a ratio that moves by three times what its threshold does, twice as far
    each time; then the straight line between the sides, and the middle where that did not halve them.
    """
    tried: list[tuple[float, float, float]] = []

    def off(log_threshold: float) -> float:
        controller.set_threshold(math.exp(log_threshold))
        tokens = kept = 0.0
        for batch in batches:
            codes = encode(batch)
            # what the controller is moved by in training; of an encoder of one's own, which may count nothing, all
            tokens += float(codes.statistics.get(f"{stage}places", codes.tokens).sum())
            kept += float(codes.statistics.get(f"{stage}kept", codes.mask).sum())
        if not tokens:
            raise ValueError("data holds no tokens; give at least one")
        ratio = tokens / max(kept, 1)
        error = math.log(ratio / controller.target_ratio)
        tried.append((abs(error), log_threshold, ratio))
        return error

    low, high = (-math.inf, 0.0), (math.inf, 0.0)  # log threshold and error; of a side that is not known, infinite
    start = here = float(controller.log_threshold)
    stride, width = 1 / 3, math.inf
    while len(tried) < steps and high[0] - low[0] > SAME and abs(here - start) < REACH:
        error = off(here)
        if abs(error) < tolerance:
            break
        low, high = ((here, error), high) if error < 0 else (low, (here, error))
        if math.isinf(high[0] - low[0]):
            here -= max(stride * abs(error), SAME) * math.copysign(1, error)
            stride *= 2
            continue
        halved, width = high[0] - low[0] <= width / 2, high[0] - low[0]
        share = low[1] / (low[1] - high[1]) if halved else 0.5
        here = low[0] + min(max(share, 0.05), 0.95) * width
    _, best, reached = min(tried, key=lambda one: one[0])
    controller.set_threshold(math.exp(best))
    return reached
