"""Filters against broken and poisoned knowledge: what is not a number, and what is far too large."""

from __future__ import annotations

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


class Finite(Parameters):
    """Numbers."""


class Magnitude(Parameters):
    """Size."""

    limit: Annotated[float, Field(gt=0)] | None = Field(
        1e4, description="the largest absolute value that a row may hold; null for none"
    )
    times: Annotated[float, Field(gt=0)] | None = Field(
        None, description="also at most so many times what the contributor in the middle says"
    )


@FILTERS.register("finite", Finite)
def finite(agent: Agent, rows: Rows, said: Finite, context: Context) -> torch.Tensor:
    """Rows whose values, keys and weights hold neither NaN nor infinity."""
    passes = sound(rows.values) & rows.weights.isfinite()
    return passes if rows.keys is None else passes & sound(rows.keys)


@FILTERS.register("magnitude", Magnitude)
def magnitude(agent: Agent, rows: Rows, said: Magnitude, context: Context) -> torch.Tensor:
    """Rows whose largest absolute value is within a limit, or within some times what others' are.

    ``times`` compares with the median over contributors of each one's median largest absolute value; of two in the
    middle the lower counts, so that one poisoned contributor of two does not set the measure. Rows that say of none
    whose they are count as one contributor's. A row with NaN passes neither; what is not finite sets no measure.
    """
    largest = rows.values.double().abs().flatten(1).amax(1) if rows.items else torch.zeros(0, dtype=torch.float64)
    passes = ~largest.isnan()
    if said.limit is not None:
        passes &= largest <= said.limit
    if said.times is not None:
        owners = torch.zeros_like(rows.ids) if rows.owners is None else rows.owners
        there = largest.isfinite()
        usual = [largest[there & (owners == owner)].median() for owner in torch.unique(owners[there])]
        passes &= largest <= said.times * (torch.stack(usual).median() if usual else 0.0)
    return passes
