"""``kd_loss`` in readable torch: losses by row and the gradient, from the same intermediate values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import torch

from ..settings import Kd
from .softmax import exp, highest, log_softmax

Slope = tuple[torch.Tensor, torch.Tensor]
"""A distance by row [N], and its derivative by z / T, [N, V]."""


def accumulated(values: torch.Tensor) -> torch.Tensor:
    """Return ``values`` in the dtype that sums are made in: float64 stays, everything else is float32."""
    return values if values.dtype == torch.float64 else values.float()


def kd(
    student: torch.Tensor,
    teachers: Sequence[torch.Tensor],
    labels: torch.Tensor | None,
    teacher_weights: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: Kd,
    scale: float | torch.Tensor,
    gradient: bool,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each row [N], float32 or float64, and ``scale`` times its gradient [N, V] by the student.

    ``student`` and each of K ``teachers`` are [N, V], ``labels`` int64 [N], ``teacher_weights`` [K] or [N, K],
    ``sample_weights`` [N]. The gradient is [0, V] where it is not asked for, and ``out`` where that is given, which may
    be the student itself.
    """
    z, temperature = accumulated(student), settings.temperature
    top = highest(z)
    log_q = log_softmax(z, temperature, top)
    live = None if labels is None else labels != settings.ignore_index
    labelled = None
    if labels is not None and live is not None and not _zero(settings.ce_weight):
        labelled = cross_entropy(z, labels, live, settings.label_smoothing, top)
    p, log_p = ensemble([teacher.to(z.dtype) for teacher in teachers], teacher_weights, settings)
    distance, slope = DISTANCES[settings.mode](log_q, p, log_p, labels, live, settings)
    rows = distance * (settings.kd_weight * temperature**2)
    by_student = slope * (settings.kd_weight * temperature)
    if labelled is not None:
        rows = rows + labelled[0] * settings.ce_weight
        by_student = by_student + labelled[1] * settings.ce_weight
    if sample_weights is not None:
        weights = sample_weights.to(z.dtype)
        rows, by_student = rows * weights, by_student * weights[:, None]
    if not gradient:
        return rows, student.new_empty(0, student.shape[1])
    made = (by_student * scale).to(student.dtype)
    return rows, made if out is None else out.copy_(made)


def _zero(number: float | torch.Tensor) -> bool:
    """Whether a setting is zero, so that its terms can be left out. A compiled graph has others as tensors []."""
    return not isinstance(number, torch.Tensor) and number == 0


