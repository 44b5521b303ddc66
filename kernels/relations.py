"""Relational distillation: what a batch's rows are to each other, not what each of them is."""

from __future__ import annotations

from typing import Literal

import torch

from . import checks
from .ops import relations as ops

Reduction = Literal["mean", "sum"]


def relation_distance_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> torch.Tensor:
    """Return Huber's distance between the pairwise distances of two embeddings (Park et al. 2019, eq. 3 to 5).

    psi(i, j) = \\|x_i - x_j\\| / mu with mu the mean over all ordered pairs of different rows, and the loss is the mean
    (or sum) over these pairs of Huber(psi_student - psi_teacher), delta 1. ``student`` [N, D_s] and ``teacher``
    [N, D_t] are embeddings of the same rows, whose widths may differ, in any float dtype; the teacher gets no gradient.
    The gradient goes through mu, as in the paper's code. Sums are float32, or float64 for float64.

    Distances are made by blocks of rows, twice; no [N, N] tensor is. The back ends "cpu" and "triton" make them of
    matrix products in float32, as ``torch.cdist`` does: two rows that are thirty times nearer to each other than to the
    mean of all lose half of their distance's digits there; "reference" loses none. Fewer than two rows make zero, and
    so do rows that all coincide. The paper's code divides by N^2 where this divides by N (N - 1), and leaves pairs that
    coincide out of mu; otherwise the two are the same.

    Raises ``ValueError`` where shapes or dtypes do not fit, ``NotImplementedError`` under ``torch.func`` transforms.
    """
    _fits("relation_distance_loss", student, teacher, reduction)
    return ops.relation_op(ops.relation_distance_loss, student, teacher, reduction, backend or "")


def relation_angle_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> torch.Tensor:
    """Return Huber's distance between the angles that triples of rows make (Park et al. 2019, eq. 6 and 7).

    psi(i, j, k) is the cosine of the angle at j between the directions to i and to k, and the loss is the mean (or sum)
    over ordered triples of different rows of Huber(psi_student - psi_teacher), delta 1. Shapes, dtypes and errors as in
    :func:`relation_distance_loss`.

    The back ends "reference" and "cpu" make cosines of directions by blocks of vertices, in N^3 (D_s + D_t) operations
    and memory that grows with N. "triton" makes them of squared distances, in N^3 operations whatever the widths, and
    pays with three [N, N] of float32; no back end holds all triples. There a cosine between sides of lengths d and D,
    d < D, is right to about D / d of float32's rounding. Fewer than three rows make zero; rows that coincide have no
    direction to each other, and their cosines count as zero. The paper's code divides by N^3 where this divides by
    N (N - 1) (N - 2).
    """
    _fits("relation_angle_loss", student, teacher, reduction)
    return ops.relation_op(ops.relation_angle_loss, student, teacher, reduction, backend or "")


def _fits(function: str, student: torch.Tensor, teacher: torch.Tensor, reduction: str) -> None:
    checks.one_of(function, "reduction", reduction, ("mean", "sum"))
    for name, tensor in (("student", student), ("teacher", teacher)):
        if not tensor.is_floating_point() or tensor.dim() != 2 or tensor.shape[1] < 1:
            raise ValueError(
                f"{function}: {name} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}; expected floats [N, D]"
            )
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"{function}: student has {student.shape[0]} rows and teacher {teacher.shape[0]}; expected the same rows"
        )
    if student.device != teacher.device:
        raise ValueError(f"{function}: teacher is on {teacher.device} and the student on {student.device}")
