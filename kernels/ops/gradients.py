"""What operators share that make a loss and its gradient together: reductions, and the way back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def scale_of(reduction: str, count: int) -> float:
    """Return what a sum over ``count`` rows is multiplied with."""
    return 1 / max(count, 1) if reduction == "mean" else 1.0


def reduced(rows: Tensor, reduction: str) -> Tensor:
    """Return the losses of rows [N] as they are, or their sum or mean, []."""
    return rows if reduction == "none" else rows.sum() * scale_of(reduction, rows.shape[0])


def loss_like(student: Tensor, reduction: str) -> Tensor:
    """Return an empty loss of the shape and dtype that logits [N, V] get."""
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    return student.new_empty(student.shape[:1] if reduction == "none" else (), dtype=dtype)


def apart(rows: Tensor, by_student: Tensor, size: int, reduction: str) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Return what a rule of ``torch.func.vmap`` must from ``size`` batches that were done as one of more rows."""
    rows = rows.view(size, -1)
    by_student = by_student.view(size, -1, by_student.shape[1])
    if reduction == "none":
        return (rows, by_student), (0, 0)
    scale = scale_of(reduction, rows.shape[1])
    return (rows.sum(1) * scale, by_student * scale), (0, 0)


def learns(student: Tensor) -> bool:
    """Whether somebody may want the gradient; inside of ``vmap`` the tensor itself does not say so."""
    if not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(student):
        return student.requires_grad or learns(torch._C._functorch.get_unwrapped(student))
    return student.requires_grad


def transformed() -> bool:
    """Whether a transform of ``torch.func`` is at work, whose gradients torch's own operators do not have."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def untraced(student: Tensor) -> bool:
    """Whether a call is an ordinary one, which nobody records, compiles, maps or fakes.

    Such a call need not go through torch's operator, whose bookkeeping costs more than a small kernel.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and type(student) in (Tensor, torch.nn.Parameter)
        and _get_current_dispatch_mode() is None
    )


class Direct(torch.autograd.Function):
    """The loss that ``make`` makes with its gradient, outside of torch's operator; see :func:`untraced`."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, make: Callable[[], tuple[Tensor, Tensor]], name: str) -> Tensor:
        """Return the loss, [] or [N]."""
        loss, by_student = make()
        ctx.save_for_backward(by_student)
        ctx.name, ctx.by_loss = name, None
        return loss

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient by the student."""
        (by_student,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to go back through this, too, and must not be told zero
            return chained(by_student.detach().requires_grad_(), by_loss, ctx.name), None, None
        if not by_student.is_cuda or by_loss.dim() or not by_student.is_contiguous():
            return chained(by_student, by_loss, ctx.name), None, None
        if ctx.by_loss is not None:  # a second way back through the same graph: undo the factor of the first
            if ctx.by_loss.item() == 0:
                raise RuntimeError(f"{ctx.name}: went back with a factor of zero before; call the loss again")
            return by_student * (by_loss / ctx.by_loss), None, None
        # The factor is one nearly always, which only the GPU knows; asking it would make the host wait, and a product
        # would move two thirds of the bytes of the loss again.
        ctx.by_loss = by_loss
        importlib.import_module("..triton.scale", __package__).multiply(by_student, by_loss)
        return by_student.detach(), None, None


def chained(by_student: Tensor, by_loss: Tensor, name: str) -> Tensor:
    """Return the gradient by the student [N, V] times that by the loss, [] or [N], of the operation ``name``."""
    if _is_one(by_loss):
        return by_student.detach()
    if not torch.is_grad_enabled() and untraced(by_student):
        return _product(by_student, by_loss)
    made: Tensor = _Chained.apply(by_student, by_loss, name)  # type: ignore[no-untyped-call]
    return made


class _Chained(torch.autograd.Function):
    """A product whose own gradient is refused instead of being zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(by_student: Tensor, by_loss: Tensor, name: str) -> Tensor:
        return _product(by_student, by_loss)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.name = inputs[2]

    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        raise NotImplementedError(f"{ctx.name}: there is no second derivative; write the loss in plain torch for that")


def _product(by_student: Tensor, by_loss: Tensor) -> Tensor:
    if by_loss.dim():
        by_loss = by_loss[:, None]
    elif by_student.dtype == torch.float16:  # a loss scale may be more than float16 holds
        by_loss = by_loss[None]
    else:
        by_loss = by_loss.to(by_student.dtype)
    return (by_student * by_loss).to(by_student.dtype)


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
