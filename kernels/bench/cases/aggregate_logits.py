"""``aggregate_logits``: the mean probabilities of K clients, plain and by their entropies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ...aggregate import aggregate_logits
from ..case import EAGER, OURS, Case, Outputs, Prepared, back_ends, drawn

TEMPERATURE = 2.0

Mean = Callable[[list[torch.Tensor]], torch.Tensor]


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield few and many clients."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    large = 8192 if device.type == "cuda" else 256
    for rows, classes in [(4096, 1000)] if quick else [(4096, 1000), (large, 32000)]:
        for rule in ("mean", "entropy"):
            yield Case(
                "aggregate_logits",
                f"{rows}x{classes} K=4 {rule}",
                dtype,
                rows * classes * (4 * dtype.itemsize + 4),
                1e-5,
                partial(prepare, device, dtype, rows, classes, rule),
            )


def prepare(device: torch.device, dtype: torch.dtype, rows: int, classes: int, rule: str) -> Prepared:
    """Draw the logits of four clients."""
    clients = [drawn(device, dtype, rows, classes, seed=seed, spread=3) for seed in range(4)]
    eager = plain if rule == "mean" else by_entropy

    def one(mean: Mean) -> Outputs:
        return (mean(clients),)

    def ours(name: str) -> Outputs:
        return (
            aggregate_logits(
                clients, by="mean" if rule == "mean" else "entropy", temperature=TEMPERATURE, backend=name
            ),
        )

    providers = {f"{OURS}{name}": partial(ours, name) for name in back_ends(device)}
    providers |= {EAGER: partial(one, eager), "torch.compile": partial(one, torch.compile(eager, dynamic=False))}
    return Prepared(providers, lambda: (eager([client.double() for client in clients]),))


def _softmax(client: torch.Tensor) -> torch.Tensor:
    return torch.softmax((client if client.dtype == torch.float64 else client.float()) / TEMPERATURE, -1)


def plain(clients: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean of the clients' probabilities."""
    return torch.stack([_softmax(client) for client in clients]).mean(0)


def by_entropy(clients: list[torch.Tensor]) -> torch.Tensor:
    """Return their mean with weights exp(-entropy)."""
    each = torch.stack([_softmax(client) for client in clients])
    weights = torch.exp((each * each.clamp_min(1e-37).log()).sum(-1))
    return (each * (weights / weights.sum(0))[..., None]).sum(0)
