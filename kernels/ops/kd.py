"""``codistill::kd_loss`` and ``codistill::kd_loss_``, which puts the gradient where the logits were."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..dispatch import Operation
from ..settings import Kd
from .batching import one_batch
from .gradients import Direct, apart, chained, learns, loss_like, reduced, scale_of, transformed, untraced

KD = Operation("kd_loss", reference=".reference.kd:kd", cpu=".cpu.kd:kd", triton=".triton.kd:kd")


def _made(
    student: Tensor,
    teachers: Sequence[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    words: str,
    numbers: Sequence[float],
    ignore_index: int,
    reduction: str,
    backend: str,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss, [] or [N], and its gradient by the student, [N, V]."""
    settings = Kd.of(words, list(numbers), ignore_index)
    scale = scale_of(reduction, student.shape[0])
    rows, by_student = KD(
        backend, student, student, teachers, labels, teacher_weights, sample_weights, settings, scale, gradient
    )
    return reduced(rows, reduction), by_student.contiguous()


kd_loss = torch.library.custom_op("codistill::kd_loss", _made, mutates_args=())


@kd_loss.register_fake
def _kd_loss_fake(student: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    reduction, _, gradient = said[-3:]
    return loss_like(student, reduction), student.new_empty(student.shape[0] if gradient else 0, student.shape[1])


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)  # or every backward makes zeros for the second output
    ctx.save_for_backward(output[1])
    ctx.teachers = len(inputs[1])


def _backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
    (by_student,) = ctx.saved_tensors
    return (None if by_loss is None else chained(by_student, by_loss, "kd_loss"), [None] * ctx.teachers, *[None] * 9)


kd_loss.register_autograd(_backward, setup_context=_keep)


@kd_loss.register_vmap
def _kd_loss_batched(
    info: Any,
    in_dims: Any,
    student: Tensor,
    teachers: Sequence[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    *rest: Any,
) -> Any:
    *said, reduction, backend, gradient = rest
    size = info.batch_size
    student_dim, teacher_dims, label_dim, teacher_weight_dim, sample_weight_dim = in_dims[:5]
    student = one_batch(student, student_dim, size)
    count = student.shape[0] // size
    teachers = [one_batch(one, dim, size) for one, dim in zip(teachers, teacher_dims, strict=True)]
    labels = None if labels is None else one_batch(labels, label_dim, size)
    sample_weights = None if sample_weights is None else one_batch(sample_weights, sample_weight_dim, size)
    if teacher_weights is not None and (teacher_weight_dim is not None or teacher_weights.dim() == 2):
        if teacher_weight_dim is not None and teacher_weights.dim() == 2:  # [B, K]: the same for all rows of a batch
            teacher_weights = teacher_weights.movedim(teacher_weight_dim, 0).repeat_interleave(count, 0)
        else:
            teacher_weights = one_batch(teacher_weights, teacher_weight_dim, size)
    rows, by_student = kd_loss(
        student, teachers, labels, teacher_weights, sample_weights, *said, "none", backend, gradient
    )
    return apart(rows, by_student, size, reduction)


class _Transformed(torch.autograd.Function):
    """The operator under ``torch.func`` transforms, whose gradients torch's own operators do not have."""

    generate_vmap_rule = True

    @staticmethod
    def forward(student: Tensor, said: tuple[Any, ...], *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        labels, teacher_weights, sample_weights, *teachers = tensors
        made: tuple[Tensor, Tensor] = kd_loss(student, teachers, labels, teacher_weights, sample_weights, *said)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])
        ctx.arguments = len(inputs)

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
        (by_student,) = ctx.saved_tensors
        return (None if by_loss is None else chained(by_student, by_loss, "kd_loss"), *[None] * (ctx.arguments - 1))


def kd_loss_op(
    student: Tensor,
    teachers: list[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    settings: Kd,
    reduction: str,
    backend: str,
) -> Tensor:
    """Return the loss, [] or [N]; arguments as :func:`codistill.kernels.reference.kd.kd` has them."""
    gradient = torch.is_grad_enabled() and learns(student)
    said = (settings.words, settings.numbers(), settings.ignore_index, reduction, backend, gradient)
    others = [teacher.detach() for teacher in teachers]
    teacher_weights = None if teacher_weights is None else teacher_weights.detach()
    sample_weights = None if sample_weights is None else sample_weights.detach()
    loss: Tensor
    if untraced(student):
        given = (student.detach(), others, labels, teacher_weights, sample_weights, *said)
        return Direct.apply(student, lambda: _made(*given), "kd_loss") if gradient else _made(*given)[0]  # type: ignore[no-untyped-call]
    if gradient and transformed():
        loss, _ = _Transformed.apply(student, said, labels, teacher_weights, sample_weights, *others)  # type: ignore[no-untyped-call]
    else:
        loss, _ = kd_loss(student, others, labels, teacher_weights, sample_weights, *said)
    return loss


@torch.library.custom_op("codistill::kd_loss_", mutates_args=("student",))
def kd_loss_(
    student: Tensor,
    teachers: Sequence[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    words: str,
    numbers: Sequence[float],
    ignore_index: int,
    reduction: str,
    backend: str,
) -> Tensor:
    """Return the loss, [] or [N], and leave its gradient where the student's logits were."""
    settings = Kd.of(words, list(numbers), ignore_index)
    scale = scale_of(reduction, student.shape[0])
    rows, by_student = KD(
        backend, student, student, teachers, labels, teacher_weights, sample_weights, settings, scale, True, student
    )
    return reduced(rows, reduction)


@kd_loss_.register_fake
def _kd_loss_fake_(student: Tensor, *said: Any) -> Tensor:
    return loss_like(student, said[-2])


class _Overwriting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, *said: Any) -> Tensor:
        logits = student.detach()
        loss: Tensor = kd_loss_(logits, *said)
        ctx.save_for_backward(logits)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor) -> Any:
        (by_student,) = ctx.saved_tensors
        factor = by_loss[:, None] if by_loss.dim() else by_loss
        return (by_student.mul_(factor), *[None] * 9)


def kd_loss_overwriting(
    student: Tensor,
    teachers: list[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    settings: Kd,
    reduction: str,
    backend: str,
) -> Tensor:
    """Do what :func:`kd_loss_op` does, and lose the logits."""
    if transformed():
        raise NotImplementedError("kd_loss: inplace does not go with torch.func transforms; leave it out there")
    made: Tensor = _Overwriting.apply(  # type: ignore[no-untyped-call]
        student,
        [teacher.detach() for teacher in teachers],
        labels,
        teacher_weights,
        sample_weights,
        settings.words,
        settings.numbers(),
        settings.ignore_index,
        reduction,
        backend,
    )
    return made
