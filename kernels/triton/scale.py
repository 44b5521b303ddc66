"""A tensor times a number that only the GPU knows, in place, and nothing at all where the number is one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 4096
PROGRAMS = 132 * 8
"""Enough to fill an H100; more would only have to find out that there is nothing to do."""


@triton.jit
def scale(values, factor, count, BLOCK: tl.constexpr):
    """Multiply ``values`` [count] with the float ``factor`` [1]; each program goes over every so many blocks."""
    by = tl.load(factor).to(tl.float32)
    if by != 1.0:
        start = tl.program_id(0).to(tl.int64) * BLOCK
        step = tl.num_programs(0).to(tl.int64) * BLOCK
        for first in range(start, count, step):
            at = first + tl.arange(0, BLOCK)
            some = tl.load(values + at, at < count, 0.0)
            tl.store(values + at, (some.to(tl.float32) * by).to(some.dtype), at < count)


def multiply(values: torch.Tensor, factor: torch.Tensor) -> None:
    """Multiply contiguous ``values`` of half precision or float32 with ``factor`` []; products are float32."""
    count = values.numel()
    if count:
        with torch.cuda.device_of(values):
            scale[(min(PROGRAMS, triton.cdiv(count, BLOCK)),)](values, factor, count, BLOCK=BLOCK, num_warps=4)
