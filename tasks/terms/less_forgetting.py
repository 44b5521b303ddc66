"""The term ``less_forgetting``: what the model said of its own samples when the round began stays near (FedAL)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..agent import Agent, Context
from ..late import late
from ..parameters import Parameters
from ..score import score
from .registry import TERMS, Batch, Term, Weight

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")


class LessForgetting(Parameters):
    """FedAL."""

    forgetting_weight: Weight = Field(0.1, description="weight of the divergence from what the model said before")
    temperature: Annotated[float, Field(gt=0)] = 1.0


@TERMS.register("less_forgetting", LessForgetting)
def less_forgetting(agent: Agent, parameters: LessForgetting, context: Context) -> Term:
    """Distils what the model said of its samples when the training began, all classes (Han et al. 2024)."""
    world, model = context.world, agent.network()
    before = torch.full((len(world.y_train), world.classes), float("nan"))
    before[agent.train_ids] = score(model, world.x_train, agent.train_ids)
    model.train()

    def loss(batch: Batch) -> torch.Tensor:
        divergence = losses.kl_divergence(batch.logits, before[batch.ids], parameters.temperature)
        return divergence * parameters.forgetting_weight

    return Term(loss)
