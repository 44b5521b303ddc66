"""``linear_kd_loss``: logits, losses and gradients of some rows at a time; every back end goes about it this way."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..dispatch import detail
from ..ops.kd import KD
from ..settings import Kd
from .kd import accumulated

SLICE = 2**24
"""Elements of the head's gradient that bfloat16 products on a GPU are added to at a time."""

Made = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def linear_kd(
    student_hidden: torch.Tensor,
    student_head: torch.Tensor,
    student_bias: torch.Tensor | None,
    teacher_hidden: Sequence[torch.Tensor],
    teacher_heads: Sequence[torch.Tensor],
    teacher_biases: Sequence[torch.Tensor],
    labels: torch.Tensor | None,
    teacher_weights: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: Kd,
    scale: float,
    chunk: int,
    backend: str,
    wanted: Sequence[bool],
) -> Made:
    """Return the sum of the rows' losses [], and ``scale`` times its gradients by hidden states, head and bias.

    ``student_hidden`` is [N, H], ``student_head`` [V, H], ``student_bias`` [V]; teacher k has [N, H_k], [V, H_k] and,
    where there are any, [V]. ``labels`` [N], ``teacher_weights`` [K] or [N, K], ``sample_weights`` [N]. ``chunk`` rows
    have logits at a time. ``wanted`` says which of the three gradients to make; the others have no rows. Logits and
    sums are float32, or float64 where an input is.
    """
    rows, classes = student_hidden.shape[0], student_head.shape[0]
    many = min(chunk, max(rows, 1))
    detail(f"{-(-rows // many)} chunks of {many} rows")
    head = _operand(student_head, student_hidden)
    heads = [_operand(head_k, hidden) for head_k, hidden in zip(teacher_heads, teacher_hidden, strict=True)]
    kind = accumulated(head.new_empty(0)).dtype
    space = [head.new_empty(many, classes, dtype=kind)]
    space += [one.new_empty(many, classes, dtype=accumulated(one.new_empty(0)).dtype) for one in heads]
    total = head.new_zeros((), dtype=kind)
    by_hidden = torch.empty_like(student_hidden, memory_format=torch.contiguous_format)
    by_hidden = by_hidden if wanted[0] else by_hidden[:0].clone()
    by_head = head.new_zeros(classes if wanted[1] else 0, head.shape[1], dtype=kind)
    by_bias = head.new_zeros(classes if wanted[2] else 0, dtype=kind)
    for first in range(0, rows, many):
        some = slice(first, min(first + many, rows))
        hidden = student_hidden[some].to(head.dtype)
        logits = _logits(hidden, head, student_bias, space[0])
        theirs = [
            _logits(one[some].to(head_k.dtype), head_k, teacher_biases[k] if teacher_biases else None, space[k + 1])
            for k, (one, head_k) in enumerate(zip(teacher_hidden, heads, strict=True))
        ]
        losses, by_logits = KD(
            backend,
            logits,
            logits,
            theirs,
            None if labels is None else labels[some],
            teacher_weights if teacher_weights is None or teacher_weights.dim() == 1 else teacher_weights[some],
            None if sample_weights is None else sample_weights[some],
            settings,
            scale,
            any(wanted),
            logits if any(wanted) else None,
        )
        total += losses.sum()
        if wanted[0] or wanted[1]:
            _spread(by_logits, hidden, head, by_hidden[some] if wanted[0] else None, by_head if wanted[1] else None)
        if wanted[2]:
            by_bias += by_logits.sum(0)
    bias_kind = kind if student_bias is None else student_bias.dtype
    return total, by_hidden, by_head.to(student_head.dtype), by_bias.to(bias_kind)


def _operand(head: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the head in the dtype that products are made in.

    A GPU multiplies bfloat16 into float32 sums. Elsewhere a product of bfloat16 is rounded to bfloat16, which makes
    gradients of the loss wrong by several percent, and half precision has no room for small gradients: float32.
    """
    if head.is_cuda and head.dtype == hidden.dtype == torch.bfloat16:
        return head
    return accumulated(head.to(torch.promote_types(head.dtype, hidden.dtype)))


def _logits(hidden: torch.Tensor, head: torch.Tensor, bias: torch.Tensor | None, space: torch.Tensor) -> torch.Tensor:
    """Return hidden @ head^T + bias, [rows, V], never rounded below ``space``'s dtype."""
    if head.dtype == space.dtype:
        made = torch.mm(hidden, head.t(), out=space[: hidden.shape[0]])
    else:
        made = torch.mm(hidden, head.t(), out_dtype=space.dtype)
    return made if bias is None else made.add_(bias)


def _spread(
    by_logits: torch.Tensor,
    hidden: torch.Tensor,
    head: torch.Tensor,
    by_hidden: torch.Tensor | None,
    by_head: torch.Tensor | None,
) -> None:
    """Put the gradient by the hidden states [rows, H] where it belongs, and add the gradient by the head [V, H]."""
    # Where products are float32 already, all classes at once. Elsewhere some at a time: a product is a tensor of its
    # own before it is added, and should be small beside the head.
    step = head.shape[0] if head.dtype == by_logits.dtype else max(1, SLICE // head.shape[1])
    total = None if by_hidden is None else by_logits.new_zeros(hidden.shape)
    for first in range(0, head.shape[0], step):
        part = by_logits[:, first : first + step].to(head.dtype)
        if total is not None:
            _add_product(total, part, head[first : first + step])
        if by_head is not None:
            _add_product(by_head[first : first + step], part.t(), hidden)
    if by_hidden is not None and total is not None:
        by_hidden.copy_(total)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
