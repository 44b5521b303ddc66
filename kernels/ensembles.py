"""What several agents say, made into one answer."""

from __future__ import annotations

import torch


def sharpened(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropy reduction of DS-FL (Itahara et al. 2021, eq. 9): softmax(p / T) of mean *probabilities*.

    ``probabilities`` [N, C] in any float dtype; T < 1 sharpens. The argument of the softmax is the probability
    itself, not its logarithm, as in the paper. Returns [N, C].
    """
    return torch.softmax(probabilities / temperature, dim=1)


def weighted_mean(values: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Sum of w_i v_i / sum of w_i over tensors of one shape, accumulated in place in the order given."""
    total = sum(weights)
    if total <= 0:
        raise ValueError("the weights of a mean must sum to more than zero")
    mean = torch.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):
        mean.add_(value, alpha=weight / total)
    return mean
