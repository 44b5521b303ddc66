"""The operation ``aggregate``: what several agents say becomes one. Each rule has a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..agent import Agent, Context
from ..choice import tagged, when_asked
from ..knowledge import Knowledge
from . import adversarial, coefficients, cut, distilled, generators, merged, trainable_prototypes
from .door import Merge, admitted, selected
from .means import contribution, mean_of_models, mean_of_rows, without
from .registry import AGGREGATES

__all__ = [
    "AGGREGATES",
    "Aggregate",
    "Merge",
    "adversarial",
    "aggregate",
    "coefficients",
    "contribution",
    "cut",
    "distilled",
    "generators",
    "mean_of_models",
    "mean_of_rows",
    "merged",
    "trainable_prototypes",
    "without",
]

if TYPE_CHECKING:
    Aggregate: Any
else:
    __getattr__ = when_asked(Aggregate=lambda: tagged("Aggregate", AGGREGATES, "by"))


def aggregate(agent: Agent, packets: Sequence[Knowledge], parameters: Any, context: Context) -> Knowledge | None:
    """One piece of knowledge is made of what several agents say, in the order in which they were declared.

    None where nothing of it may be merged.
    """
    sound = admitted(agent, packets, parameters, context)
    if not sound:
        return None
    made = AGGREGATES[parameters.by].function(agent, sound, parameters, context)
    passed = selected(agent, made, parameters, context)
    return passed if passed.items else None
