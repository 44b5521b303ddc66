"""How big the pieces are that the retrieval's kernels work on: a table and rules instead of trials at run time."""

from __future__ import annotations

from typing import NamedTuple

import torch

MOST = 256
"""The k up to which one program holds and sorts what it found; above it the reference does the work."""

ROOM = 4096
"""Numbers of gathered rows that a program holds in registers: 32 of each thread of four warps."""

PROGRAMS = 132 * 4
"""Programs that fill an H100 a few times over."""


class Tiles(NamedTuple):
    """Queries, memories and dimensions of a tile of the matrix product; warps and stages of its pipeline."""

    queries: int
    memories: int
    dim: int
    warps: int
    stages: int


def power_of_two(value: int, least: int = 2) -> int:
    """Return the lowest power of two that is not below ``value`` nor ``least``."""
    return max(least, 1 << max(0, value - 1).bit_length())


def tiles(queries: torch.Tensor, count: int, masked: bool) -> Tiles:
    """Return the tiles for queries [Q, D] and ``count`` memories, as registers and shared memory of an H100 allow."""
    rows, dim = queries.shape
    if rows <= 16:
        return Tiles(16, min(128, power_of_two(count, 32)), min(64, power_of_two(dim, 16)), 4, 3)
    if queries.dtype == torch.float32:  # three products in tf32 for each: smaller pieces, or registers run out
        return Tiles(64, 64, min(32, power_of_two(dim, 16)), 4, 3)
    # Wider parts would let the queries stay where they are, but at 128 registers run out.
    part = min(64, power_of_two(dim, 16))
    if rows <= 64:
        return Tiles(64, 128, part, 4, 3)
    return Tiles(128, 128 if masked else 256, part, 8, 3)


def group_size(count: int, k: int, key_bytes: int) -> int:
    """Return how many memories make a group: 4, 8 or 16.

    Maxima cost 8 M / g bytes a query, written and read, and the members of the chosen groups k g ``key_bytes``.
    """
    best = (8 * count / max(1, k * key_bytes)) ** 0.5
    return 4 if best < 6 else 8 if best < 12 else 16


def block(width: int, rows: int, room: int = ROOM) -> int:
    """Return how many of ``width`` columns of ``rows`` gathered rows are held at a time."""
    return max(16, min(power_of_two(width), room // rows))


def vector(*multiples: int) -> int:
    """Return 8, 4, 2 or 1: the numbers that one load may take, if all lengths and strides are multiples of it."""
    return next(size for size in (8, 4, 2, 1) if all(one % size == 0 for one in multiples))


def dense(rows: torch.Tensor) -> torch.Tensor:
    """Return a matrix whose rows are contiguous, itself if they are."""
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 and rows.stride(0) else rows.contiguous()
