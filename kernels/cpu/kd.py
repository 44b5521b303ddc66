"""``kd_loss`` on a CPU: the reference as one graph, which a compiler fuses from the logits to the gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..reference.kd import kd as one_graph
from ..settings import Kd
from .compiled import compiled_when_it_pays

BLOCK = 2**20
"""Elements of logits that are done at a time where the gradient overwrites them."""


def kd(
    student: torch.Tensor,
    teachers: Sequence[torch.Tensor],
    labels: torch.Tensor | None,
    teacher_weights: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: Kd,
    scale: float,
    gradient: bool,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.kd.kd` does; with ``out`` some rows at a time, to need less memory."""
    work = student.numel() * (1 + len(teachers))
    do = compiled_when_it_pays(one_graph, work, (settings, len(teachers), gradient))
    # As a tensor: a number is a constant of the compiled graph, and this one changes with the number of rows.
    factor = torch.tensor(scale)

    def part(some: slice) -> tuple[torch.Tensor, torch.Tensor]:
        made: tuple[torch.Tensor, torch.Tensor] = do(
            student[some],
            [teacher[some] for teacher in teachers],
            None if labels is None else labels[some],
            teacher_weights if teacher_weights is None or teacher_weights.dim() == 1 else teacher_weights[some],
            None if sample_weights is None else sample_weights[some],
            settings,
            factor,
            gradient,
        )
        return made

    if out is None:
        return part(slice(None))
    many = max(1, BLOCK // student.shape[1])
    rows = torch.empty(student.shape[0])
    for first in range(0, student.shape[0], many):
        some = slice(first, first + many)
        rows[some], by_student = part(some)
        out[some] = by_student
    return rows, out
