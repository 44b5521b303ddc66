"""Rows that no program holds: they are gone over block by block, and each group of columns keeps its own sums."""

from __future__ import annotations

import triton
import triton.language as tl

GROUP = tl.constexpr(8)
"""Columns side by side that a thread holds, so that what is said of them waits for no other thread."""


STAGES = tl.constexpr(3)
"""Blocks that are under way at once: two are read while one is worked on."""


@triton.jit
def grouped(BLOCK: tl.constexpr):
    """Return the columns of a block [BLOCK / GROUP, GROUP], a group in each row."""
    return tl.arange(0, BLOCK // GROUP)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]


@triton.jit
def nothing(BLOCK: tl.constexpr):
    """Return a sum without terms for every group of a block."""
    return tl.zeros((BLOCK // GROUP,), tl.float32)


@triton.jit
def lowest(BLOCK: tl.constexpr):
    """Return what every group's greatest value so far is before there is one: finite, for differences."""
    return tl.full((BLOCK // GROUP,), -1e30, tl.float32)


@triton.jit
def stepped(tops, values):
    """Return for each group the greater of ``tops`` and what is in ``values``, and the difference."""
    higher = tl.maximum(tops, tl.max(values, 1))
    return higher, tops - higher
