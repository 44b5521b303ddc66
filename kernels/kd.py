"""``kd_loss``: cross entropy and distillation from an ensemble of teachers, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from . import checks
from .ops.kd import kd_loss_op, kd_loss_overwriting
from .settings import Kd
from .weights import for_weighted_mean, of_teachers

Mode = Literal["forward", "reverse", "jsd", "decoupled"]
Average = Literal["probabilities", "logits"]
Reduction = Literal["mean", "weighted_mean", "sum", "none"]


def kd_loss(
    student_logits: torch.Tensor,
    teachers: torch.Tensor | Sequence[torch.Tensor],
    labels: torch.Tensor | None = None,
    *,
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
    reduction: Reduction = "mean",
    inplace: bool = False,
    backend: str | None = None,
) -> torch.Tensor:
    """Return ce_weight * CE(student, labels) + kd_weight * T^2 * D(teachers, student), reduced over rows.

    With q = softmax(student / T) and p the teachers' answer, D is by ``mode``:

    - ``forward``: KL(p || q) (Hinton et al. 2015)
    - ``reverse``: KL(q || p) (Gu et al. 2024, MiniLLM)
    - ``jsd``: b KL(p || m) + (1 - b) KL(q || m) with m = b p + (1 - b) q and b = ``jsd_weight`` in (0, 1)
      (Agarwal et al. 2024, GKD, eq. 1)
    - ``decoupled``: ``target_weight`` * TCKD + ``other_weight`` * NCKD (Zhao et al. 2022, eq. 7); needs labels, and
      rows whose label is ignored are not distilled

    ``student_logits`` is [..., V] in any float dtype; sums are float32, or float64 for float64. ``teachers`` is one
    tensor of that shape or a sequence of K, which are not stacked. ``average`` says whether p is the mean of their
    probabilities or the softmax of their mean logits. ``teacher_weights`` is None (uniform), [K], [..., K], or
    "entropy": exp(-H_k / ``entropy_temperature``) by row, H_k the entropy of teacher k at T in nats; they are divided
    by their sum. Only the student gets a gradient, and there is no second derivative.

    ``labels`` [...] are int64; where they are ``ignore_index`` there is no cross entropy. ``label_smoothing`` is
    that of ``torch.nn.functional.cross_entropy``. ``sample_weights`` [...] multiply a row's whole loss.
    ``reduction``: "mean" divides by the number of rows, "weighted_mean" by the sum of the sample weights, "sum" does
    not divide, "none" returns [...]. No rows make zero.

    The gradient is made in the same pass. ``inplace`` puts it where the logits were: they are lost, and nobody else
    may need them. ``backend``: see :mod:`codistill.kernels`.

    Raises ``ValueError`` where shapes, dtypes or settings do not fit.
    """
    given = [teachers] if isinstance(teachers, torch.Tensor) else list(teachers)
    settings = Kd.said(
        "kd_loss",
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
    checks.one_of("kd_loss", "reduction", reduction, ("mean", "weighted_mean", "sum", "none"))
    lead = student_logits.shape[:-1]
    checks.logits("kd_loss", "student_logits", student_logits)
    if not given:
        raise ValueError("kd_loss: teachers is empty; expected at least one tensor of logits")
    for number, teacher in enumerate(given):
        checks.same_logits("kd_loss", f"teachers[{number}]", teacher, student_logits)
    checks.rows("kd_loss", "labels", labels, student_logits)
    checks.rows("kd_loss", "sample_weights", sample_weights, student_logits)
    weights = of_teachers("kd_loss", teacher_weights, lead, len(given))
    if inplace:
        _may_overwrite(student_logits)
    if reduction == "weighted_mean":
        sample_weights = for_weighted_mean("kd_loss", sample_weights, student_logits)
    columns = student_logits.shape[-1]
    loss = kd_loss_overwriting if inplace else kd_loss_op
    made = loss(
        student_logits.reshape(-1, columns) if not inplace else student_logits.view(-1, columns),
        [teacher.reshape(-1, columns) for teacher in given],
        None if labels is None else labels.reshape(-1),
        weights,
        None if sample_weights is None else sample_weights.reshape(-1),
        settings,
        "mean" if reduction == "weighted_mean" else reduction,
        backend or "",
    )
    return made.reshape(lead) if reduction == "none" else made


def _may_overwrite(logits: torch.Tensor) -> None:
    """Refuse what would be lost without notice, and what a flat view cannot be made of."""
    base = logits._base if logits._is_view() and logits._base is not None else logits
    if base.is_leaf and base.requires_grad:
        raise ValueError("kd_loss: inplace would overwrite a parameter; give logits that a model made")
    if not logits.is_contiguous():
        raise ValueError("kd_loss: inplace needs contiguous logits")
