"""The operation ``absorb``: knowledge that was received changes a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from .agent import Agent, Context
from .bridge import BridgeSamples, bridge_samples
from .choice import tagged
from .knowledge import Knowledge, Models, Rows, aligned
from .late import late
from .mutual_absorb import MutualLearning, mutual
from .optimizers import Optimizer, Steps
from .parameters import Step
from .registry import Registry
from .train import batches

if TYPE_CHECKING:
    import torch

    from ..kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")

ABSORBS: Registry[Callable[..., None]] = Registry("absorbs")


class Replace(Step):
    """Parameters take the place of the model's own."""

    of: Literal["model", "companion"] = Field("model", description="the agent's own model, or its companion")


class Distil(Step):
    """A student learns the received scores."""

    loss: Literal["kl", "soft_cross_entropy", "mse", "l1"] = Field(
        "kl", description="kl, mse and l1 take logits; soft_cross_entropy takes probabilities"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="of kl alone; the loss is scaled by T squared")
    kd_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the loss")
    on: Literal["public"] = Field("public", description="the samples that the scores are for")
    epochs: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] = 32
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("sgd"), description="made anew each round"
    )


@ABSORBS.register("replace", Replace)
def replace(agent: Agent, received: Knowledge, said: Replace, context: Context) -> None:
    """The received parameters of the agent's architecture take the place of its own."""
    assert isinstance(received, Models)
    identity = agent.architectures[said.of].name
    if identity in received.tensors:
        agent.models[said.of].load_state_dict(received.tensors[identity])


@ABSORBS.register("distil", Distil)
def distil(agent: Agent, received: Knowledge, said: Distil, context: Context) -> None:
    """The model learns the received scores of public samples."""
    assert isinstance(received, Rows)
    world, model = context.world, agent.models["model"]
    model.train()
    steps = Steps(said.optimizer, model.parameters())
    for epoch in range(said.epochs):
        order = batches(received.ids, said.batch, False, agent.stream(context, "absorb", epoch))
        for ids in order:
            target = received.values[aligned(received, ids)]
            loss = _distance(said, model(world.x_train[ids]), target)
            steps.down(loss)


def _distance(said: Distil, given: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    match said.loss:
        case "kl":
            loss = losses.kl_divergence(given, target, said.temperature)
        case "soft_cross_entropy":
            loss = losses.soft_cross_entropy(given, target)
        case "mse":
            loss = losses.logit_distance(given, target)
        case "l1":
            loss = losses.logit_distance(given, target, power=1)
    return loss * said.kd_weight


ABSORBS.register("mutual", MutualLearning)(mutual)
ABSORBS.register("bridge_samples", BridgeSamples)(bridge_samples)

from . import transfer  # noqa: E402, F401  # it enters its way to absorb

Absorb: Any = tagged("Absorb", ABSORBS, "by")


def absorb(agent: Agent, parameters: Any, context: Context) -> None:
    """An agent's model changes by what the agent received."""
    received = agent.memory.recall("working", "received")
    if received is not None:
        ABSORBS[parameters.by].function(agent, received, parameters, context)
