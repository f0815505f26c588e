"""What ``torch.compile`` and ``torch.func`` are told of our functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])


def constant_result(function: F) -> F:
    """Mark a function whose result depends on its arguments alone: a compiler runs it instead of tracing it.

    ``torch.compiler.assume_constant_result`` leaves the same mark, but imports the compiler first: as long again as
    ``import torch`` takes, and in vain for those who never compile.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def constant_numbers(dtype: torch.dtype) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Mark a function that makes a tensor of its arguments alone, on the CPU: a compiler is told its numbers.

    It refuses two tensors of one function as constants of one graph, or takes one for the other, and stages of a model
    have positions of their own.

    Args:
        dtype: that of the tensor.
    """

    def told(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @constant_result
        def numbers(*args: Any) -> Any:
            return function(*args).tolist()

        @functools.wraps(function)
        def tensor(*args: Any) -> Tensor:
            if torch.compiler.is_compiling():
                # lengths that were seen to differ are symbols by now, and constants are made of numbers
                known = [len(range(arg)) if isinstance(arg, int) else arg for arg in args]
                return torch.tensor(numbers(*known), dtype=dtype)
            with torch._C._DisableFuncTorch():  # numbers are not mapped over, and draw what they always draw
                return function(*args)

        return tensor

    return told


def no_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Where products keep the precision of their operands, as all others do."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def numbers_are_real() -> bool:
    """Whether what is computed now has numbers that may be kept: not for a compiler, nor where shapes alone are told.

    ``FakeTensorMode`` is at work in the latter, as in ``make_fx`` and in estimates of memory. What ``torch.func`` sees
    are wrappers, which are worth nothing, and cannot be copied, when it is done.
    """
    return not _operations_are_looked_at() and torch._guards.detect_fake_mode() is None


def plain_operations() -> bool:
    """Whether those who look at each operation are at work: a compiler, ``torch.func``, or forward-mode derivatives.

    They make nothing of a function with a backward pass of its own, and take the same in plain operations.
    """
    return _operations_are_looked_at() or forward_ad._current_level >= 0


def _operations_are_looked_at() -> bool:
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
