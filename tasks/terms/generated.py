"""The term ``generated``: local training that a generator of features takes part in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import GENERATOR, Models
from ..late import late
from ..parameters import Parameters
from .registry import TERMS, Batch, Term, Weight

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")


class Generated(Parameters):
    """FedGen."""

    recalls: ClassVar[str] = "parameters"

    generated_ce_weight: Weight = Field(10.0, description="weight of the head's cross entropy on generated features")
    kd_weight: Weight = Field(
        10.0, description="weight of KL(what the head says of generated features of the label || the model)"
    )
    batch: Annotated[int, Field(ge=1)] = Field(32, description="generated features a step")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(0.98, description="both weights shrink by this each round")
    classes: Literal["evenly", "by_count"] = Field(
        "evenly", description="classes are drawn evenly among those that anybody has, or as often as agents have them"
    )


@TERMS.register("generated", Generated)
def generated(agent: Agent, parameters: Generated, context: Context) -> Term | None:
    """The head learns classes that the agent has no samples of from generated features (Zhu et al. 2021, eq. 5)."""
    recalled = agent.memory.recall("working", "parameters")
    if not isinstance(recalled, Models) or GENERATOR not in recalled.tensors:
        return None
    from ..generator import chances, feature_generator_from

    classes, model = context.world.classes, agent.network()
    generator = feature_generator_from(recalled.tensors[GENERATOR], classes)
    counts = recalled.labels.get(GENERATOR)
    if counts is None:
        raise ValueError(f"{agent.name}: the generator came without class counts; `by: feature_generator` sends them")
    chance = chances(counts, parameters.classes)
    stream = agent.stream(context, "generated")
    fading = parameters.decay ** (context.round - 1)

    def loss(batch: Batch) -> torch.Tensor:
        drawn = torch.multinomial(chance, parameters.batch, replacement=True, generator=stream)
        labels = torch.cat((batch.y, drawn))
        with torch.no_grad():
            features = generator(labels, torch.rand(len(labels), generator.noise, generator=stream))
            same_class = model.head(features[: len(batch.y)])
        task = torch.nn.functional.cross_entropy(model.head(features[len(batch.y) :]), drawn)
        divergence = losses.kl_divergence(batch.logits, same_class)
        return (task * parameters.generated_ce_weight + divergence * parameters.kd_weight) * fading

    return Term(loss)
