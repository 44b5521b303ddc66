"""Means over seeds with Student's 95 % intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over so many runs; `half_width` is that of its 95 % interval, or `None` where one run gives none."""

    mean: float
    half_width: float | None
    count: int


def student_quantile(degrees: int) -> float:
    """Give the factor of a two-sided 95 % interval with so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def estimate(values: Sequence[float]) -> Estimate | None:
    """Give the mean of some values and its interval; `None` for no values."""
    count = len(values)
    if count == 0:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, student_quantile(count - 1) * math.sqrt(variance / count), count)


def paired(values: Mapping[int, float], against: Mapping[int, float]) -> Estimate | None:
    """Give the mean difference over the seeds that both have; `None` where they have none in common."""
    return estimate([values[seed] - against[seed] for seed in sorted(values) if seed in against])
