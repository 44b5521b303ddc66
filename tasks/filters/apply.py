"""Filters one after another, and what each of them turned away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..agent import Agent, Context
from ..choice import Choice, choice
from ..knowledge import Rows
from . import agreement, certainty, density, soundness  # noqa: F401  entered before they are chosen from
from .registry import FILTERS

FilterChoice = choice("Filter", FILTERS, "which rows of knowledge may pass")


@dataclass(frozen=True)
class Filtered:
    """``rows`` that passed every filter, and how many rows each filter turned away, by its name, in order."""

    rows: Rows
    dropped: dict[str, int]


def apply_filters(agent: Agent, rows: Rows, chosen: Sequence[Choice], context: Context) -> Filtered:
    """Return the rows that pass every filter, each filter looking at what the one before let through.

    Where all pass, the very same rows come back. A filter that is named twice is counted once, with both its counts.
    """
    dropped: dict[str, int] = {}
    for one in chosen:
        passes = FILTERS[one.name].function(agent, rows, one.parameters, context)
        turned_away = int((~passes).sum())
        dropped[one.name] = dropped.get(one.name, 0) + turned_away
        if turned_away:
            rows = rows.part(passes)
    return Filtered(rows, dropped)
