"""``codistill::linear_kd_loss``: the loss from hidden states and heads, with all its gradients."""

# Annotations are objects here, not strings: torch reads the operator's schema from them.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation
from ..settings import Kd
from .gradients import chained

# The chunks are the same everywhere; what a back end does is the loss of each, which it is handed on to.
LINEAR = Operation(
    "linear_kd_loss",
    reference=".reference.linear:linear_kd",
    cpu=".reference.linear:linear_kd",
    triton=".reference.linear:linear_kd",
)

NOT_TRANSFORMED = (
    "linear_kd_loss: torch.func transforms (vmap, grad) are not supported, since each would hold a gradient of the "
    "head of its own; use kd_loss on logits there, or backward() on the sum of the losses"
)


@torch.library.custom_op("codistill::linear_kd_loss", mutates_args=())
def linear_kd_loss(
    student_hidden: Tensor,
    student_head: Tensor,
    student_bias: Tensor | None,
    teacher_hidden: Sequence[Tensor],
    teacher_heads: Sequence[Tensor],
    teacher_biases: Sequence[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    words: str,
    numbers: Sequence[float],
    ignore_index: int,
    reduction: str,
    chunk: int,
    backend: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss [], and its gradients by hidden states [N, H], head [V, H] and bias [V]; see ``wanted``."""
    settings = Kd.of(words, list(numbers), ignore_index)
    scale = 1 / max(student_hidden.shape[0], 1) if reduction == "mean" else 1.0
    total, *gradients = LINEAR(
        backend,
        student_hidden,
        student_hidden,
        student_head,
        student_bias,
        teacher_hidden,
        teacher_heads,
        teacher_biases,
        labels,
        teacher_weights,
        sample_weights,
        settings,
        scale,
        chunk,
        backend,
        wanted,
    )
    by_hidden, by_head, by_bias = gradients
    return total * scale, by_hidden, by_head, by_bias


@linear_kd_loss.register_fake
def _linear_kd_loss_fake(
    student_hidden: Tensor, student_head: Tensor, student_bias: Tensor | None, *said: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wanted = said[-1]
    wide = torch.promote_types(torch.promote_types(student_hidden.dtype, student_head.dtype), torch.float32)
    classes, width = student_head.shape
    bias_dtype = wide if student_bias is None else student_bias.dtype
    return (
        student_hidden.new_empty((), dtype=wide),
        student_hidden.new_empty(student_hidden.shape[0] if wanted[0] else 0, width),
        student_head.new_empty(classes if wanted[1] else 0, width),
        student_head.new_empty(classes if wanted[2] else 0, dtype=bias_dtype),
    )


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)  # or every backward makes zeros for the gradients that are outputs
    ctx.save_for_backward(*output[1:])
    ctx.wanted = inputs[-1]
    ctx.lists = [len(one) for one in inputs[3:6]]


def _backward(ctx: Any, by_loss: Tensor | None, *_: Any) -> Any:
    by_student = [
        chained(made, by_loss, "linear_kd_loss") if wanted and by_loss is not None else None
        for made, wanted in zip(ctx.saved_tensors, ctx.wanted, strict=True)
    ]
    return (*by_student, *([None] * many for many in ctx.lists), *[None] * 10)


linear_kd_loss.register_autograd(_backward, setup_context=_keep)


@linear_kd_loss.register_vmap
def _linear_kd_loss_batched(info: Any, in_dims: Any, *arguments: Any) -> Any:
    raise NotImplementedError(NOT_TRANSFORMED)


def linear_kd_loss_op(
    student_hidden: Tensor,
    student_head: Tensor,
    student_bias: Tensor | None,
    teacher_hidden: list[Tensor],
    teacher_heads: list[Tensor],
    teacher_biases: list[Tensor],
    labels: Tensor | None,
    teacher_weights: Tensor | None,
    sample_weights: Tensor | None,
    settings: Kd,
    reduction: str,
    chunk: int,
    backend: str,
) -> Tensor:
    """Return the loss []; arguments as :func:`codistill.kernels.reference.linear.linear_kd` has them."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise NotImplementedError(NOT_TRANSFORMED)
    learn = torch.is_grad_enabled()
    wanted = [
        learn and student_hidden.requires_grad,
        learn and student_head.requires_grad,
        learn and student_bias is not None and student_bias.requires_grad,
    ]
    loss: Tensor
    loss, *_ = linear_kd_loss(
        student_hidden,
        student_head,
        student_bias,
        [one.detach() for one in teacher_hidden],
        [one.detach() for one in teacher_heads],
        [one.detach() for one in teacher_biases],
        labels,
        teacher_weights,
        sample_weights,
        settings.words,
        settings.numbers(),
        settings.ignore_index,
        reduction,
        chunk,
        backend,
        wanted,
    )
    return loss
