"""What is measured of an agent: its model on its own cut of the test set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .agent import Agent, Context
from .knowledge import Rows
from .late import late
from .parameters import Parameters
from .registry import Registry
from .score import score

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class Nothing(Parameters):
    """Nothing to choose."""


METRICS: Registry[Callable[[torch.Tensor, torch.Tensor, int], float]] = Registry("metrics")


@METRICS.register("accuracy", Nothing)
def accuracy(scores: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Share of samples whose largest score is their label's."""
    return (scores.argmax(1) == labels).sum().item() / len(labels)


@METRICS.register("cross_entropy", Nothing)
def cross_entropy(scores: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Mean negative log probability of the label, in nats."""
    return torch.nn.functional.cross_entropy(scores.double(), labels).item()


@METRICS.register("macro_f1", Nothing)
def macro_f1(scores: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """F1 of each class that the agent's test samples have, averaged."""
    said = scores.argmax(1)
    both = torch.bincount(labels[said == labels], minlength=classes).double()
    total = (torch.bincount(said, minlength=classes) + torch.bincount(labels, minlength=classes)).double()
    present = torch.bincount(labels, minlength=classes) > 0
    return (2 * both[present] / total[present]).mean().item()


def measure(agent: Agent, metrics: list[str], predict: str, context: Context) -> dict[str, float]:
    """Return each metric of the agent's model on its test ids.

    ``predict``: ``classifier`` reads the model's logits, ``prototypes`` takes the nearest class prototype that the
    agent holds in semantic memory (FedProto's inference), or the logits until it holds any.
    """
    world = context.world
    held = agent.memory.recall("semantic", "prototypes") if predict == "prototypes" else None
    if isinstance(held, Rows) and held.items:
        scores = _nearness(agent, held, context)
    else:
        scores = score(agent.models["model"], world.x_test, agent.test_ids)
    labels = world.y_test[agent.test_ids]
    return {name: METRICS[name].function(scores, labels, world.classes) for name in metrics}


def _nearness(agent: Agent, held: Rows, context: Context) -> torch.Tensor:
    world, model = context.world, agent.network().eval()
    with torch.no_grad():
        features = torch.cat([model.body(world.x_test[ids]) for ids in agent.test_ids.split(512)])
    scores = torch.full((len(features), world.classes), float("-inf"))
    scores[:, held.ids] = -torch.cdist(features, held.values)
    return scores
