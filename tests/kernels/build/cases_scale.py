"""The kernel that multiplies a gradient in place on the way back."""

from collections.abc import Callable
from functools import partial

import torch
from codistill.kernels.triton.scale import multiply


def _call(count: int, dtype: torch.dtype) -> None:
    multiply(torch.ones(count, dtype=dtype), torch.full((), 2.0))


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of the launcher."""
    return {
        "bfloat16": partial(_call, 8192, torch.bfloat16),
        "float32": partial(_call, 8192, torch.float32),
        "odd number, float16": partial(_call, 5001, torch.float16),
    }
