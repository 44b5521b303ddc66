"""A run in progress: rounds are begun, done stage by stage and cohort by cohort, and committed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .engines import EngineError
from .folder import RunFolder
from .left_out import read_left_out, read_plan, write_left_out
from .plan import Plan, StagePlan
from .pool import Pool, SiteAwayError
from .trackers.tell import Telling
from .versions import Versions

TOLD = ("metrics", "ledger", "memory", "stores", "events", "embeddings")
"""The tables that stages have rows for."""
START = -1
"""The stage before the first round."""
LEFT_OUT = "left out"
"""The status in the ledger of a packet that was not sent, for its sender's site was away."""


@dataclass(frozen=True)
class Cohort:
    """Agents that one worker does a stage for, and agents that it measures only."""

    places: tuple[int, ...]
    measured: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.places or self.measured)


class Session:
    """Knows how far the run is and does what comes next. Both engines, with and without Prefect, drive one."""

    def __init__(self, folder: RunFolder, plan: Plan, pool: Pool) -> None:
        self.folder, self.plan, self.pool = folder, plan, pool
        self._versions = Versions(plan)
        self._left_out = read_left_out(folder)
        self._away: set[int] = set()
        self._replies: dict[tuple[int, int], dict[str, Any]] = {}
        self._began = self._committed = time.perf_counter()
        self._before: dict[str, dict[int, list[list[Any]]]] = {}
        self.telling: Telling | None = None

    @property
    def bytes_sent(self) -> int:
        """What the rounds that are committed sent, from before this session too."""
        every = (json.loads(self.folder.rows(number).read_text(encoding="utf-8")) for number in range(self.next_round))
        return sum(row[6] for rows in every for row in rows["ledger"])

    @property
    def next_round(self) -> int:
        """The first round that is not committed; round 0 is the start."""
        return self.folder.committed() + 1

    def stages(self, number: int) -> list[tuple[int, StagePlan]]:
        """Return the stages of round ``number`` with their indices."""
        return [(START, self.plan.start)] if number == 0 else list(enumerate(self.plan.stages))

    def begin(self, number: int) -> None:
        """Begin round ``number`` from what is committed, without agents whose site is still away."""
        self.folder.begin(number)
        self._replies.clear()
        away = self.pool.away()
        self._away = {place for place, agent in enumerate(self.plan.agents) if agent.site in away}
        if number > 0 and self._away.intersection(self.plan.taking_part(number)):
            self._take_out(number, self._away)

    def leave_out(self, number: int, away: SiteAwayError) -> None:
        """Take the agents of a site out of round ``number``, which begins anew with what every agent was before.

        Raises ``SiteAwayError`` where that leaves nobody, and at the start, for which everybody is needed.
        """
        if number == 0:
            raise away
        self._take_out(number, {place for place, agent in enumerate(self.plan.agents) if agent.site == away.site})

    def _take_out(self, number: int, gone: set[int]) -> None:
        there = set(self.plan.taking_part(number))
        if there <= gone:
            every = sorted({self.plan.agents[place].site for place in there})
            raise SiteAwayError(every[0], f"nothing is heard of any site in round {number} ({', '.join(every)})")
        self._left_out[number] = tuple(sorted({*self._left_out.get(number, ()), *gone.intersection(there)}))
        write_left_out(self.folder, self._left_out)
        self.plan = read_plan(self.folder)
        self._versions = Versions(self.plan)
        self.pool.open(self.folder.path)

    def cohorts(self, number: int, stage: StagePlan) -> list[Cohort]:
        """Deal a stage's agents out to the lanes: each to its site's, or else as :func:`_dealt` does."""
        if stage.tier >= 0:
            return self._deal(self.plan.aggregating(number, stage.tier), lambda place: 1.0)
        everybody = tuple(range(self.plan.learners))
        places = everybody if number == 0 else self.plan.taking_part(number)
        cohorts = self._deal(places, lambda place: self.plan.agents[place].work)
        if (stage.last or number == 0) and self.plan.measured(number):
            rest = sorted(self._not_measured_since(number) - self._versions.changed(number) - self._away)
            for index, place in enumerate(rest):
                at = self._lane_of(place) if self.pool.sites else index % len(cohorts)
                cohorts[at] = Cohort(cohorts[at].places, (*cohorts[at].measured, place))
        return cohorts

    def _deal(self, places: tuple[int, ...], weight: Callable[[int], float]) -> list[Cohort]:
        if not self.pool.sites:
            return _dealt(places, self.pool.lanes, weight)
        bound = [(self._lane_of(place), place) for place in places]
        return [Cohort(tuple(place for at, place in bound if at == lane)) for lane in range(self.pool.lanes)]

    def _lane_of(self, place: int) -> int:
        return self.pool.sites.index(self.plan.agents[place].site)

    def _not_measured_since(self, number: int) -> set[int]:
        """Agents that a round changed after the last measurement before ``number``."""
        changed: set[int] = set()
        for earlier in range(number - 1, 0, -1):
            if self.plan.measured(earlier):
                break
            changed |= self._versions.changed(earlier)
        return {place for place in changed if self.plan.agents[place].test_samples and self.plan.agents[place].model}

    def replace(self, number: int, stage_index: int, lane: int) -> None:
        """Have a new worker do again what a lane did of round ``number`` before a stage: it begins at the last commit.

        Where agents are written after each stage there is nothing to do again but the stage that was not finished.
        It does the same to the bit, so whoever read a packet of the worker that is gone has read the new one's.
        """
        self.pool.replace(lane)
        if self.pool.writes:
            return
        for index, stage in self.stages(number):
            cohorts = self.cohorts(number, stage)
            if index < stage_index and lane < len(cohorts) and cohorts[lane]:
                self.perform(number, index, lane, cohorts[lane])

    def perform(self, number: int, stage_index: int, lane: int, cohort: Cohort) -> None:
        """Do one cohort's stage; its rows wait for :meth:`commit`."""
        started = time.perf_counter() - self._began
        request = {
            "round": number,
            "stage": stage_index,
            "places": cohort.places,
            "measured": cohort.measured,
        }
        if self.pool.writes:
            request["write"] = True
        reply = self.pool.perform(lane, request)
        self._replies[stage_index, lane] = reply | {"started": started}

    def commit(self, number: int) -> dict[str, Any]:
        """Make the round part of the run and return its accuracy, worst accuracy and bytes."""
        rows: dict[str, list[list[Any]]] = {name: [] for name in TOLD}
        for name, gathered in rows.items():
            by_stage: dict[int, list[list[Any]]] = {}
            for (stage, _), reply in sorted(self._replies.items()):
                by_stage.setdefault(stage, []).extend(reply.get(name, []))
            if name == "ledger":
                gathered.extend(self._without(number))
            for stage in sorted(by_stage):
                gathered.extend(sorted(by_stage[stage], key=lambda row: row[:3] if name == "ledger" else row[:1]))
        if self.plan.measured(number):
            rows["metrics"] = self._carried("metrics", number, rows["metrics"])
        rows["memory"] = self._carried("memory", number, rows["memory"])
        now = time.perf_counter()
        self.folder.commit(number, rows | {"timings": self._timings(), "seconds": now - self._committed})
        self._committed = now
        superseded = []
        if number > 0:
            for place in self._versions.changed(number):
                version = self._versions.before(number, place)
                if version is not None:
                    superseded.append((version, place))
        keep_packets = any(said.stale for said in self.plan.schedule)
        self.pool.committed(number, superseded, keep_packets)
        self.folder.forget(number, superseded, keep_packets)
        return figures(self.plan, rows)

    def _without(self, number: int) -> list[list[Any]]:
        """Return a line of the ledger for each packet that was not sent because its sender's site was away."""
        lines = []
        for place in self._left_out.get(number, ()):
            parent = self.plan.agents[place].parent
            edges = self.plan.round(number).edges
            linked = [
                b if a == place else a for a, b in (self.plan.edges if edges is None else edges) if place in (a, b)
            ]
            for index, exchange in enumerate(self.plan.exchanges):
                for to in linked if parent is None else [parent]:
                    lines.append([place, to, index, exchange.form, "", 0, 0, 0, LEFT_OUT])
        return lines

    def _timings(self) -> list[list[Any]]:
        """Return the round's readings of real clocks, in the columns of timings.parquet after ``round``."""
        stages = {START: self.plan.start} | dict(enumerate(self.plan.stages))
        return [
            [stages[stage].name, str(lane + 1), reply["started"], reply["seconds"], reply["cpu_seconds"]]
            for (stage, lane), reply in sorted(self._replies.items())
        ]

    def _carried(self, table: str, number: int, fresh: list[list[Any]]) -> list[list[Any]]:
        """Add, for agents that nothing changed since, the rows of before; working memory is empty again."""
        if table not in self._before:
            self._before[table] = _rows_before(self.folder, table, number)
        found: dict[int, list[list[Any]]] = {}
        for row in fresh:
            found.setdefault(row[0], []).append(row)
        made = self._before[table] | found
        kept = {place: [row for row in rows if row[1] != "working"] for place, rows in made.items()}
        self._before[table] = kept
        return [row for place in sorted(made) for row in made[place]]


