"""Absorbing by mutual learning: received models visit, and they and the agent's own learn from each other.

Registered as ``absorb: {by: mutual}`` in :mod:`.absorb`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..knowledge import Knowledge, Models
from ..late import late
from ..optimizers import Optimizer, Steps
from ..parameters import Parameters, Step
from ..score import score
from ..streams import torch_stream
from .registry import ABSORBS

if TYPE_CHECKING:
    import torch

    from ...kernels import ensembles, losses
    from ..networks import Network
else:
    torch = late("torch")
    ensembles = late("codistill.kernels.ensembles")
    losses = late("codistill.kernels.losses")

PEAK = "peak model"
"""What the best model so far is called in procedural memory."""

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Cyclic(Parameters):
    """Supervision and distillation take turns over the rounds (Khalil et al. 2024)."""

    period: Annotated[int, Field(ge=2)] = Field(10, description="rounds from one low to the next")
    low: Share = Field(0.0, description="least share of distillation, in rounds 1, 1 + period, ...")
    high: Share = Field(1.0, description="largest share, half a period later")

    def share(self, round: int) -> float:
        """Return the share of distillation in ``round``, from 1: a raised cosine."""
        turn = (1 - math.cos(2 * math.pi * (round - 1) / self.period)) / 2
        return self.low + (self.high - self.low) * turn


class MutualLearning(Step):
    """Deep mutual learning (Zhang et al. 2018)."""

    epochs: Annotated[int, Field(ge=1)] = Field(1, description="passes over the agent's own samples")
    batch: Annotated[int, Field(ge=1)] = 32
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("sgd"), description="made anew each round"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="of KL; the loss is scaled by T squared")
    ce_weight: Weight = Field(1.0, description="weight of the loss of the labels in every model's loss")
    kd_weight: Weight = Field(1.0, description="weight of the KL from the other models in every model's loss")
    kd_schedule: Cyclic | None = Field(
        None, description="share of distillation by round: a ce_weight (1 - a) and a kd_weight a; both whole if none"
    )
    supervision: Literal["cross_entropy", "weighted_softmax"] = Field(
        "cross_entropy",
        description="loss of the labels; weighted_softmax weighs each class in the softmax by its share of the "
        "agent's samples (Legate et al. 2023)",
    )
    keep: Literal["own", "visitor", "mean"] = Field(
        "own",
        description="which model the agent has afterwards: its own, the visitor of its architecture, or their mean by "
        "samples; its own where none of its architecture came",
    )
    keep_peak: bool = Field(
        False, description="go back to the best model so far where the new one is worse on samples held out"
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="share of the agent's samples that is held out of mutual learning, with keep_peak alone"
    )


@ABSORBS.register("mutual", MutualLearning)
def mutual(agent: Agent, received: Knowledge, said: MutualLearning, context: Context) -> None:
    """The received models and the agent's own learn from its samples and from each other, step by step."""
    assert isinstance(received, Models)
    if not received.tensors or not agent.samples:
        return
    ids, judges = _parted(agent, said, context)
    own, visitors = agent.network(), _visitors(received, context)
    _learn(agent, [own, *visitors.values()], list(received.samples_by.values()), ids, said, context)
    identity = agent.architectures["model"].name
    if identity in visitors:
        _keep(said.keep, own, visitors[identity], (float(agent.samples), received.samples_by[identity]))
    if len(judges):
        _remember_the_best(agent, judges, context)


def _parted(agent: Agent, said: MutualLearning, context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids to learn from and those held out, the same in every round; at least one to learn from."""
    ids = agent.train_ids
    out = min(math.ceil(said.held_out * len(ids)), len(ids) - 1) if said.keep_peak else 0
    order = torch.randperm(len(ids), generator=torch_stream(context.seed, "agent", agent.name, "held out"))
    return ids[order[out:].sort().values], ids[order[:out].sort().values]


def _visitors(received: Models, context: Context) -> dict[str, Network]:
    from ..networks import build

    known = context.world.architectures
    made = {identity: build(known[identity], torch.Generator().manual_seed(0)) for identity in received.tensors}
    for identity, network in made.items():
        network.load_state_dict(received.tensors[identity])
    return made


def _learn(
    agent: Agent,
    networks: Sequence[Network],
    samples: Sequence[float],
    ids: torch.Tensor,
    said: MutualLearning,
    context: Context,
) -> None:
    """Train all ``networks``, the agent's own first; ``samples``: the training samples behind each of the others."""
    world = context.world
    share = None if said.kd_schedule is None else said.kd_schedule.share(context.round)
    ce_weight = said.ce_weight * (1.0 if share is None else 1.0 - share)
    kd_weight = said.kd_weight * (1.0 if share is None else share)
    priors = _priors(world.y_train[agent.train_ids], world.classes) if said.supervision == "weighted_softmax" else None
    behind = [float(agent.samples), *samples]
    for network in networks:
        network.train()
    steps = Steps(said.optimizer, [weight for network in networks for weight in network.parameters()])
    for epoch in range(said.epochs):
        for chosen in batches(ids, said.batch, False, agent.stream(context, "absorb", epoch)):
            x, y = world.x_train[chosen], world.y_train[chosen]
            answers = [network(x) for network in networks]
            loss = torch.zeros(())
            for index, logits in enumerate(answers):
                weighed = logits if priors is None else logits + priors
                loss = loss + torch.nn.functional.cross_entropy(weighed, y) * ce_weight
                others = [other for other in range(len(answers)) if other != index]
                total = sum(behind[other] for other in others)
                for other in others:
                    apart = losses.kl_divergence(logits, answers[other].detach(), said.temperature)
                    loss = loss + apart * (kd_weight * behind[other] / total)
            steps.down(loss)


def _priors(y: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the logarithm of each class's share of labels ``y`` [N]: float32 [C], minus infinity for no sample.

    Added to logits they weigh the classes within the softmax (Legate et al. 2023, eq. 2).
    """
    counts = torch.bincount(y, minlength=classes).double()
    return (counts / counts.sum()).log().float()


def _keep(keep: str, own: Network, visitor: Network, samples: tuple[float, float]) -> None:
    if keep == "own":
        return
    state, visiting = own.state_dict(), visitor.state_dict()
    if keep == "mean":
        visiting = {name: ensembles.weighted_mean([state[name], visiting[name]], list(samples)) for name in state}
    own.load_state_dict(visiting)


def _remember_the_best(agent: Agent, judges: torch.Tensor, context: Context) -> None:
    """Keep the model if it is as good on ``judges`` as the best so far; else go back to that one."""
    network, identity = agent.network(), agent.architectures["model"].name
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    peak = agent.memory.recall("procedural", PEAK)
    if isinstance(peak, Models):
        reached = _right(network, judges, context)
        network.load_state_dict(peak.tensors[identity])
        if reached < _right(network, judges, context):
            return
        network.load_state_dict(state)
    held = Models({identity: state}, {identity: float(agent.samples)})
    agent.memory.hold("procedural", PEAK, held, context.round)


def _right(network: Network, ids: torch.Tensor, context: Context) -> int:
    answers = score(network, context.world.x_train, ids).argmax(1)
    return int((answers == context.world.y_train[ids]).sum())
