"""``sparse_kd_loss`` in readable torch: the kept classes one by one, all others as one more class."""

from __future__ import annotations

import torch

from ..sparse_settings import SparseKd
from .kd import accumulated, cross_entropy, weighted
from .pack import decoded


def sparse_kd(
    student: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None,
    tails: torch.Tensor,
    labels: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: SparseKd,
    scale: float | torch.Tensor,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each row [N], float32 or float64, and ``scale`` times its gradient [N, V] by the student.

    ``student`` is [N, V], ``indices`` to ``tails`` are a :class:`codistill.kernels.Packed`'s, ``labels`` int64 [N],
    ``sample_weights`` [N]. The gradient is [0, V] where it is not asked for.
    """
    z, temperature, at = accumulated(student), settings.temperature, indices.long()
    log_p, log_p_tail = decoded(values, scales, tails, z.dtype)
    p, p_tail = log_p.exp(), log_p_tail.exp()
    scaled = (z - z.amax(1, keepdim=True)) / temperature  # near zero where it matters, so that q is exact
    others = scaled.scatter(1, at, -torch.inf)
    log_all, log_others = torch.logsumexp(scaled, 1), torch.logsumexp(others, 1)
    log_q = scaled.gather(1, at) - log_all[:, None]
    # The tail's share of the student is a sum over the other classes: 1 minus the rest would be rounding errors.
    distance = weighted(p, log_p - log_q).sum(1) + weighted(p_tail, log_p_tail - (log_others - log_all))
    rows = distance * (settings.kd_weight * temperature**2)
    live = None if labels is None else labels != settings.ignore_index
    ce_slope = None
    if labels is not None and live is not None:
        ce, ce_slope = cross_entropy(z, labels, live, 0.0)
        rows = rows + ce * settings.ce_weight
    weights = None if sample_weights is None else sample_weights.to(z.dtype)
    rows = rows if weights is None else rows * weights
    if not gradient:
        return rows, student.new_empty(0, student.shape[1])
    nobody = (log_others == -torch.inf)[:, None]
    by_tail = torch.where(nobody, 0.0, torch.softmax(others, 1) * p_tail[:, None])
    slope = torch.exp(scaled - log_all[:, None]) - by_tail
    by_student = slope.scatter_add(1, at, -p) * (settings.kd_weight * temperature)
    if ce_slope is not None:
        by_student = by_student + ce_slope * settings.ce_weight
    by_student = by_student if weights is None else by_student * weights[:, None]
    return rows, (by_student * scale).to(student.dtype)
