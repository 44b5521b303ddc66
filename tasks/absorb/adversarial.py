"""The absorption ``adversarial``: learning a consensus while fooling a discriminator and forgetting little (FedAL)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..discriminator import unpacked
from ..knowledge import Knowledge, Rows, aligned
from ..late import late
from ..optimizers import Optimizer, Steps
from ..parameters import Step
from ..score import score
from .registry import ABSORBS

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")

Weight = Annotated[float, Field(ge=0)]


class AdversarialTransfer(Step):
    """FedAL."""

    kd_weight: Weight = Field(1.0, description="weight of the divergence from the consensus")
    adversarial_weight: Weight = Field(0.1, description="weight of the discriminator's error, which the model raises")
    forgetting_weight: Weight = Field(
        0.1, description="weight of the divergence from what the model said of the samples before"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="of both divergences, scaled by T squared")
    on: Literal["public"] = Field("public", description="the samples that the consensus is for")
    epochs: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] = 32
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("sgd"), description="made anew each round"
    )


@ABSORBS.register("adversarial", AdversarialTransfer)
def adversarial(agent: Agent, received: Knowledge, said: AdversarialTransfer, context: Context) -> None:
    """The model learns the consensus, hides from the discriminator whose it is, and keeps what it said before (FedAL).

    Han et al. 2024: the client's part of the min-max game, with less-forgetting regularisation. An agent that the
    discriminator does not know learns the consensus and keeps what it said.
    """
    assert isinstance(received, Rows)
    world, model = context.world, agent.models["model"]
    before = score(model, world.x_train, received.ids)
    error = _error(received, agent.name)
    model.train()
    steps = Steps(said.optimizer, model.parameters())
    for epoch in range(said.epochs):
        for ids in batches(received.ids, said.batch, False, agent.stream(context, "absorb", epoch)):
            at, mine = aligned(received, ids), model(world.x_train[ids])
            loss = losses.kl_divergence(mine, received.values[at], said.temperature) * said.kd_weight
            loss = loss + losses.kl_divergence(mine, before[at], said.temperature) * said.forgetting_weight
            if error is not None:
                loss = loss - error(mine) * said.adversarial_weight
            steps.down(loss)


def _error(received: Rows, name: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the discriminator's mean cross entropy on logits [B, C] of agent ``name``; None where it is unknown."""
    found = unpacked(received)
    if found is None or name not in found[1]:
        return None
    scores, place = found[0], found[1].index(name)

    def error(logits: torch.Tensor) -> torch.Tensor:
        own = torch.full((len(logits),), place)
        return torch.nn.functional.cross_entropy(scores(torch.softmax(logits, dim=1)), own)

    return error
