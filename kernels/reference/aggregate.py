"""One step of ``aggregate_logits`` in readable torch: a running mean of what clients say, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..aggregate_settings import Aggregation
from .kd import accumulated, entropy


def aggregate_step(
    mean: torch.Tensor,
    log_weights: torch.Tensor,
    clients: Sequence[torch.Tensor],
    weights: torch.Tensor,
    settings: Aggregation,
    first: bool,
) -> None:
    """Add ``clients``, logits [N, V] each, to the running ``mean`` [N, V] of all before; ``first`` if there were none.

    ``weights`` are [K] or [N, K]. ``log_weights`` [N] is the logarithm of the sum of all weights so far. Both are
    float32 or float64, are overwritten, and need not be initialised where this is the first step.
    """
    given = weights.to(mean.dtype).expand(mean.shape[0], -1).log()
    running, total = mean, log_weights
    for number, client in enumerate(clients):
        value, bonus = contribution(accumulated(client).to(mean.dtype), settings)
        log_weight = torch.where(given[:, number] == -torch.inf, -torch.inf, given[:, number] + bonus)
        if first and number == 0:
            running, total = torch.zeros_like(mean), torch.full_like(log_weights, -torch.inf)
        after = torch.logaddexp(total, log_weight)
        running = part(running, total, after) + part(value, log_weight, after)
        total = after
    mean.copy_(running)
    log_weights.copy_(total)


def part(values: torch.Tensor, log_weight: torch.Tensor, log_total: torch.Tensor) -> torch.Tensor:
    """Return ``values`` [N, V] times their share of the weight; what has none counts for nothing, NaN included."""
    share = torch.where(log_weight == -torch.inf, 0.0, torch.exp(log_weight - log_total))[:, None]
    return torch.where(share == 0, 0.0, values * share)


def contribution(t: torch.Tensor, settings: Aggregation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a client's logits [N, V] add to the mean [N, V], and the logarithm of its own weights [N]."""
    log_p = torch.log_softmax(t / settings.temperature, 1)
    bonus = t.new_zeros(t.shape[0])
    if settings.by == "entropy":
        bonus = -entropy(log_p) / settings.entropy_temperature
    elif settings.by == "confidence":
        bonus = log_p.amax(1)
    if settings.space == "logits":
        return t, bonus
    if settings.by == "votes":
        columns = torch.arange(t.shape[1], device=t.device)
        hot = (columns == t.argmax(1)[:, None]).to(t.dtype)
        return torch.where(log_p.isnan().any(1, keepdim=True), torch.nan, hot), bonus
    return log_p.exp(), bonus
