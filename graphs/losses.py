"""Losses over scores of triples."""

from __future__ import annotations

import torch

from ..kernels import negative_sampling_loss, score_kd_loss


def self_adversarial_loss(
    positive: torch.Tensor,
    negative: torch.Tensor,
    *,
    margin: float = 0.0,
    temperature: float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean loss of true triples against negatives that weigh as much as the model believes them.

    Half of -log sigmoid(margin + s) - sum_i p_i log sigmoid(-margin - s_i), p = softmax(``temperature`` * s_i) held
    constant (Sun et al. 2019, eq. 5 and 6; their code and PyKEEN's halve). ``positive`` [B] are the scores s of true
    triples, ``negative`` [B, n] those of corrupted ones; -inf is a negative that does not count. ``weights`` [B] weigh
    the rows: they are divided by their sum.
    """
    rows = negative_sampling_loss(
        positive + margin,
        negative + margin,
        adversarial_temperature=temperature,
        reduction="none",
    )
    total = rows.mean() if weights is None else (rows * weights).sum() / weights.sum()
    return total / 2


def one_vs_all_loss(
    scores: torch.Tensor, targets: torch.Tensor, *, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean cross entropy of ``scores`` [B, E] of all entities to the true ones, ``targets`` int64 [B]."""
    rows = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    return rows.mean() if weights is None else (rows * weights).sum() / weights.sum()


def score_distillation_loss(
    student_positive: torch.Tensor,
    student_negative: torch.Tensor,
    teacher_positive: torch.Tensor,
    teacher_negative: torch.Tensor,
    *,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Return T^2 KL(teacher || student) between distributions over a true triple and its negatives, mean over rows.

    The distributions are softmax(scores / T). Scores of true triples are [B], those of the negatives [B, n], the same
    ones for both. The mutual distillation of FedLU (Zhu, Li and Hu 2023) is this in both directions. Gradients go to
    the student alone.
    """
    student, teacher = (
        torch.cat([positive[:, None], negative], 1)
        for positive, negative in ((student_positive, student_negative), (teacher_positive, teacher_negative))
    )
    return score_kd_loss(student, teacher.detach(), temperature)
