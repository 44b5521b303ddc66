"""Relational distillation in readable torch: distances by blocks of rows, angles by blocks of vertices."""

from __future__ import annotations

import torch

from ..dispatch import detail
from .kd import accumulated

BLOCK = 2**20
"""Pairs whose relations are held at a time on a CPU: four megabytes in float32."""

BLOCK_ON_GPU = 2**24
"""The same elsewhere, where a launch costs more than memory."""

Made = tuple[torch.Tensor, torch.Tensor]


def distance(
    student: torch.Tensor,
    teacher: torch.Tensor,
    scale: float,
    gradient: bool,
    compute_mode: str = "donot_use_mm_for_euclid_dist",
) -> Made:
    """Return ``scale`` times the sum over ordered pairs of Huber(psi_S - psi_T), [], and its gradient by the student.

    ``student`` [N, D_s] and ``teacher`` [N, D_t]. psi is a pair's distance over the mean distance of all pairs of
    different rows, and zero where that mean is. The gradient [N, D_s] is in the student's dtype, and has no rows where
    it is not asked for. ``compute_mode`` is that of ``torch.cdist``.
    """
    x, y = centred(student), centred(teacher)
    count = x.shape[0]
    pairs = max(count * (count - 1), 1)
    many = rows_at_a_time(count, x)
    detail(f"blocks of {many} rows against {count}")
    blocks = [slice(first, min(first + many, count)) for first in range(0, count, many)]
    sums = x.new_zeros(2)
    for rows in blocks:
        sums[0] += distances(x, rows, compute_mode).sum()
        sums[1] += distances(y, rows, compute_mode).sum()
    per_mean = inverse(sums / pairs)
    loss, leaning = sums.new_zeros(()), sums.new_zeros(())
    pulls, units = (x.new_zeros(x.shape if gradient else (0, x.shape[1])) for _ in range(2))
    for rows in blocks:
        apart = distances(x, rows, compute_mode)
        psi = apart * per_mean[0]
        off = psi - distances(y, rows, compute_mode) * per_mean[1]
        bent = off.clamp(-1, 1)  # the derivative of Huber's function, which is bent * (off - bent / 2)
        loss += (bent * (off - bent / 2)).sum()
        if gradient:
            leaning += (bent * psi).sum()
            towards = inverse(apart)
            pulls[rows] = pulled(bent * towards, x, rows)
            units[rows] = pulled(towards, x, rows)
    if not gradient:
        return loss * scale, student.new_empty(0, student.shape[1])
    return loss * scale, through_mean(pulls, units, leaning / pairs, per_mean[0] * scale, student)


def through_mean(
    pulls: torch.Tensor, units: torch.Tensor, leaning: torch.Tensor, factor: torch.Tensor, student: torch.Tensor
) -> torch.Tensor:
    """Return the gradient [N, D_s] of the distance loss by the student.

    With b_ij Huber's derivative and u_ij the unit vector from row j to row i, ``pulls`` is sum_j b_ij u_ij and
    ``units`` sum_j u_ij; ``leaning`` is the mean of b psi over pairs, which comes in since every distance moves the
    mean that all are divided by. A pair counts in both orders: twice.
    """
    return (2 * factor * (pulls - leaning * units)).to(student.dtype)


def angle(student: torch.Tensor, teacher: torch.Tensor, scale: float, gradient: bool) -> Made:
    """Return ``scale`` times the sum over triples of different rows of Huber(cos_S - cos_T), and its gradient.

    cos is that of the angle at the vertex j of (i, j, k), between the directions to i and to k. Rows that coincide have
    no direction to each other: the cosine counts as zero, and has no gradient. Shapes and dtypes as in
    :func:`distance`.
    """
    x, y = centred(student), centred(teacher)
    count = x.shape[0]
    many = rows_at_a_time(count, x)
    vertices = max(1, many // max(count, 1))
    many = min(many, max(count, 1))
    detail(f"blocks of {vertices} vertices, {many} rows against {count}")
    loss = x.new_zeros(())
    by_student = torch.zeros_like(x) if gradient else x[:0].clone()
    for first in range(0, count, vertices):
        some = slice(first, first + vertices)
        ours, lengths = directions(x, some)
        theirs, _ = directions(y, some)
        by_ours = torch.zeros_like(ours) if gradient else ours[:0]
        for top in range(0, count, many):
            rows = slice(top, top + many)
            off = ours[:, rows] @ ours.mT
            off -= theirs[:, rows] @ theirs.mT
            off.diagonal(top, 1, 2).zero_()
            bent = off.clamp(-1, 1)
            loss += torch.dot(bent.view(-1), off.sub_(bent, alpha=0.5).view(-1))
            if gradient:
                by_ours[:, rows] = bent @ ours
        if gradient:
            # Both directions of a cosine move, i and k alike: twice. Only what turns a direction counts, not what
            # lengthens it; and what moves the end of a direction moves its vertex the other way.
            turned = by_ours - ours * (by_ours * ours).sum(2, keepdim=True)
            turned = turned * inverse(lengths) * 2
            by_student += turned.sum(0)
            by_student[some] -= turned.sum(1)
    made = by_student * scale
    return loss * scale, made.to(student.dtype)


def centred(rows: torch.Tensor) -> torch.Tensor:
    """Return rows less their mean: relations stay what they are, and what is computed of them is more exact."""
    wide = accumulated(rows)
    return wide - wide.mean(0) if wide.shape[0] else wide


def rows_at_a_time(count: int, like: torch.Tensor) -> int:
    """Return how many rows are related to ``count`` others at a time."""
    return max(1, (BLOCK if like.device.type == "cpu" else BLOCK_ON_GPU) // max(count, 1))


def distances(x: torch.Tensor, rows: slice, compute_mode: str) -> torch.Tensor:
    """Return the distances of some rows of ``x`` [N, D] to all of them, [n, N]; exactly zero from a row to itself."""
    made = torch.cdist(x[rows], x, compute_mode=compute_mode)
    made[:, rows].fill_diagonal_(0)
    return made


def inverse(values: torch.Tensor) -> torch.Tensor:
    """Return 1 / values, and zero for zero."""
    return torch.where(values == 0, 0.0, 1 / values)


def pulled(weights: torch.Tensor, x: torch.Tensor, rows: slice) -> torch.Tensor:
    """Return sum_j w_ij (x_i - x_j) for some rows i, [n, D], of weights [n, N]."""
    return weights.sum(1, keepdim=True) * x[rows] - weights @ x


def directions(x: torch.Tensor, vertices: slice) -> Made:
    """Return unit vectors from some vertices to all rows of ``x``, [v, N, D], and their lengths [v, N, 1]."""
    apart = x[None] - x[vertices, None]
    lengths = apart.norm(dim=2, keepdim=True)
    return apart * inverse(lengths), lengths
