"""Terms that keep a model near what it was, or what it said, when the round began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..agent import Agent, Context
from ..late import late
from ..parameters import Parameters
from .registry import TERMS, Batch, Term, Weight

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")


class Proximal(Parameters):
    """FedProx."""

    proximal_weight: Weight = Field(0.01, description="mu in mu / 2 ||w - w_received||^2")


class NotTrue(Parameters):
    """FedNTD."""

    kd_weight: Weight = Field(1.0, description="weight of the distillation term (beta in the paper)")
    temperature: Annotated[float, Field(gt=0)] = 1.0


@TERMS.register("proximal", Proximal)
def proximal(agent: Agent, parameters: Proximal, context: Context) -> Term:
    """Keeps the weights near those the round began with: mu / 2 ||w - w_received||^2 (Li et al. 2020, eq. 2)."""
    weights = list(agent.models["model"].parameters())
    anchors = [w.detach().clone() for w in weights]

    def loss(batch: Batch) -> torch.Tensor:
        distance = sum(((w - a).square().sum() for w, a in zip(weights, anchors, strict=True)), torch.zeros(()))
        return distance * (parameters.proximal_weight / 2)

    return Term(loss)


@TERMS.register("not_true", NotTrue)
def not_true(agent: Agent, parameters: NotTrue, context: Context) -> Term:
    """Distils what the model said of the wrong classes when the round began (Lee et al. 2022, eq. 6)."""
    world, model = context.world, agent.network()
    said = torch.full((len(world.y_train), world.classes), float("nan"))
    model.eval()
    with torch.no_grad():
        for ids in agent.train_ids.split(512):
            said[ids] = model(world.x_train[ids])
    model.train()

    def loss(batch: Batch) -> torch.Tensor:
        divergence = losses.not_true_divergence(batch.logits, said[batch.ids], batch.y, parameters.temperature)
        return divergence * parameters.kd_weight

    return Term(loss)