def _dealt(places: tuple[int, ...], lanes: int, weight: Callable[[int], float]) -> list[Cohort]:
    loads = [0.0] * max(1, min(lanes, len(places)))
    dealt: list[list[int]] = [[] for _ in loads]
    for place in sorted(places, key=lambda p: (-weight(p), p)):
        lane = loads.index(min(loads))
        loads[lane] += weight(place) or 1.0
        dealt[lane].append(place)
    return [Cohort(tuple(sorted(cohort))) for cohort in dealt]


def _rows_before(folder: RunFolder, table: str, number: int) -> dict[int, list[list[Any]]]:
    """Return, by agent, the rows of the last committed round before ``number`` that has any."""
    for earlier in range(number - 1, -1, -1):
        rows = json.loads(folder.rows(earlier).read_text(encoding="utf-8"))[table]
        if rows:
            found: dict[int, list[list[Any]]] = {}
            for row in rows:
                if row[1] != "working":
                    found.setdefault(row[0], []).append(row)
            return found
    return {}


def figures(plan: Plan, rows: dict[str, list[list[Any]]]) -> dict[str, Any]:
    """Return the round's first metric over all learners' test data, the worst learner's, the bytes sent, all values.

    Accuracy is first where it is measured; its name stands for whatever is.
    """
    means, worst = {}, {}
    for metric in plan.metrics:
        found = [(row[2], row[3]) for row in rows["metrics"] if row[1] == metric and row[0] < plan.learners]
        if total := sum(weight for _, weight in found):
            means[metric] = sum(value * weight for value, weight in found) / total
            worst[metric] = min(value for value, _ in found)
    sent = sum(row[6] for row in rows["ledger"])
    values = means | {f"{metric}_lowest": value for metric, value in worst.items()} | {"bytes": float(sent)}
    return {
        "accuracy": means.get(plan.headline),
        "worst": worst.get(plan.headline),
        "bytes": sent,
        "values": values,
    }


def open_session(folder: RunFolder, pool: Pool) -> Session:
    """Return the session of the run at ``folder``, done by the workers of ``pool``."""
    committed, left_out = folder.committed(), read_left_out(folder)
    if any(number > committed for number in left_out):  # a round that is done again waits again
        write_left_out(folder, {number: places for number, places in left_out.items() if number <= committed})
    elsewhere = folder.info().get("store")
    if elsewhere is not None and elsewhere != pool.store:
        raise EngineError(f"engine.store: what the run's agents know is in {elsewhere}, so go on with it by that store")
    pool.open(folder.path)
    return Session(folder, read_plan(folder), pool)
