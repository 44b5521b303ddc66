"""``codistill::sparse_kd_loss``."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation
from ..sparse_settings import SparseKd
from .batching import one_batch
from .kd import _Chained as _KdChained
from .kd import _is_one, _learns, _reduced, _scale, _shape

SPARSE = Operation(
    "sparse_kd_loss",
    reference=".reference.sparse:sparse_kd",
    cpu=".cpu.sparse:sparse_kd",
    triton=".triton.sparse:sparse_kd",
)


@torch.library.custom_op("codistill::sparse_kd_loss", mutates_args=())
def sparse_kd_loss(
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
    scale = _scale(reduction, student.shape[0])
    rows, by_student = SPARSE(
        backend, student, student, indices, values, scales, tails, labels, sample_weights, settings, scale, gradient
    )
    return _reduced(rows, reduction), by_student.contiguous()


@sparse_kd_loss.register_fake
def _sparse_kd_loss_fake(student: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    reduction, _, gradient = said[-3:]
    return _shape(student, reduction), student.new_empty(student.shape[0] if gradient else 0, student.shape[1])


class _Chained(_KdChained):
    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        raise NotImplementedError(
            "sparse_kd_loss: there is no second derivative; write the loss in plain torch for that"
        )


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])
    ctx.others = [None] * (len(inputs) - 1)


def _backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
    (by_student,) = ctx.saved_tensors
    if by_loss is None:
        return (None, *ctx.others)
    if _is_one(by_loss):
        return (by_student.detach(), *ctx.others)
    return (_Chained.apply(by_student, by_loss), *ctx.others)  # type: ignore[no-untyped-call]


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
    rows = rows.view(size, -1)
    by_student = by_student.view(size, -1, by_student.shape[1])
    if reduction == "none":
        return (rows, by_student), (0, 0)
    scale = _scale(reduction, rows.shape[1])
    return (rows.sum(1) * scale, by_student * scale), (0, 0)


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
    gradient = torch.is_grad_enabled() and _learns(student)
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
    if gradient and not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        loss, _ = _Transformed.apply(student, said, *tensors)  # type: ignore[no-untyped-call]
    else:
        loss, _ = sparse_kd_loss(student, *tensors, *said)
    return loss
