"""``codistill::relation_distance_loss`` and ``codistill::relation_angle_loss``."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation
from .gradients import chained

DISTANCE = Operation(
    "relation_distance_loss",
    reference=".reference.relations:distance",
    cpu=".cpu.relations:distance",
    triton=".triton.relations:distance",
)
# On a CPU it is products of small matrices, most of it, which BLAS does: the reference's own way.
ANGLE = Operation(
    "relation_angle_loss",
    reference=".reference.relations:angle",
    cpu=".reference.relations:angle",
    triton=".triton.angle:angle",
)


def _scale(tuples: int, reduction: str) -> float:
    return 1 / max(tuples, 1) if reduction == "mean" else 1.0


@torch.library.custom_op("codistill::relation_distance_loss", mutates_args=())
def relation_distance_loss(
    student: Tensor, teacher: Tensor, reduction: str, backend: str, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss [] and its gradient by the student, [N, D]."""
    count = student.shape[0]
    made: tuple[Tensor, Tensor] = DISTANCE(
        backend, student, student, teacher, _scale(count * (count - 1), reduction), gradient
    )
    return made


@torch.library.custom_op("codistill::relation_angle_loss", mutates_args=())
def relation_angle_loss(
    student: Tensor, teacher: Tensor, reduction: str, backend: str, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss [] and its gradient by the student, [N, D]."""
    count = student.shape[0]
    scale = _scale(count * (count - 1) * (count - 2), reduction)
    made: tuple[Tensor, Tensor] = ANGLE(backend, student, student, teacher, scale, gradient)
    return made


@relation_distance_loss.register_fake
@relation_angle_loss.register_fake
def _fake(student: Tensor, teacher: Tensor, reduction: str, backend: str, gradient: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    count, width = student.shape
    return student.new_empty((), dtype=dtype), student.new_empty(count if gradient else 0, width)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
    (by_student,) = ctx.saved_tensors
    made = None if by_loss is None else chained(by_student, by_loss, "the relational loss")
    return (made, None, None, None, None)


def _refuse(info: Any, in_dims: Any, *arguments: Any) -> Any:
    raise NotImplementedError(
        "relation_distance_loss and relation_angle_loss relate the rows of one batch: torch.func transforms (vmap, "
        "grad) are not supported; call them once a batch, and use backward()"
    )


for _operator in (relation_distance_loss, relation_angle_loss):
    _operator.register_autograd(_backward, setup_context=_keep)
    _operator.register_vmap(_refuse)


def relation_op(
    operator: Callable[..., tuple[Tensor, Tensor]], student: Tensor, teacher: Tensor, reduction: str, backend: str
) -> Tensor:
    """Return the loss [] that one of the two operators makes."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        _refuse(None, None)
    gradient = torch.is_grad_enabled() and student.requires_grad
    return operator(student, teacher.detach(), reduction, backend, gradient)[0]
