"""What ``torch.compile`` is told of our functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def constant_result(function: F) -> F:
    """Mark a function whose result depends on its arguments alone: a compiler runs it instead of tracing it.

    ``torch.compiler.assume_constant_result`` leaves the same mark, but imports the compiler first: as long again as
    ``import torch`` takes, and in vain for those who never compile.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
