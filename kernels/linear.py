"""``linear_kd_loss``: the loss of ``kd_loss`` from hidden states and heads, without the logits of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from . import checks
from .kd import Average, Mode
from .ops.linear import linear_kd_loss_op
from .settings import Kd
from .weights import of_teachers

NAME = "linear_kd_loss"

ELEMENTS = 2**24
"""Logits of a chunk, at least: 64 MB in float32, enough rows to keep matrix products busy."""


def rows_at_a_time(classes: int, width: int) -> int:
    """Return how many rows have logits at a time where the caller does not say.

    64 MB of float32 logits, which is many rows where classes are few. With a big head (V = 128,000 and H = 4,096) these
    would be 131 rows, and the time would go into reading and writing the head's gradient, [V, H] in float32, once a
    chunk. There the logits of H / 4 rows are a quarter of that gradient: those of student and one teacher need together
    no more than its final rounding does, so the peak of memory stays where it is.
    """
    return max(ELEMENTS // classes, width // 4, 1)


def linear_kd_loss(
    student_hidden: torch.Tensor,
    student_head: torch.Tensor,
    teacher_hidden: torch.Tensor | Sequence[torch.Tensor],
    teacher_heads: torch.Tensor | Sequence[torch.Tensor],
    labels: torch.Tensor | None = None,
    *,
    student_bias: torch.Tensor | None = None,
    teacher_biases: torch.Tensor | Sequence[torch.Tensor] | None = None,
    temperature: float = 1.0,
    ce_weight: float = 1.0,
    kd_weight: float = 1.0,
    mode: Mode = "forward",
    average: Average = "probabilities",
    teacher_weights: torch.Tensor | Literal["entropy"] | None = None,
    entropy_temperature: float = 1.0,
    jsd_weight: float = 0.5,
    target_weight: float = 1.0,
    other_weight: float = 1.0,
    sample_weights: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    chunk: int | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Return ``kd_loss(student_hidden @ student_head.T + student_bias, ...)``, by ``chunk`` rows of logits at a time.

    ``student_hidden`` is [..., H] and ``student_head`` [V, H], ``student_bias`` [V]. Of each of K teachers there are
    hidden states [..., H_k], a head [V, H_k] and, if ``teacher_biases`` is given, a bias [V]; one teacher may come
    without the sequence. Teachers get no gradient. All else is as in :func:`codistill.kernels.kd_loss`, but for
    ``reduction``: without a number at the end there is no gradient to make in the forward pass.

    Gradients of hidden states, head and bias are made in the forward pass, in the inputs' dtypes; what needs none costs
    none. bfloat16 inputs are multiplied into float32 logits, and the gradient of the head is summed in float32: both
    right to bfloat16's rounding. float16 is multiplied as float32, since its range does not hold small gradients.
    ``chunk`` None: see :func:`rows_at_a_time`.

    Raises ``ValueError`` where shapes, dtypes or settings do not fit, ``NotImplementedError`` under ``torch.func``
    transforms.
    """
    hidden, heads = _listed(teacher_hidden), _listed(teacher_heads)
    biases = [] if teacher_biases is None else _listed(teacher_biases)
    settings = Kd.said(
        NAME,
        teacher_weights,
        labels,
        mode=mode,
        average=average,
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        entropy_temperature=entropy_temperature,
        jsd_weight=jsd_weight,
        target_weight=target_weight,
        other_weight=other_weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    )
    checks.one_of(NAME, "reduction", reduction, ("mean", "sum"))
    if chunk is not None and chunk < 1:
        raise ValueError(f"{NAME}: chunk is {chunk}; expected at least 1 row")
    _layer("student", student_hidden, student_head, student_bias, student_hidden, student_head)
    if not hidden:
        raise ValueError(f"{NAME}: teacher_hidden is empty; expected at least one teacher")
    if len(heads) != len(hidden) or (biases and len(biases) != len(hidden)):
        raise ValueError(
            f"{NAME}: there are {len(hidden)} teacher_hidden, {len(heads)} teacher_heads and {len(biases)} "
            "teacher_biases; expected one of each a teacher"
        )
    for k, (states, head) in enumerate(zip(hidden, heads, strict=True)):
        _layer(f"teacher {k}", states, head, biases[k] if biases else None, student_hidden, student_head)
    checks.rows(NAME, "labels", labels, student_hidden)
    checks.rows(NAME, "sample_weights", sample_weights, student_hidden)
    weights = of_teachers(NAME, teacher_weights, student_hidden.shape[:-1], len(hidden))
    classes, width = student_head.shape
    return linear_kd_loss_op(
        student_hidden.reshape(-1, width),
        student_head,
        student_bias,
        [states.reshape(-1, states.shape[-1]) for states in hidden],
        heads,
        biases,
        None if labels is None else labels.reshape(-1),
        weights,
        None if sample_weights is None else sample_weights.reshape(-1),
        settings,
        reduction,
        rows_at_a_time(classes, width) if chunk is None else chunk,
        backend or "",
    )


def _listed(tensors: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def _layer(
    who: str,
    hidden: torch.Tensor,
    head: torch.Tensor,
    bias: torch.Tensor | None,
    student_hidden: torch.Tensor,
    student_head: torch.Tensor,
) -> None:
    """Refuse a last layer whose shapes do not fit each other, or not the student's rows and classes."""
    if not hidden.is_floating_point() or hidden.dim() < 1 or not head.is_floating_point() or head.dim() != 2:
        raise ValueError(
            f"{NAME}: {who}'s hidden states are {tuple(hidden.shape)} of {hidden.dtype} and the head "
            f"{tuple(head.shape)} of {head.dtype}; expected floats [..., H] and [V, H]"
        )
    if hidden.shape[-1] != head.shape[1] or head.shape[0] < 1:
        raise ValueError(
            f"{NAME}: {who}'s hidden states are {hidden.shape[-1]} wide and the head has shape {tuple(head.shape)}; "
            f"expected [V, {hidden.shape[-1]}]"
        )
    if hidden.shape[:-1] != student_hidden.shape[:-1]:
        raise ValueError(
            f"{NAME}: {who}'s hidden states have shape {tuple(hidden.shape)}; expected "
            f"{[*student_hidden.shape[:-1], hidden.shape[-1]]}, a row for each of the student's"
        )
    if head.shape[0] != student_head.shape[0]:
        raise ValueError(
            f"{NAME}: {who}'s head has {head.shape[0]} classes and the student's {student_head.shape[0]}; "
            "map one vocabulary onto the other first"
        )
    if bias is not None and bias.shape != head.shape[:1]:
        raise ValueError(f"{NAME}: {who}'s bias has shape {tuple(bias.shape)}; expected [{head.shape[0]}]")
    for tensor in (hidden, head, bias):
        if tensor is not None and tensor.device != student_hidden.device:
            raise ValueError(
                f"{NAME}: {who} has a tensor on {tensor.device}; the student's rows are on {student_hidden.device}"
            )
