"""What :func:`codistill.kernels.sparse_kd_loss` is told besides tensors, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SparseKd:
    """Temperature, weights of the two parts, and the label that stands for none."""

    temperature: float
    ce_weight: float
    kd_weight: float
    ignore_index: int
