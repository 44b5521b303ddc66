"""The angle loss from squared distances: cosines by the law of cosines, so that no triple costs a product of rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..reference.relations import centred, pulled

BLOCK = 32
"""Rows and columns of a tile: 528 tiles, four for each multiprocessor, where 1,024 rows make cosines."""

WARPS = 4

COINCIDE = tl.constexpr(2e-38)
"""Squared distances below it count as zero: a GPU's reciprocal root takes all below the normal floats so."""


@triton.jit
def _places(tile, BLOCK: tl.constexpr):
    """The rows of a tile."""
    return tile.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _inverse(squares):
    """One over the roots, and zero for zero: rows that coincide have no direction to each other."""
    return tl.where(squares < COINCIDE, 0.0, tl.rsqrt(squares))


@triton.jit
def _bent(off):
    """The derivative of Huber's function. NaN stays NaN."""
    return tl.minimum(tl.maximum(off, -1.0, tl.PropagateNan.ALL), 1.0, tl.PropagateNan.ALL)


@triton.jit
def _squares(across, made, count, width, tiles, BLOCK: tl.constexpr):
    """One program: one tile of pairs. ``made`` [P, P] gets squared distances between the columns of ``across`` [D, P].

    From differences, which lose nothing where two rows are near to each other and far from the others, and are exactly
    zero where they coincide. It is D steps for each pair, beside the N steps of the kernels below. P is N made up to
    whole tiles, with zeros: what has no length makes no cosine, so that the kernels below need no masks.
    """
    rows, columns = _places(tl.program_id(0) // tiles, BLOCK), _places(tl.program_id(0) % tiles, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(width):
        apart = tl.load(across + rows)[:, None] - tl.load(across + columns)[None, :]
        total += apart * apart
        across += tiles * BLOCK
    live = (rows < count)[:, None] & (columns < count)[None, :]
    tl.store(made + rows[:, None] * (tiles * BLOCK) + columns[None, :], tl.where(live, total, 0.0))


@triton.jit
def _ends(student, teacher, made, weights, count, tiles, GRADIENT: tl.constexpr, BLOCK: tl.constexpr):
    """One program: one tile of pairs of ends i and k, and all vertices j between them.

    ``student`` and ``teacher`` [P, P] are squared distances A, and 2 cos = (A_ij + A_kj - A_ik) / (l_ij l_kj) with l
    their roots. ``made`` [programs] gets the sum of Huber's function, ``weights`` [P, P], with b its derivative,
    sum_j b / (2 l_ij l_kj): how far the loss falls as A_ik grows. i and k may change places, so tiles below the
    diagonal do nothing, and those above it count twice.
    """
    row_tile, column_tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    rows, columns = _places(row_tile, BLOCK), _places(column_tile, BLOCK)
    at = rows[:, None] * (tiles * BLOCK) + columns[None, :]
    ours, theirs = tl.load(student + at), tl.load(teacher + at)
    losses = tl.zeros((BLOCK, BLOCK), tl.float32)
    falling = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(tl.where(column_tile < row_tile, 0, count)):
        ours_own, ours_other = tl.load(student + rows), tl.load(student + columns)
        theirs_own, theirs_other = tl.load(teacher + rows), tl.load(teacher + columns)
        per_ours = (0.5 * _inverse(ours_own))[:, None] * _inverse(ours_other)[None, :]
        per_theirs = (0.5 * _inverse(theirs_own))[:, None] * _inverse(theirs_other)[None, :]
        cosine = (ours_own[:, None] + ours_other[None, :] - ours) * per_ours
        off = cosine - (theirs_own[:, None] + theirs_other[None, :] - theirs) * per_theirs
        bent = _bent(off)
        losses += bent * (off - bent * 0.5)
        if GRADIENT:
            falling += bent * per_ours
        student += tiles * BLOCK
        teacher += tiles * BLOCK
    times = tl.where(column_tile > row_tile, 2.0, 1.0)
    counted = rows[:, None] != columns[None, :]
    tl.store(made + tl.program_id(0), tl.sum(tl.sum(tl.where(counted, losses, 0.0), 1), 0) * times)
    if GRADIENT:
        tl.store(weights + at, tl.where(counted, falling, 0.0) * times)


@triton.jit
def _sides(student, teacher, weights, count, tiles, BLOCK: tl.constexpr):
    """One program: one tile of pairs of an end i and a vertex j, and all other ends k.

    ``weights`` [P, P] holds what :func:`_ends` made of it and gets the derivative of the loss by A_ij: the sum over k
    of b / (l_ij l_kj) - b cos / A_ij, for A_ij is a side at the vertex in two of the triple's orders, less what was
    there.
    """
    rows, columns = _places(tl.program_id(0) // tiles, BLOCK), _places(tl.program_id(0) % tiles, BLOCK)
    at = rows[:, None] * (tiles * BLOCK) + columns[None, :]
    ours, theirs = tl.load(student + at), tl.load(teacher + at)
    half_ours, half_theirs = _inverse(ours) * 0.5, _inverse(theirs) * 0.5
    longer = tl.zeros((BLOCK, BLOCK), tl.float32)
    turned = tl.zeros((BLOCK, BLOCK), tl.float32)
    for end in range(count):
        ours_own, ours_other = tl.load(student + rows), tl.load(student + columns)
        theirs_own, theirs_other = tl.load(teacher + rows), tl.load(teacher + columns)
        per_ours, per_theirs = _inverse(ours_other)[None, :], _inverse(theirs_other)[None, :]
        cosine = (ours + ours_other[None, :] - ours_own[:, None]) * (half_ours * per_ours)
        off = cosine - (theirs + theirs_other[None, :] - theirs_own[:, None]) * (half_theirs * per_theirs)
        bent = tl.where((rows != end)[:, None], _bent(off), 0.0)
        longer += bent * per_ours
        turned += bent * cosine
        student += tiles * BLOCK
        teacher += tiles * BLOCK
    per_length = half_ours * 2.0
    tl.store(weights + at, per_length * (longer - per_length * turned) - tl.load(weights + at))


def angle(
    student: torch.Tensor, teacher: torch.Tensor, scale: float, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.relations.angle` does, from three [N, N] of float32, not by blocks.

    A cosine between sides of lengths d and D, d < D, is right to about D / d of float32's rounding: the squares of the
    two longer sides are subtracted. Rows nearer to each other than 1.4e-19 coincide. Sums are made in a fixed order,
    without atomics: the same batch makes the same bits.
    """
    x, y = centred(student), centred(teacher)
    count, width = x.shape
    if not count:
        return x.new_zeros(()), torch.empty_like(student) if gradient else student.new_empty(0, width)
    tiles = triton.cdiv(count, BLOCK)
    size = tiles * BLOCK
    grid, sizes = (tiles * tiles,), {"BLOCK": BLOCK, "num_warps": WARPS}
    squares = []
    for points in (x, y):
        across = x.new_zeros(points.shape[1], size)
        across[:, :count] = points.t()
        made = x.new_empty(size, size)
        _squares[grid](across, made, count, points.shape[1], tiles, **sizes)
        squares.append(made)
    parts = x.new_empty(tiles * tiles)
    weights = x.new_empty((size, size) if gradient else (1, 1))
    _ends[grid](*squares, parts, weights, count, tiles, GRADIENT=gradient, **sizes)
    loss = parts.sum() * scale
    if not gradient:
        return loss, student.new_empty(0, width)
    _sides[grid](*squares, weights, count, tiles, **sizes)
    # A_ij = |x_i - x_j|^2 grows by 2 (x_i - x_j), and stands at (i, j) and at (j, i).
    weights, rows = weights[:count, :count], slice(0, count)
    pulls = pulled(weights, x, rows) + pulled(weights.t(), x, rows)
    return loss, (2 * scale * pulls).to(student.dtype)
