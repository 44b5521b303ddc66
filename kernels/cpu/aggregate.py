"""``aggregate_logits`` on a CPU: a client's step of the reference as one graph, compiled when it pays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..aggregate_settings import Aggregation
from ..reference.aggregate import aggregate_step as reference
from .compiled import compiled_when_it_pays, of_any_length


def one_graph(
    mean: torch.Tensor,
    log_weights: torch.Tensor,
    client: torch.Tensor,
    weights: torch.Tensor,
    by: str,
    space: str,
    numbers: Sequence[float | torch.Tensor],
) -> None:
    """Do what the reference does for one client who is not the first, and weights [N, 1].

    A number that is given as a tensor [] may be another one in the next call of the same graph.
    """
    temperature, entropy_temperature = cast(list[float], numbers)
    settings = Aggregation(by, space, temperature, entropy_temperature)
    reference(mean, log_weights, [client], weights, settings, False)


def aggregate_step(
    mean: torch.Tensor,
    log_weights: torch.Tensor,
    clients: Sequence[torch.Tensor],
    weights: torch.Tensor,
    settings: Aggregation,
    first: bool,
) -> None:
    """Do what :func:`codistill.kernels.reference.aggregate.aggregate_step` does, in the same graph for any K clients.

    A graph for all of them at once is no faster, and with entropy weights it is slower.
    """
    if first:
        mean.zero_()
        log_weights.fill_(-torch.inf)
    numbers = [settings.temperature, settings.entropy_temperature]
    weights = weights.expand(mean.shape[0], -1)
    for number, client in enumerate(clients):
        key = (settings.by, settings.space, mean.shape[1], mean.dtype, client.dtype, weights.dtype)
        do = compiled_when_it_pays(one_graph, mean.numel(), key)
        given = [mean, log_weights, client, weights[:, number : number + 1].contiguous()]
        with torch.no_grad():
            if do is one_graph:
                do(*given, settings.by, settings.space, numbers)
            else:
                tensors = [torch.tensor(n) for n in numbers]
                do(*[of_any_length(one) for one in given], settings.by, settings.space, tensors)