def ensemble(
    teachers: Sequence[torch.Tensor], weights: torch.Tensor | None, settings: Kd
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the teachers' common answer, [N, V], and its logarithm; ``teachers`` as sums are made."""
    temperature = settings.temperature
    if len(teachers) > 1:
        shares = _shares(teachers, weights, settings)
        if settings.average == "probabilities":
            parts = [share.log() + log_softmax(t, temperature) for share, t in zip(shares, teachers, strict=True)]
            if settings.mode in ("reverse", "decoupled"):  # they ask for log p where p is too small for a float
                log_p = functools.reduce(torch.logaddexp, parts)
                return exp(log_p), log_p
            p = _total(exp(part) for part in parts)
            return p, p.log()
        teachers = [_total(weighted(share, t) for share, t in zip(shares, teachers, strict=True))]
    log_p = log_softmax(teachers[0], temperature)
    return exp(log_p), log_p


def _shares(given: Sequence[torch.Tensor], weights: torch.Tensor | None, settings: Kd) -> list[torch.Tensor]:
    """Return for each teacher its share, [1, 1] or [N, 1]."""
    if settings.weighting == "entropy":
        # A softmax, since exp(-H / tau) of every teacher may be too small for a float.
        entropies = torch.stack([entropy(log_softmax(t, settings.temperature)) for t in given], 1)
        return list(torch.softmax(-entropies / settings.entropy_temperature, 1).split(1, 1))
    if weights is None:
        return [given[0].new_full((1, 1), 1 / len(given))] * len(given)
    said = accumulated(weights).to(given[0].dtype)
    said = said.expand(1, -1) if said.dim() == 1 else said
    return list((said / said.sum(1, keepdim=True)).split(1, 1))


def _total(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return functools.reduce(torch.add, parts)


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats of each row of log-probabilities [N, V]."""
    return -weighted(exp(log_p), log_p).sum(1)


def weighted(p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return p * values, and zero where p is zero, whatever the value there."""
    return torch.where(p == 0, 0.0, p * values)


def forward(
    log_q: torch.Tensor,
    p: torch.Tensor,
    log_p: torch.Tensor,
    labels: torch.Tensor | None,
    live: torch.Tensor | None,
    settings: Kd,
) -> Slope:
    """KL(p || q)."""
    return weighted(p, log_p - log_q).sum(1), exp(log_q) - p


def reverse(
    log_q: torch.Tensor,
    p: torch.Tensor,
    log_p: torch.Tensor,
    labels: torch.Tensor | None,
    live: torch.Tensor | None,
    settings: Kd,
) -> Slope:
    """KL(q || p)."""
    q = exp(log_q)
    terms = weighted(q, log_q - log_p)
    distance = terms.sum(1)
    return distance, terms - q * distance[:, None]


def jsd(
    log_q: torch.Tensor,
    p: torch.Tensor,
    log_p: torch.Tensor,
    labels: torch.Tensor | None,
    live: torch.Tensor | None,
    settings: Kd,
) -> Slope:
    """b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q."""
    b = settings.jsd_weight
    q = exp(log_q)
    share = torch.as_tensor(b, dtype=log_p.dtype, device=log_p.device)
    log_m = torch.logaddexp(log_p + share.log(), log_q + torch.log1p(-share))
    theirs = weighted(q, log_q - log_m)
    from_student = theirs.sum(1)
    distance = weighted(p, log_p - log_m).sum(1) * b + from_student * (1 - b)
    return distance, (theirs - q * from_student[:, None]) * (1 - b)


def decoupled(
    log_q: torch.Tensor,
    p: torch.Tensor,
    log_p: torch.Tensor,
    labels: torch.Tensor | None,
    live: torch.Tensor | None,
    settings: Kd,
) -> Slope:
    """The label's class against the rest, and the rest among themselves (Zhao et al. 2022)."""
    assert labels is not None and live is not None
    target = _hot(log_q, labels)
    at = torch.where(live, labels, 0)[:, None]
    y_q, y_p = log_q.gather(1, at).squeeze(1), log_p.gather(1, at).squeeze(1)
    rest_q, rest_p = _log_rest(log_q, target), _log_rest(log_p, target)
    log_others_q = torch.where(target, -math.inf, log_q - rest_q[:, None])
    log_others_p = torch.where(target, -math.inf, log_p - rest_p[:, None])
    others_q, others_p = exp(log_others_q), exp(log_others_p)
    tckd = weighted(y_p.exp(), y_p - y_q) + weighted(rest_p.exp(), rest_p - rest_q)
    nckd = weighted(others_p, log_others_p - log_others_q).sum(1)
    gap = (y_q.exp() - y_p.exp())[:, None]
    slope = torch.where(target, gap, -gap * others_q) * settings.target_weight
    slope = slope + (others_q - others_p) * settings.other_weight
    distance = tckd * settings.target_weight + nckd * settings.other_weight
    return torch.where(live, distance, 0.0), torch.where(live[:, None], slope, 0.0)


DISTANCES: dict[str, Callable[..., Slope]] = {
    "forward": forward,
    "reverse": reverse,
    "jsd": jsd,
    "decoupled": decoupled,
}


def _hot(like: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    columns = torch.arange(like.shape[1], device=like.device, dtype=torch.int32)
    return columns == labels.to(torch.int32)[:, None]


def _log_rest(log_p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return log(1 - p_y) without taking it from one."""
    return torch.logsumexp(torch.where(target, -math.inf, log_p), 1)


def cross_entropy(
    z: torch.Tensor, labels: torch.Tensor, live: torch.Tensor, smoothing: float, top: torch.Tensor | None = None
) -> Slope:
    """Return cross entropy to the labels [N], zero where they are ignored, and its derivative by z [N, V]."""
    log_s = log_softmax(z, 1.0, top)
    at = torch.where(live, labels, 0)[:, None]
    loss = -log_s.gather(1, at).squeeze(1)
    target = _hot(z, labels).to(z.dtype)
    if not _zero(smoothing):
        loss = loss * (1 - smoothing) - log_s.mean(1) * smoothing
        target = target * (1 - smoothing) + smoothing / z.shape[1]
    return torch.where(live, loss, 0.0), torch.where(live[:, None], exp(log_s) - target, 0.0)
