"""What private steps have cost: epsilon at delta, by Renyi differential privacy (Mironov 2017).

An agent counts its private steps in procedural memory, so that a resumed run goes on counting where it stopped. Two
data sets are neighbours if one has one sample more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from .knowledge import Rows
from .late import late

if TYPE_CHECKING:
    import torch

    from .agent import Agent
else:
    torch = late("torch")

ORDERS = (*(order / 10 for order in range(20, 110)), *range(11, 64), 128, 256, 512)
"""Renyi orders that are tried. Below 2 the package's series for small samples does not converge, and it says so."""

KEY = "private steps"
"""What the count is called in procedural memory."""


@dataclass(frozen=True)
class Spent:
    """``steps`` noisy steps of one kind: noise in units of the clipping norm, and each sample's chance to be in one."""

    noise: float
    rate: float
    steps: int


def epsilon(spent: Sequence[Spent], delta: float) -> float:
    """Return epsilon at ``delta`` of all steps in ``spent`` together; infinite where one is without noise.

    Each step is the Gaussian mechanism on a Poisson sample (Mironov et al. 2019). Raises ``ModuleNotFoundError``
    where the package dp-accounting is not installed.
    """
    try:
        privacy = import_module("dp_accounting")
    except ModuleNotFoundError as error:
        message = "epsilon is computed by the package dp-accounting: pip install 'codistill[privacy]'"
        raise ModuleNotFoundError(message) from error
    accountant = privacy.rdp.RdpAccountant(list(ORDERS))
    for one in spent:
        event = privacy.PoissonSampledDpEvent(one.rate, privacy.GaussianDpEvent(one.noise))
        accountant.compose(event, one.steps)
    return float(accountant.get_epsilon(delta))


def count(agent: Agent, spent: Spent, delta: float, round: int) -> None:
    """Add steps to those that ``agent`` has on its account."""
    kinds = torch.tensor([[spent.noise, spent.rate, delta]], dtype=torch.float32)
    steps = torch.tensor([spent.steps], dtype=torch.float64)
    before = agent.memory.recall("procedural", KEY)
    if isinstance(before, Rows):
        same = (before.values == kinds).all(1)
        if same.any():
            kinds, steps = before.values, before.weights + same * steps
        else:
            kinds, steps = torch.cat([before.values, kinds]), torch.cat([before.weights, steps])
    held = Rows("statistics", torch.arange(len(kinds)), kinds, steps, float(agent.samples))
    agent.memory.hold("procedural", KEY, held, round)


def steps_on_account(agent: Agent) -> list[Spent]:
    """Return the private steps that the agent has taken so far, by kind."""
    held = agent.memory.recall("procedural", KEY)
    return account_of(held)[0] if isinstance(held, Rows) else []


def account_of(held: Rows) -> tuple[list[Spent], float]:
    """Return the private steps in what is held under :data:`KEY`, by kind, and the smallest delta that they named."""
    rows = zip(held.values.double().tolist(), held.weights.tolist(), strict=True)
    return [Spent(noise, rate, round(steps)) for (noise, rate, _), steps in rows], float(
        held.values[:, 2].double().min()
    )


def epsilon_spent(agent: Agent) -> float | None:
    """Return the epsilon that the agent has spent so far, at the smallest delta that its steps named; None if none.

    Whatever the agent sends on of the model that took the steps costs nothing more. Where that model learned from
    another of the agent's models that took plain steps (ProxyFL's proxy from the private model), this is how its
    authors count: what the other model has seen is taken for no part of the mechanism.
    """
    held = agent.memory.recall("procedural", KEY)
    return epsilon(*account_of(held)) if isinstance(held, Rows) else None
