"""The filter that asks the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import Rows
from ..late import late
from ..parameters import Parameters
from .probabilities import sound
from .registry import FILTERS

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class Agreement(Parameters):
    """Others."""

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="of the other owners of an id, those whose largest class is the row's"
    )


@FILTERS.register("agreement", Agreement)
def agreement(agent: Agent, rows: Rows, said: Agreement, context: Context) -> torch.Tensor:
    """Rows whose largest class enough other owners of the id name too (after the vote of KD3A, Feng et al. 2021).

    A row that nobody else has an id in common with passes. A row that is not finite has no vote and does not pass.
    """
    votes = votes_of_others(rows)
    return votes.speaks & ((votes.others == 0) | (votes.same / votes.others.clamp(min=1) >= said.share))


@dataclass(frozen=True)
class Votes:
    """What the other owners of each row's id say: ``others`` how many they are, ``same`` how many of them name the
    row's largest class, ``rival`` how many the most named other class; float64 [N] each.

    ``speaks``: rows that are finite, bool [N]. The others are nobody's others, and their own counts mean nothing.
    """

    same: torch.Tensor
    rival: torch.Tensor
    others: torch.Tensor
    speaks: torch.Tensor


def votes_of_others(rows: Rows) -> Votes:
    """Count for each row how the other owners of its id vote, each for its largest class."""
    speaks, named = sound(rows.values), rows.values.argmax(1)
    ids, at = torch.unique(rows.ids, return_inverse=True)
    counts = torch.zeros(len(ids), rows.values.shape[1], dtype=torch.float64)
    counts.index_put_((at[speaks], named[speaks]), torch.ones(int(speaks.sum())).double(), accumulate=True)
    counts = counts[at]
    others = counts.sum(1) - speaks.double()
    same = counts.gather(1, named[:, None])[:, 0] - 1
    return Votes(same, counts.scatter(1, named[:, None], 0.0).amax(1), others, speaks)
