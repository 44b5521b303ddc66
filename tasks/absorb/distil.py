"""The absorption ``distil``: a student learns received scores of public samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..knowledge import Knowledge, Rows, aligned
from ..late import late
from ..optimizers import Optimizer, Steps
from ..parameters import Step
from .registry import ABSORBS

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    losses = late("codistill.kernels.losses")


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
