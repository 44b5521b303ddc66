"""Terms that pull an agent toward what it recalls of each sample's class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

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


class ClassLogits(Parameters):
    """FD."""

    recalls: ClassVar[str] = "class_logits"
    kd_weight: Weight = Field(1.0, description="weight of the distillation term")


class Prototypes(Parameters):
    """FedProto."""

    recalls: ClassVar[str] = "prototypes"
    prototype_weight: Weight = Field(1.0, description="weight of the mean squared distance to the class's prototype")


def _table(rows: Rows, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return dense [C, D] values and which classes are there, bool [C]."""
    dense = torch.zeros(classes, rows.values.shape[1])
    dense[rows.ids] = rows.values
    there = torch.zeros(classes, dtype=torch.bool)
    there[rows.ids] = True
    return dense, there


def _toward(
    agent: Agent,
    form: str,
    context: Context,
    weight: float,
    given: Callable[[Batch], torch.Tensor],
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Term | None:
    """Return the term that pulls what is ``given`` toward the recalled row of the label's class.

    ``prepare`` makes targets of the recalled rows [C, D], once a round.
    Samples of a class that was not received are left out. None where nothing of ``form`` was recalled.
    """
    recalled = agent.memory.recall("working", form)
    if not isinstance(recalled, Rows) or not recalled.items:
        return None
    targets, there = _table(recalled, context.world.classes)
    targets = targets if prepare is None else prepare(targets)
    complete = bool(there.all())

    def loss(batch: Batch) -> torch.Tensor:
        mine, y = given(batch), batch.y
        if not complete:
            known = there[y]
            if not known.any():
                return mine.sum() * 0
            mine, y = mine[known], y[known]
        return distance(mine, targets[y]) * weight

    return Term(loss)


@TERMS.register("class_logits", ClassLogits)
def class_logits(agent: Agent, parameters: ClassLogits, context: Context) -> Term | None:
    """Cross entropy to the softmax of the recalled mean logits of the label's class (Jeong et al. 2018)."""
    return _toward(
        agent,
        "class_logits",
        context,
        parameters.kd_weight,
        lambda batch: batch.logits,
        losses.soft_cross_entropy,
        lambda means: torch.softmax(means, dim=1),
    )


@TERMS.register("prototypes", Prototypes)
def prototypes(agent: Agent, parameters: Prototypes, context: Context) -> Term | None:
    """Mean squared distance from features to the recalled prototype of the label's class (Tan et al. 2022, eq. 7)."""
    weight = parameters.prototype_weight
    return _toward(agent, "prototypes", context, weight, lambda batch: batch.features, losses.feature_distance)
