"""The distance loss in two passes over tiles of pairs: sums of distances, then losses and the gradient's weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..reference.relations import centred, inverse, pulled, through_mean

ELEMENTS = 2**23
"""Pairs whose two weights are held at a time: 64 MB in float32."""

BLOCK = 64
"""Rows and columns of a tile."""

STEP = 32
"""Numbers of a row that are multiplied at a time."""

WARPS = 8


@triton.jit
def _distances(
    points, squares, rows, columns, count, width, VEC: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr
):
    """Distances between rows and columns, zero on the diagonal and beyond the last row.

    They are \\|x\\|^2 + \\|y\\|^2 - 2 x.y, with the loss of digits that ``cpu.relations`` tells of.
    ``points`` [N, D] is float32, with ``squares`` [N] of its rows' lengths. Tensor cores multiply each number in three
    parts (tf32x3), to the digits of float32.
    """
    width = (width // VEC) * VEC
    row_live, column_live = rows < count, columns < count
    products = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, width, STEP):
        d = start + tl.arange(0, STEP)
        inside = (d < width)[None, :]
        left = tl.load(points + rows[:, None] * width + d[None, :], row_live[:, None] & inside, 0.0)
        right = tl.load(points + columns[:, None] * width + d[None, :], column_live[:, None] & inside, 0.0)
        products = tl.dot(left, tl.trans(right), products, input_precision="tf32x3")
    own = tl.load(squares + rows, row_live, 0.0)
    other = tl.load(squares + columns, column_live, 0.0)
    made = own[:, None] + other[None, :] - 2.0 * products
    made = tl.sqrt(tl.where(made <= 0, 0.0, made))  # not a maximum, which would lose a NaN
    return tl.where(row_live[:, None] & column_live[None, :] & (rows[:, None] != columns[None, :]), made, 0.0)


@triton.jit
def _sums(
    points,
    squares,
    made,
    count,
    width,
    tiles,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """One program: one tile of pairs. ``made`` [programs] gets the sum of its distances."""
    rows = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    columns = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    apart = _distances(points, squares, rows, columns, count, width, VEC, BLOCK, STEP)
    tl.store(made + tl.program_id(0), tl.sum(tl.sum(apart, 1), 0))


@triton.jit
def _weights(
    student,
    teacher,
    student_squares,
    teacher_squares,
    per_mean,
    made,
    weights,
    first,
    many,
    count,
    student_width,
    teacher_width,
    tiles,
    GRADIENT: tl.constexpr,
    STUDENT_VEC: tl.constexpr,
    TEACHER_VEC: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """One program: one tile of pairs, of the ``many`` rows from ``first`` on.

    ``made`` [2, programs] gets the sums of Huber's function and of its derivative b times psi, ``weights``
    [2, many, N] what the gradient's unit vectors are multiplied by before they are summed: b / distance and
    1 / distance.
    """
    # As a tensor of 64 bits: an argument that is 1 would be a constant, which cannot be made wider.
    own_rows = tl.full((), 0, tl.int64) + many
    own = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.where(own < many, first + own, count)
    columns = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    apart = _distances(student, student_squares, rows, columns, count, student_width, STUDENT_VEC, BLOCK, STEP)
    psi = apart * tl.load(per_mean)
    theirs = _distances(teacher, teacher_squares, rows, columns, count, teacher_width, TEACHER_VEC, BLOCK, STEP)
    off = psi - theirs * tl.load(per_mean + 1)
    bent = tl.where(off > 1, 1.0, tl.where(off < -1, -1.0, off))
    out = made + tl.program_id(0)
    tl.store(out, tl.sum(tl.sum(bent * (off - bent * 0.5), 1), 0))
    tl.store(out + tl.num_programs(0), tl.sum(tl.sum(bent * psi, 1), 0))
    if GRADIENT:
        towards = tl.where(apart == 0, 0.0, 1.0 / apart)
        live = (own < many)[:, None] & (columns < count)[None, :]
        at = weights + own[:, None] * count + columns[None, :]
        tl.store(at, bent * towards, live)
        tl.store(at + own_rows * count, towards, live)


def distance(
    student: torch.Tensor, teacher: torch.Tensor, scale: float, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.relations.distance` does; sums over pairs are matrix products."""
    x, y = centred(student), centred(teacher)
    count, widths = x.shape[0], (x.shape[1], y.shape[1])
    vectors = [next(v for v in (4, 2, 1) if width % v == 0) for width in widths]
    pairs = max(count * (count - 1), 1)
    tiles = triton.cdiv(count, BLOCK)
    if not count:
        return x.new_zeros(()), torch.empty_like(student) if gradient else student.new_empty(0, widths[0])
    squares = [points.square().sum(1) for points in (x, y)]
    sums = x.new_empty(2, tiles * tiles)
    sizes = {"BLOCK": BLOCK, "STEP": STEP, "num_warps": WARPS}
    for points, square, made, width, vector in zip((x, y), squares, sums, widths, vectors, strict=True):
        _sums[(tiles * tiles,)](points, square, made, count, width, tiles, VEC=vector, **sizes)
    per_mean = inverse(sums.sum(1) / pairs)
    many = min(count, max(BLOCK, ELEMENTS // count))
    weights = x.new_empty((2 * many * count) if gradient else 1)
    pulls, units = (x.new_zeros(x.shape if gradient else (0, widths[0])) for _ in range(2))
    totals = x.new_zeros(2)
    for first in range(0, count, many):
        rows = slice(first, min(first + many, count))
        here = rows.stop - first
        programs = triton.cdiv(here, BLOCK) * tiles
        parts = x.new_empty(2, programs)
        _weights[(programs,)](
            x,
            y,
            *squares,
            per_mean,
            parts,
            weights,
            first,
            here,
            count,
            *widths,
            tiles,
            GRADIENT=gradient,
            STUDENT_VEC=vectors[0],
            TEACHER_VEC=vectors[1],
            **sizes,
        )
        totals += parts.sum(1)
        if gradient:
            both = weights[: 2 * here * count].view(2, here, count)
            pulls[rows] = pulled(both[0], x, rows)
            units[rows] = pulled(both[1], x, rows)
    if not gradient:
        return totals[0] * scale, student.new_empty(0, widths[0])
    return totals[0] * scale, through_mean(pulls, units, totals[1] / pairs, per_mean[0] * scale, student)
