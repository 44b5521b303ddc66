"""Which round left each agent as it is now. Derived from the plan, so nothing has to be recorded."""

from __future__ import annotations

from functools import cache

from .plan import Plan


class Versions:
    """The last round that changed an agent, by place."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._changed = cache(self._changing)

    def _changing(self, number: int) -> frozenset[int]:
        if number == 0:
            return frozenset(range(self._plan.learners)) if self._plan.start.steps else frozenset()
        chosen = set(self._plan.taking_part(number))
        tiers = {stage.tier for stage in self._plan.stages if stage.tier >= 0}
        for tier in tiers:
            chosen |= set(self._plan.aggregating(number, tier))
        return frozenset(chosen)

    def changed(self, number: int) -> frozenset[int]:
        """Return the places of the agents that round ``number`` leaves in a new version."""
        return self._changed(number)

    def before(self, number: int, place: int) -> int | None:
        """Return the round whose version of the agent round ``number`` begins with; None: as it was made."""
        for earlier in range(number - 1, -1, -1):
            if place in self.changed(earlier):
                return earlier
        return None
