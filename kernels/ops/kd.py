"""``codistill::kd_loss`` and ``codistill::kd_loss_``, which puts the gradient where the logits were."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..dispatch import Operation
from ..settings import Kd
from .batching import one_batch

KD = Operation("kd_loss", reference=".reference.kd:kd", cpu=".cpu.kd:kd", triton=".triton.kd:kd")


def _scale(reduction: str, count: int) -> float:
    return 1 / max(count, 1) if reduction == "mean" else 1.0


def _reduced(rows: Tensor, reduction: str) -> Tensor:
    return rows if reduction == "none" else rows.sum() * _scale(reduction, rows.shape[0])


def _shape(student: Tensor, reduction: str) -> Tensor:
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    return student.new_empty(student.shape[:1] if reduction == "none" else (), dtype=dtype)


@torch.library.custom_op("codistill::kd_loss", mutates_args=())
def kd_loss(
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
    scale = _scale(reduction, student.shape[0])
    rows, by_student = KD(
        backend, student, student, teachers, labels, teacher_weights, sample_weights, settings, scale, gradient
    )
    return _reduced(rows, reduction), by_student.contiguous()


@kd_loss.register_fake
def _kd_loss_fake(student: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    reduction, _, gradient = said[-3:]
    return _shape(student, reduction), student.new_empty(student.shape[0] if gradient else 0, student.shape[1])


class _Chained(torch.autograd.Function):
    """The gradient by the student times that by the loss, whose own gradient is refused instead of being zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(by_student: Tensor, by_loss: Tensor) -> Tensor:
        if by_loss.dim():
            by_loss = by_loss[:, None]
        elif by_student.dtype == torch.float16:  # a loss scale may be more than float16 holds
            by_loss = by_loss[None]
        else:
            by_loss = by_loss.to(by_student.dtype)
        return (by_student * by_loss).to(by_student.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        raise NotImplementedError("kd_loss: there is no second derivative; write the loss in plain torch for that")


def _chained(by_student: Tensor, by_loss: Tensor) -> Tensor:
    if _is_one(by_loss):
        return by_student.detach()
    made: Tensor = _Chained.apply(by_student, by_loss)  # type: ignore[no-untyped-call]
    return made


def _is_one(by_loss: Tensor) -> bool:
    """Whether ``backward()`` was called on the loss itself, as far as that can be seen without waiting for a GPU."""
    return (
        by_loss.device.type == "cpu"
        and by_loss.dim() == 0
        and not torch.is_grad_enabled()
        and type(by_loss) is Tensor
        and _get_current_dispatch_mode() is None
        and not torch._C._functorch.is_functorch_wrapped_tensor(by_loss)
        and by_loss.item() == 1
    )


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)  # or every backward makes zeros for the second output
    ctx.save_for_backward(output[1])
    ctx.teachers = len(inputs[1])


def _backward(ctx: Any, by_loss: Tensor | None, _: Any) -> Any:
    (by_student,) = ctx.saved_tensors
    return (None if by_loss is None else _chained(by_student, by_loss), [None] * ctx.teachers, *[None] * 9)


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
    rows = rows.view(size, count)
    by_student = by_student.view(size, -1, by_student.shape[1])
    if reduction == "none":
        return (rows, by_student), (0, 0)
    scale = _scale(reduction, count)
    return (rows.sum(1) * scale, by_student * scale), (0, 0)


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
        return (None if by_loss is None else _chained(by_student, by_loss), *[None] * (ctx.arguments - 1))


def _learns(student: Tensor) -> bool:
    """Whether somebody may want the gradient; inside of ``vmap`` the tensor itself does not say so."""
    if not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(student):
        return student.requires_grad or _learns(torch._C._functorch.get_unwrapped(student))
    return student.requires_grad


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
    gradient = torch.is_grad_enabled() and _learns(student)
    said = (settings.words, settings.numbers(), settings.ignore_index, reduction, backend, gradient)
    others = [teacher.detach() for teacher in teachers]
    teacher_weights = None if teacher_weights is None else teacher_weights.detach()
    sample_weights = None if sample_weights is None else sample_weights.detach()
    loss: Tensor
    if gradient and not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
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
    scale = _scale(reduction, student.shape[0])
    rows, by_student = KD(
        backend, student, student, teachers, labels, teacher_weights, sample_weights, settings, scale, True, student
    )
    return _reduced(rows, reduction)


@kd_loss_.register_fake
def _kd_loss_fake_(student: Tensor, *said: Any) -> Tensor:
    return _shape(student, said[-2])


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
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
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
