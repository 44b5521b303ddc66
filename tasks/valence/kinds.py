"""Ways to find out how much to make of each contributor, from what all of them say side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..agent import Agent, Context
from ..choice import Choice, choice
from ..filters.agreement import votes_of_others
from ..filters.probabilities import Scored, sound
from ..knowledge import Rows
from ..late import late
from ..parameters import Parameters
from ..registry import Registry
from .shapley import ballot_of, exact_shapley, sampled_shapley
from .shares import as_valence, mean_by_owner

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

VALENCES: Registry[Callable[..., Rows]] = Registry("valences")


class Valued(Parameters):
    """What every valence may say."""

    momentum: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="weight of what was made of each contributor before"
    )


class Similarity(Valued):
    """Cosine."""

    temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="of the softmax over contributors")


class Shapley(Valued, Scored):
    """KD3A."""

    gate: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="a vote counts where its confidence is above")
    exact: Annotated[int, Field(ge=0, le=16)] = Field(
        10, description="contributors up to which every coalition is counted; beyond, permutations are drawn"
    )
    permutations: Annotated[int, Field(ge=1)] = Field(200, description="permutations that are drawn beyond")


@VALENCES.register("agreement", Valued)
def agreement(agent: Agent, rows: Rows, said: Valued, context: Context, before: Rows | None = None) -> Rows:
    """The share of a contributor's rows whose largest class is what most of the others say of the id.

    No class may have more of the others' votes than the row's own, which needs one. Rows that nobody else has an id
    in common with do not count; a row that is not finite agrees with nobody.
    """
    votes = votes_of_others(rows)
    agrees = votes.speaks & (votes.same > 0) & (votes.same >= votes.rival)
    return as_valence(rows, mean_by_owner(rows, agrees.double(), votes.others > 0), said.momentum, before)


@VALENCES.register("similarity", Similarity)
def similarity(agent: Agent, rows: Rows, said: Similarity, context: Context, before: Rows | None = None) -> Rows:
    """softmax(c / temperature) of each contributor's mean cosine c between its rows and the mean of the others'.

    Rows that nobody else has an id in common with do not count. A row that is not finite has the cosine -1 and is
    nobody's other.
    """
    speaks = sound(rows.values)
    values = torch.where(speaks[:, None], rows.values.double(), 0.0)
    ids, at = torch.unique(rows.ids, return_inverse=True)
    sums = torch.zeros(len(ids), values.shape[1], dtype=torch.float64).index_add_(0, at, values)
    counts = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, at, speaks.double())
    # The direction of the others' sum is that of their mean.
    cosines = torch.cosine_similarity(values, sums[at] - values, dim=1, eps=1e-12)
    cosines = torch.where(speaks, cosines, -1.0)
    means = mean_by_owner(rows, cosines, counts[at] - speaks.double() > 0)
    return as_valence(rows, torch.softmax(means / said.temperature, dim=0), said.momentum, before)


@VALENCES.register("shapley", Shapley)
def shapley(agent: Agent, rows: Rows, said: Shapley, context: Context, before: Rows | None = None) -> Rows:
    """Each contributor's Shapley share of the quality of the vote: consensus focus (KD3A, Feng et al. 2021).

    The quality of a coalition is the sum over ids of the confidence that its knowledge vote ends with: of the members
    whose largest probability is above ``gate``, the largest sum of those probabilities that one class gathers.
    Up to ``exact`` contributors the shares are exact; beyond, means over ``permutations`` drawn from the agent's
    stream. A negative share counts as none.
    """
    ballot = ballot_of(rows, said.scale, said.gate)
    count = len(rows.contributors)
    if count <= said.exact:
        shares = exact_shapley(ballot, count)
    else:
        generator = agent.stream(context, "shapley")
        orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(said.permutations)])
        shares = sampled_shapley(ballot, orders)
    return as_valence(rows, shares.clamp(min=0), said.momentum, before)


ValenceChoice = choice("Valence", VALENCES, "how much an agent makes of what each contributor says")


def valence(agent: Agent, rows: Rows, chosen: Choice, context: Context, before: Rows | None = None) -> Rows:
    """Return how much ``agent`` makes of each contributor of ``rows``, which must say whose they are.

    The result has the form "valence": ids and owners arange(K), contributors those of ``rows`` in their order, values
    float32 [K, 1] that are at least 0 and sum to 1, weights ones. ``before`` is what was held of the same form.
    """
    made: Rows = VALENCES[chosen.name].function(agent, rows, chosen.parameters, context, before)
    return made
