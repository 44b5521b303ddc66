"""Terms of local training that read what is remembered of single samples, by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import Rows
from ..late import late
from ..parameters import Parameters
from .registry import TERMS, Batch, Term, Weight

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")


class SampleLogits(Parameters):
    """FedCache, FedGKT, FedAgg."""

    recalls: ClassVar[str] = "logits"
    scale: ClassVar[str] = "logits"
    kd_weight: Weight = Field(1.5, description="weight of the distillation term (alpha in FedCache)")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="of both; the term is scaled by T squared")


class PseudoLabels(Parameters):
    """IDKD."""

    recalls: ClassVar[str] = "logits"
    kd_weight: Weight = Field(1.0, description="weight of the term")
    batch: Annotated[int, Field(ge=1)] = Field(32, description="public samples beside each batch of the agent's own")
    scale: Literal["logits", "probabilities"] = Field("probabilities", description="of what is remembered")


@TERMS.register("sample_logits", SampleLogits)
def sample_logits(agent: Agent, parameters: SampleLogits, context: Context) -> Term | None:
    """KL from what is remembered of each sample to what the model says of it (Wu et al. 2024, FedCache, eq. 7).

    Samples that nothing is remembered of are left out; the mean is over the batch, as in the authors' code.
    """
    recalled = agent.memory.recall("working", "logits")
    if not isinstance(recalled, Rows) or not recalled.items:
        return None
    size = len(context.world.y_train)
    place = torch.full((size,), -1)
    place[recalled.ids] = torch.arange(recalled.items)
    values, complete = recalled.values, bool((place[agent.train_ids] >= 0).all())

    def loss(batch: Batch) -> torch.Tensor:
        at, mine = place[batch.ids], batch.logits
        if not complete:
            known = at >= 0
            if not known.any():
                return mine.sum() * 0
            share = known.sum() / len(at)
            kept = losses.kl_divergence(mine[known], values[at[known]], parameters.temperature)
            return kept * share * parameters.kd_weight
        return losses.kl_divergence(mine, values[at], parameters.temperature) * parameters.kd_weight

    return Term(loss)


@TERMS.register("pseudo_labels", PseudoLabels)
def pseudo_labels(agent: Agent, parameters: PseudoLabels, context: Context) -> Term | None:
    """Beside each batch, cross entropy to the remembered labels of public samples (IDKD, Ravikumar et al. 2024)."""
    recalled = agent.memory.recall("working", "logits")
    if not isinstance(recalled, Rows) or not recalled.items:
        return None
    world, model = context.world, agent.network()
    targets = recalled.values if parameters.scale == "probabilities" else torch.softmax(recalled.values, dim=1)
    generator = agent.stream(context, "pseudo labels")
    size = min(parameters.batch, recalled.items)

    def loss(batch: Batch) -> torch.Tensor:
        chosen = torch.randint(recalled.items, (size,), generator=generator)
        given = model(world.x_train[recalled.ids[chosen]])
        return losses.soft_cross_entropy(given, targets[chosen]) * parameters.kd_weight

    return Term(loss)
