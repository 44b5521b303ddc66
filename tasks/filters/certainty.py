"""Filters by how sure a row is of what it says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ..agent import Agent, Context
from ..knowledge import Rows
from ..late import late
from ..score import score
from .probabilities import Scored, confidence, probabilities
from .registry import FILTERS

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Share = Annotated[float, Field(gt=0, le=1)]


class Confidence(Scored):
    """Largest probability."""

    least: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="the largest probability is this or more"
    )
    quantile: Share | None = Field(None, description="the share of the rows that is kept: the most confident")

    @model_validator(mode="after")
    def _one_at_least(self) -> Confidence:
        if self.least is None and self.quantile is None:
            raise PydanticCustomError("no_threshold", "say `least`, `quantile` or both")
        return self


class Entropy(Scored):
    """Ambiguity."""

    share: Share = Field(0.5, description="the most entropy that a row may have, as a share of log(classes)")


class InDistribution(Scored):
    """IDKD."""

    needs_samples: ClassVar[bool] = True
    threshold: Literal["share", "roc"] = Field(
        "share",
        description="set so that a share of the private samples lies above it, or where private and public samples"
        " are told apart best",
    )
    share: Share = Field(0.95, description="of the agent's private samples that the threshold lets through")
    calibration: Annotated[int, Field(ge=1)] = Field(
        1000, description="the most private samples, and public ones, that the threshold is set with"
    )
    of: Literal["model", "companion"] = Field("model", description="which model the threshold is set for")
    temperature: Annotated[float, Field(gt=0)] = 1.0


@FILTERS.register("confidence", Confidence)
def confident(agent: Agent, rows: Rows, said: Confidence, context: Context) -> torch.Tensor:
    """Rows whose largest softmax probability is high enough (Hendrycks and Gimpel 2017).

    Of N rows that say something ``quantile`` keeps the ceil(quantile N) most confident; of equals the first.
    """
    sure = confidence(rows.values, said.scale)
    passes = ~sure.isnan()
    if said.quantile is not None:
        kept = math.ceil(said.quantile * int(passes.sum()))
        order = torch.argsort(torch.where(passes, sure, -1.0), descending=True, stable=True)
        passes[order[kept:]] = False
    if said.least is not None:
        passes &= sure >= said.least
    return passes


@FILTERS.register("entropy", Entropy)
def entropy(agent: Agent, rows: Rows, said: Entropy, context: Context) -> torch.Tensor:
    """Rows that are not ambiguous: entropy at most a share of log C (Selective-FD's server, Shao et al. 2024).

    The server drops ensemble predictions on which its clients contradict one another, which have a high entropy.
    """
    made = probabilities(rows.values, said.scale)
    ambiguity: torch.Tensor = torch.special.entr(made).sum(1)
    return ambiguity <= said.share * math.log(made.shape[1])


@FILTERS.register("in_distribution", InDistribution)
def in_distribution(agent: Agent, rows: Rows, said: InDistribution, context: Context) -> torch.Tensor:
    """Rows as confident as the agent's model is on its own samples: IDKD's gate (Ravikumar et al. 2024).

    The threshold on the largest softmax probability is set by the agent's model, on its own samples: the highest one
    that at least ``share`` of them reach. With ``roc`` it is where true positives (private samples that reach it) less
    false positives (public ones) are most, the highest of equals: Youden's index on the ROC.

    Raises ``ValueError`` where the agent has no private samples or no such model.
    """
    if not agent.samples or said.of not in agent.models:
        raise ValueError(
            f"{agent.name}: the filter in_distribution sets its threshold by the agent's own samples and model"
            " and there are none; use it where learners filter"
        )
    private = _own_confidence(agent, "private", agent.train_ids, said, context)
    if said.threshold == "roc":
        threshold = _best_apart(private, _own_confidence(agent, "public", context.world.public, said, context))
    else:
        threshold = private.sort(descending=True).values[math.ceil(said.share * len(private)) - 1]
    return confidence(rows.values, said.scale, said.temperature) >= threshold


def _own_confidence(
    agent: Agent, which: str, ids: torch.Tensor, said: InDistribution, context: Context
) -> torch.Tensor:
    """Return the model's largest probability, float64 [N], on ``ids`` or, of many, on some that are drawn."""
    if len(ids) > said.calibration:
        generator = agent.stream(context, "in_distribution", which)
        ids = ids[torch.randperm(len(ids), generator=generator)[: said.calibration]]
    if not len(ids):
        return torch.zeros(0, dtype=torch.float64)
    return confidence(score(agent.models[said.of], context.world.x_train, ids), "logits", said.temperature)


def _best_apart(inside: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Return the score at which the share of ``inside`` at or above it exceeds that of ``outside`` most."""
    candidates = torch.unique(torch.cat([inside, outside])).flip(0)
    shares = [
        (len(scores) - torch.searchsorted(scores.sort().values, candidates)).double() / max(len(scores), 1)
        for scores in (inside, outside)
    ]
    best: torch.Tensor = candidates[(shares[0] - shares[1]).argmax()]
    return best
