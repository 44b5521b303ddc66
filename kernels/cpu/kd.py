"""``kd_loss`` on a CPU: the reference as one graph, which a compiler fuses from the logits to the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..reference.kd import kd as reference
from ..settings import Kd
from .compiled import compiled_when_it_pays, of_any_length

BLOCK = 2**20
"""Elements of logits that are done at a time where the gradient overwrites them."""


def one_graph(
    student: torch.Tensor,
    teachers: Sequence[torch.Tensor],
    labels: torch.Tensor | None,
    teacher_weights: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    words: str,
    numbers: Sequence[float | torch.Tensor],
    ignore_index: int,
    scale: float | torch.Tensor,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what the reference does.

    A number that is given as a tensor [] may be another one in the next call of the same graph: temperatures and
    weights follow schedules.
    """
    settings = Kd.of(words, cast(list[float], numbers), ignore_index)
    return reference(student, teachers, labels, teacher_weights, sample_weights, settings, scale, gradient)


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
    given = [student, *teachers, labels, teacher_weights, sample_weights]
    kinds = tuple(None if one is None else (one.dim(), one.shape[1:], one.dtype) for one in given)
    zeros = tuple(number == 0 for number in settings.numbers())  # the graph leaves out what zero makes vanish
    do = compiled_when_it_pays(one_graph, work, (settings.words, settings.ignore_index, zeros, kinds, gradient))
    plain = do is one_graph
    numbers = settings.numbers() if plain else [n if n == 0 else torch.tensor(n) for n in settings.numbers()]
    factor = scale if plain else torch.tensor(scale)

    def part(some: slice) -> tuple[torch.Tensor, torch.Tensor]:
        def rows(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[some] if plain else of_any_length(tensor[some])

        shares = teacher_weights
        if shares is not None:
            shares = shares.detach() if shares.dim() == 1 else rows(shares)
        with torch.no_grad():
            made: tuple[torch.Tensor, torch.Tensor] = do(
                rows(student),
                [rows(teacher) for teacher in teachers],
                None if labels is None else rows(labels),
                shares,
                None if sample_weights is None else rows(sample_weights),
                settings.words,
                numbers,
                settings.ignore_index,
                factor,
                gradient,
            )
        return made

    if out is None:
        return part(slice(None))
    many = max(1, BLOCK // student.shape[1])
    losses = torch.empty(student.shape[0])
    for first in range(0, student.shape[0], many):
        some = slice(first, first + many)
        losses[some], by_student = part(some)
        out[some] = by_student
    return losses, out
