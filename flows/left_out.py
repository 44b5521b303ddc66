"""Rounds that went on without agents whose site was away: the plan as it became."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .folder import RunFolder, replace_text
from .plan import Plan, RoundPlan
from .report.reading import read_json

LeftOut = Mapping[int, Sequence[int]]
"""By round, the places of those who were left out of it."""


def read_left_out(folder: RunFolder) -> dict[int, tuple[int, ...]]:
    """Return who was left out of the rounds of a run; nothing where nobody was."""
    return {int(number): tuple(places) for number, places in read_json(folder.left_out).items()}


def write_left_out(folder: RunFolder, left_out: LeftOut) -> None:
    """Write who was left out."""
    said = {str(number): sorted(places) for number, places in sorted(left_out.items()) if places}
    replace_text(folder.left_out, json.dumps(said) + "\n")


def read_plan(folder: RunFolder) -> Plan:
    """Return the plan of a run as it became."""
    return without(Plan.read(folder.plan), read_left_out(folder))


def without(plan: Plan, left_out: LeftOut) -> Plan:
    """Return ``plan`` with agents taken out of rounds as if they had not been there; who returns is told anew."""
    if not any(left_out.values()):
        return plan
    central = len(plan.agents) > plan.learners and bool(plan.exchanges)
    everybody = tuple(range(plan.learners))
    made: list[RoundPlan] = []
    fresh: set[int] | None = None
    for said in plan.schedule:
        gone = set(left_out.get(said.round, ()))
        chosen = tuple(place for place in plan.taking_part(said.round) if place not in gone)
        late = tuple(place for place in said.late if place not in gone)
        made.append(
            replace(
                said,
                taking_part=None if chosen == everybody else chosen,
                late=late,
                returning=tuple(i for i in chosen if central and fresh is not None and i not in fresh),
                absent=tuple(sorted({*said.absent, *gone})),
            )
        )
        if said.stale or len(late) < len(chosen):
            fresh = set(chosen)
    return replace(plan, schedule=tuple(made))
