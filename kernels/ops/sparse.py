"""``codistill::sparse_kd_loss``."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation
from ..sparse_settings import SparseKd
from .batching import one_batch
from .gradients import Direct, apart, chained, learns, loss_like, reduced, scale_of, transformed, untraced

SPARSE = Operation(
    "sparse_kd_loss",
    reference=".reference.sparse:sparse_kd",
    cpu=".cpu.sparse:sparse_kd",
    triton=".triton.sparse:sparse_kd",
)


def _made(
    student: Tensor,
    indices: Tensor,
    values: Tensor,
    scales: Tensor | None,
    tails: Tensor,
    labels: Tensor | None,
    sample_weights: Tensor | None,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    ignore_index: int,
    reduction: str,
    backend: str,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss, [] or [N], and its gradient by the student, [N, V]."""
    settings = SparseKd(temperature, ce_weight, kd_weight, ignore_index)
    scale = scale_of(reduction, student.shape[0])
    rows, by_student = SPARSE(
        backend, student, student, indices, values, scales, tails, labels, sample_weights, settings, scale, gradient
    )
    return reduced(rows, reduction), by_student.contiguous()


sparse_kd_loss = torch.library.custom_op("codistill::sparse_kd_loss", _made, mutates_args=())


@sparse_kd_loss.register_fake
def _sparse_kd_loss_fake(student: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    reduction, _, gradient = said[-3:]
    return loss_like(student, reduction), student.new_empty(student.shape[0] if gradient else 0, student.shape[1])


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])
    ctx.others = [None] * (len(inputs) - 1)


def _backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
    (by_student,) = ctx.saved_tensors
    return (None if by_loss is None else chained(by_student, by_loss, "sparse_kd_loss"), *ctx.others)


sparse_kd_loss.register_autograd(_backward, setup_context=_keep)


@sparse_kd_loss.register_vmap
def _sparse_kd_loss_batched(info: Any, in_dims: Any, *given: Any) -> Any:
    tensors, rest = given[:7], given[7:]
    *said, reduction, backend, gradient = rest
    size = info.batch_size
    together = [
        None if tensor is None else one_batch(tensor, dim, size)
        for tensor, dim in zip(tensors, in_dims[:7], strict=True)
    ]
    rows, by_student = sparse_kd_loss(*together, *said, "none", backend, gradient)
    return apart(rows, by_student, size, reduction)


class _Transformed(torch.autograd.Function):
    """The operator under ``torch.func`` transforms, whose gradients torch's own operators do not have."""

    generate_vmap_rule = True

    @staticmethod
    def forward(student: Tensor, said: tuple[Any, ...], *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = sparse_kd_loss(student, *tensors, *said)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
        return _backward(ctx, by_loss, _)


def sparse_kd_loss_op(
    student: Tensor,
    indices: Tensor,
    values: Tensor,
    scales: Tensor | None,
    tails: Tensor,
    labels: Tensor | None,
    sample_weights: Tensor | None,
    settings: SparseKd,
    reduction: str,
    backend: str,
) -> Tensor:
    """Return the loss, [] or [N]; arguments as :func:`codistill.kernels.reference.sparse.sparse_kd` has them."""
    gradient = torch.is_grad_enabled() and learns(student)
    said = (
        settings.temperature,
        settings.ce_weight,
        settings.kd_weight,
        settings.ignore_index,
        reduction,
        backend,
        gradient,
    )
    sample_weights = None if sample_weights is None else sample_weights.detach()
    tensors = (indices, values, scales, tails.detach(), labels, sample_weights)
    loss: Tensor
    if untraced(student):
        given = (student.detach(), *tensors, *said)
        return Direct.apply(student, lambda: _made(*given), "sparse_kd_loss") if gradient else _made(*given)[0]  # type: ignore[no-untyped-call]
    if gradient and transformed():
        loss, _ = _Transformed.apply(student, said, *tensors)  # type: ignore[no-untyped-call]
    else:
        loss, _ = sparse_kd_loss(student, *tensors, *said)
    return loss
