"""``sparse_kd_loss``: cross entropy and distillation from a teacher's packed answers."""

from __future__ import annotations

from typing import Literal

import torch

from . import checks
from .ops.sparse import sparse_kd_loss_op
from .pack import Packed
from .sparse_settings import SparseKd
from .weights import for_weighted_mean

Reduction = Literal["mean", "weighted_mean", "sum", "none"]


def sparse_kd_loss(
    student_logits: torch.Tensor,
    packed: Packed,
    labels: torch.Tensor | None = None,
    *,
    ce_weight: float = 1.0,
    kd_weight: float = 1.0,
    sample_weights: torch.Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> torch.Tensor:
    """Return ce_weight * CE(student, labels) + kd_weight * T^2 * KL(teacher || student) over k + 1 classes.

    With q = softmax(student / T), S the kept classes, p_t = 1 - sum of p over S and q_t = sum of q over all others:

        KL = sum over S of p_j (log p_j - log q_j) + p_t (log p_t - log q_t)

    which is the divergence from a teacher who does not tell its other classes apart, never more than the dense one. Its
    derivative by a logit is (q_j - p_j) / T on S and q_j (1 - p_t / q_t) / T elsewhere.

    ``student_logits`` is [..., V] in any float dtype; sums are float32, or float64 for float64. ``packed`` holds rows
    [...] of V classes, as :func:`codistill.kernels.pack_knowledge` makes them, and the temperature T; it gets no
    gradient, and a row's indices must differ. For several teachers add up calls, with the cross entropy in one of them.

    ``labels`` [...] are int64; where they are ``ignore_index`` there is no cross entropy. ``sample_weights`` [...]
    multiply a row's whole loss. ``reduction``: "mean" divides by the number of rows, "weighted_mean" by the sum of the
    sample weights, "sum" does not divide, "none" returns [...]. No rows make zero.

    The gradient is made in the same pass. ``backend``: see :mod:`codistill.kernels`.

    Raises ``ValueError`` where shapes, dtypes or settings do not fit.
    """
    checks.logits("sparse_kd_loss", "student_logits", student_logits)
    checks.one_of("sparse_kd_loss", "reduction", reduction, ("mean", "weighted_mean", "sum", "none"))
    checks.rows("sparse_kd_loss", "labels", labels, student_logits)
    checks.rows("sparse_kd_loss", "sample_weights", sample_weights, student_logits)
    _check(packed, student_logits)
    if reduction == "weighted_mean":
        sample_weights = for_weighted_mean("sparse_kd_loss", sample_weights, student_logits)
    kept = packed.indices.shape[-1]
    made = sparse_kd_loss_op(
        student_logits.reshape(-1, student_logits.shape[-1]),
        packed.indices.reshape(-1, kept),
        packed.values.reshape(-1, kept),
        None if packed.scales is None else packed.scales.reshape(-1),
        packed.tails.reshape(-1),
        None if labels is None or ce_weight == 0 else labels.reshape(-1),
        None if sample_weights is None else sample_weights.reshape(-1),
        SparseKd(packed.temperature, float(ce_weight), float(kd_weight), int(ignore_index)),
        "mean" if reduction == "weighted_mean" else reduction,
        backend or "",
    )
    return made.reshape(student_logits.shape[:-1]) if reduction == "none" else made


def _check(packed: Packed, student: torch.Tensor) -> None:
    """Refuse a payload that does not belong to the student's rows and classes."""
    if packed.classes != student.shape[-1]:
        raise ValueError(
            f"sparse_kd_loss: packed has {packed.classes} classes and the student {student.shape[-1]}; "
            "map one vocabulary onto the other first"
        )
    if packed.indices.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            f"sparse_kd_loss: packed has rows {tuple(packed.indices.shape[:-1])} and the student "
            f"{tuple(student.shape[:-1])}; pick them with packed[rows]"
        )
    if packed.indices.device != student.device:
        raise ValueError(
            f"sparse_kd_loss: packed is on {packed.indices.device} and the student on {student.device}; "
            "move it with packed.to(device)"
        )
    checks.above_zero("sparse_kd_loss", "packed.temperature", packed.temperature)
    if (packed.scales is None) != (packed.values.dtype != torch.int8):
        raise ValueError(
            f"sparse_kd_loss: packed has values {packed.values.dtype}; int8 and no other comes with scales"
        )
