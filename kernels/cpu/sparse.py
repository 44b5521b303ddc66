"""``sparse_kd_loss`` on a CPU: the reference as one graph, which a compiler fuses from the logits to the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..reference.sparse import sparse_kd as reference
from ..sparse_settings import SparseKd
from .compiled import compiled_when_it_pays, of_any_length


def one_graph(
    tensors: Sequence[torch.Tensor | None],
    numbers: Sequence[float | torch.Tensor],
    ignore_index: int,
    scale: torch.Tensor,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what the reference does, whose arguments up to the sample weights are ``tensors``.

    A number that is given as a tensor [] may be another one in the next call of the same graph.
    """
    student, indices, values, scales, tails, labels, sample_weights = tensors
    assert student is not None and indices is not None and values is not None and tails is not None
    temperature, ce_weight, kd_weight = cast(list[float], numbers)
    settings = SparseKd(temperature, ce_weight, kd_weight, ignore_index)
    return reference(student, indices, values, scales, tails, labels, sample_weights, settings, scale, gradient)


def sparse_kd(
    student: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None,
    tails: torch.Tensor,
    labels: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: SparseKd,
    scale: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.sparse.sparse_kd` does."""
    tensors = [student, indices, values, scales, tails, labels, sample_weights]
    kinds = tuple(None if one is None else (one.shape[1:], one.dtype) for one in tensors)
    do = compiled_when_it_pays(one_graph, student.numel(), (settings.ignore_index, kinds, gradient))
    numbers = [settings.temperature, settings.ce_weight, settings.kd_weight]
    factor = torch.tensor(scale)
    with torch.no_grad():
        made: tuple[torch.Tensor, torch.Tensor]
        if do is one_graph:
            made = do(tensors, numbers, settings.ignore_index, factor, gradient)
        else:
            given = [None if one is None else of_any_length(one) for one in tensors]
            made = do(given, [torch.tensor(n) for n in numbers], settings.ignore_index, factor, gradient)
    return made
