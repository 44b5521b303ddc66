"""Terms by which a model and its companion learn from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..agent import Agent, Context
from ..late import late
from ..parameters import Parameters
from .registry import TERMS, Batch, Pair, Term, Weight

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")


class Mutual(Parameters):
    """FML."""

    needs_companion: ClassVar[bool] = True
    kd_weight: Weight = Field(0.5, description="weight of KL(companion || model) in the model's loss")
    companion_ce_weight: Weight = Field(0.5, description="weight of cross entropy in the companion's loss")
    companion_kd_weight: Weight = Field(0.5, description="weight of KL(model || companion) in the companion's loss")
    temperature: Annotated[float, Field(gt=0)] = 1.0


class AdaptiveMutual(Parameters):
    """FedKD (Wu et al. 2022)."""

    needs_companion: ClassVar[bool] = True
    kd_weight: Weight = Field(1.0, description="weight of both KL terms before they are divided by the task losses")
    hidden_weight: Weight = Field(1.0, description="weight of the distance between mapped hidden features")


@TERMS.register("mutual", Mutual)
def mutual(agent: Agent, parameters: Mutual, context: Context) -> Term:
    """The model and its shared companion learn from the labels and from each other (Shen et al. 2020, eq. 3-4)."""
    companion = agent.network("companion").train()

    def of_model(logits: torch.Tensor, given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return losses.kl_divergence(logits, given, parameters.temperature) * parameters.kd_weight

    def of_companion(logits: torch.Tensor, given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        task = torch.nn.functional.cross_entropy(logits, y) * parameters.companion_ce_weight
        return task + losses.kl_divergence(logits, given, parameters.temperature) * parameters.companion_kd_weight

    def loss(batch: Batch) -> torch.Tensor:
        other = companion(batch.x)
        mine = of_model(batch.logits, other.detach(), batch.y)
        return mine + of_companion(other, batch.logits.detach(), batch.y)

    return Term(loss, list(companion.parameters()), Pair(of_model, of_companion))


@TERMS.register("adaptive_mutual", AdaptiveMutual)
def adaptive_mutual(agent: Agent, parameters: AdaptiveMutual, context: Context) -> Term:
    """Mutual distillation of logits and features, weaker where both are still wrong (Wu et al. 2022, eq. 1-6)."""
    companion = agent.network("companion").train()
    own, other = (agent.architectures[name].features for name in ("model", "companion"))
    mapping = agent.module("hidden_map", context, lambda: torch.nn.Linear(other, own, bias=False))

    def loss(batch: Batch) -> torch.Tensor:
        features = companion.body(batch.x)
        logits = companion.head(features)
        task = torch.nn.functional.cross_entropy(logits, batch.y)
        divergence = losses.kl_divergence(batch.logits, logits.detach()) + losses.kl_divergence(
            logits, batch.logits.detach()
        )
        hidden = losses.feature_distance(batch.features, mapping(features))
        certainty = (batch.cross_entropy + task).detach()
        shared = divergence * parameters.kd_weight + hidden * parameters.hidden_weight
        return task + shared / certainty

    return Term(loss, [*companion.parameters(), *mapping.parameters()])
