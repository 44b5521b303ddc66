"""Distillation losses in plain torch. Rows are samples, columns classes; every reduction is the mean over rows.

The mean over rows, not over rows times classes: ``KLDivLoss(reduction="mean")`` divides by the classes too,
which makes distillation C times weaker than written (a mistake that two published libraries ship).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def kl_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows (Hinton et al. 2015, section 2.1).

    ``student`` and ``teacher`` are logits [N, C]; the teacher is detached by the caller if it should not learn.
    T^2 keeps the size of the gradient when T changes. Returns a scalar.
    """
    target = F.log_softmax(teacher / temperature, dim=1)
    given = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(given, target, reduction="batchmean", log_target=True) * temperature**2


def soft_cross_entropy(student: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Cross entropy of ``softmax(student)`` against ``probabilities``, mean over rows; both [N, C]. Scalar.

    The target must be a distribution: with raw logits the loss has no lower bound and training diverges.
    """
    return F.cross_entropy(student, probabilities)


def not_true_divergence(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """T^2 KL between teacher and student over the classes that are not the label (Lee et al. 2022, eq. 5).

    Logits [N, C], labels int64 [N]; the label's column is left out before the softmax. Scalar, mean over rows.
    """
    columns = torch.arange(student.shape[1], device=student.device)
    others = columns != labels[:, None]
    shape = (student.shape[0], student.shape[1] - 1)
    return kl_divergence(student[others].view(shape), teacher[others].view(shape), temperature)


def logit_distance(student: torch.Tensor, teacher: torch.Tensor, power: int = 2) -> torch.Tensor:
    """Mean over rows and classes of \\|student - teacher\\|^power; logits [N, C], power 1 or 2. Scalar."""
    return F.mse_loss(student, teacher) if power == 2 else F.l1_loss(student, teacher)


def feature_distance(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared distance over rows and dimensions of two [N, D] tensors (FedProto's regulariser). Scalar."""
    return F.mse_loss(features, targets)
