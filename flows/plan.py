"""The plan: what a spec compiles into. Pure data, which can be shown, tested, stored and interpreted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .folder import replace_text

Kind = Literal["start", "local", "merge", "relay"]

MOST_TASK_RUNS = 1000
"""Beyond about this many, rounds are merged into segments: a server drops records of larger flows."""


@dataclass(frozen=True)
class AgentPlan:
    """One agent. Learners come first in a plan's list, then aggregators from the lowest tier up.

    ``tier`` is -1 for learners; ``parent`` is a place in the plan's list. ``work``: floating point operations a round.
    """

    name: str
    group: str
    role: str
    tier: int
    parent: int | None
    model: dict[str, Any] | None
    architecture: str | None
    initial: str
    samples: int
    test_samples: int
    work: float
    speed: float | None = None
    bandwidth: float | None = None
    latency: float = 0.0
    availability: float = 1.0
    joins: int = 1
    leaves: int | None = None
    site: str = ""
    """The site where it lives; nothing where all agents live together, or it is the coordinator's."""


@dataclass(frozen=True)
class StepPlan:
    """One step: the operation, its parameters as a spec would write them, and its place in the recipe."""

    operation: str
    place: str
    parameters: dict[str, Any]
    observe: tuple[str, ...] = ()


@dataclass(frozen=True)
class StagePlan:
    """What one cohort after another does in a round, between two moments when everybody waits.

    ``tier``: whose stage it is (-1 learners). ``receives`` and ``sends``: the exchange whose packets arrive before
    the steps and leave after them. ``own``: an aggregator sends on what its own model says.
    """

    name: str
    kind: Kind
    tier: int
    steps: tuple[StepPlan, ...]
    receives: int | None = None
    sends: int | None = None
    own: bool = False
    last: bool = False


@dataclass(frozen=True)
class ExchangePlan:
    """One exchange of the recipe: the rule, the form, how packets are encoded, and their predicted bytes.

    ``told_bytes``: what labels and keys add to each learner's packet in the rounds in which they are told.
    """

    form: str
    rule: dict[str, Any]
    extract: dict[str, Any]
    up: Any
    down: Any
    up_bytes: tuple[int, ...]
    down_bytes: tuple[int, ...]
    exact: bool
    told_bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class RoundPlan:
    """Who does what in a round, by place in the plan's list of agents. None stands for every learner.

    ``late``: their knowledge misses the deadline. ``stale``: whose late knowledge of the round before arrives now.
    ``returning``: who must first be brought up to date. ``absent``: those not there at all. ``edges``: links between
    peers where they change from round to round. ``ends``: simulated seconds since the start.
    """

    round: int
    taking_part: tuple[int, ...] | None = None
    late: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    returning: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    edges: tuple[tuple[int, int], ...] | None = None
    ends: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A whole run. ``workers`` is not part of it: the same plan gives the same numbers on any number."""

    name: str
    digest: str
    seed: int
    rounds: int
    pattern: str
    recipe: str
    agents: tuple[AgentPlan, ...]
    learners: int
    start: StagePlan
    stages: tuple[StagePlan, ...]
    exchanges: tuple[ExchangePlan, ...]
    edges: tuple[tuple[int, int], ...]
    schedule: tuple[RoundPlan, ...]
    companion: dict[str, Any] | None
    memories: dict[str, Any]
    classes: int
    input_shape: tuple[int, ...]
    public: int
    public_labelled: bool
    measure_every: int
    metrics: tuple[str, ...]
    predict: str
    notes: tuple[str, ...] = field(default=())
    kind: str = "samples"
    before: int = 0
    """Rounds done by the runs that this one goes on from."""

    @property
    def headline(self) -> str:
        """The metric that a run is told by while it goes on: accuracy, or what is named first."""
        return "accuracy" if "accuracy" in self.metrics else self.metrics[0]

    def counted(self, number: int) -> int:
        """Return which round it is counted from the start of the first run that this one goes on from."""
        return self.before + number

    def round(self, number: int) -> RoundPlan:
        """Return the plan of round ``number``, from 1."""
        return self.schedule[number - 1]

    def taking_part(self, number: int) -> tuple[int, ...]:
        """Return the places of the learners that take part in round ``number``, in order."""
        chosen = self.round(number).taking_part
        return tuple(range(self.learners)) if chosen is None else chosen

    def measured(self, number: int) -> bool:
        """Whether round ``number`` ends with a measurement. Round 0 and the last always do."""
        return number % self.measure_every == 0 or number == self.rounds

    def children(self, place: int) -> tuple[int, ...]:
        """Return the places of those whose parent is ``place``."""
        return tuple(index for index, agent in enumerate(self.agents) if agent.parent == place)

    def below(self, place: int) -> frozenset[str]:
        """Return the names of the learners below an aggregator, at any depth."""
        learners = enumerate(self.agents[: self.learners])
        return frozenset(agent.name for other, agent in learners if place in self.above(other))

    def above(self, place: int) -> list[int]:
        """Return the places of an agent's parent, its parent's parent, and so on to the top."""
        found, parent = [], self.agents[place].parent
        while parent is not None:
            found.append(parent)
            parent = self.agents[parent].parent
        return found

    def neighbours(self, number: int) -> dict[int, list[int]]:
        """Return the links between peers that take part in round ``number``."""
        edges = self.round(number).edges
        there = set(self.taking_part(number))
        links: dict[int, list[int]] = {place: [] for place in sorted(there)}
        for a, b in self.edges if edges is None else edges:
            if a in there and b in there:
                links[a].append(b)
                links[b].append(a)
        return {place: sorted(others) for place, others in links.items()}

    def aggregating(self, number: int, tier: int) -> tuple[int, ...]:
        """Return the places of the aggregators of ``tier`` that anything comes to from below in round ``number``."""
        below: tuple[int, ...] = (*self.taking_part(number), *self.round(number).stale)
        for level in range(tier + 1):
            above = {self.agents[place].parent for place in below}
            below = tuple(place for place, agent in enumerate(self.agents) if agent.tier == level and place in above)
        return below

    def task_runs(self, lanes: int, first: int = 0) -> int:
        """Return how many task runs the rounds from ``first`` take on ``lanes`` workers, if everybody takes part."""
        tiers = [agent.tier for agent in self.agents]
        a_round = sum(min(lanes, tiers.count(stage.tier)) for stage in self.stages)
        return a_round * (self.rounds + 1 - max(first, 1)) + (min(lanes, self.learners) if first == 0 else 0)

    def segments(self, lanes: int, first: int) -> list[tuple[int, int]]:
        """Return the first and last rounds of each segment where rounds from ``first`` are merged, else nothing."""
        if self.task_runs(lanes, first) <= MOST_TASK_RUNS:
            return []
        size = -(-(self.rounds + 1 - first) // max(MOST_TASK_RUNS // 5, 1))
        return [(begin, min(begin + size - 1, self.rounds)) for begin in range(first, self.rounds + 1, size)]

    def write(self, path: Path) -> None:
        """Write the plan as :meth:`text` gives it."""
        replace_text(path, self.text())

    def text(self) -> str:
        """Return the plan as JSON, one agent, stage or round a line."""
        data = asdict(self)
        lines = []
        for key, value in data.items():
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
                rows = ",\n  ".join(json.dumps(row) for row in value)
                lines.append(f'"{key}": [\n  {rows}\n]')
            else:
                lines.append(f'"{key}": {json.dumps(value)}')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Return the plan that ``write`` wrote."""
        return cls.parse(path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Return the plan that :meth:`text` gave."""
        data = json.loads(text)
        data["agents"] = tuple(AgentPlan(**row) for row in data["agents"])
        data["start"] = _stage(data["start"])
        data["stages"] = tuple(_stage(row) for row in data["stages"])
        data["exchanges"] = tuple(
            ExchangePlan(**row | {key: tuple(row[key]) for key in ("up_bytes", "down_bytes", "told_bytes")})
            for row in data["exchanges"]
        )
        data["schedule"] = tuple(_round(row) for row in data["schedule"])
        data["edges"] = tuple((a, b) for a, b in data["edges"])
        for key in ("input_shape", "metrics", "notes"):
            data[key] = tuple(data[key])
        return cls(**data)


def _stage(row: dict[str, Any]) -> StagePlan:
    steps = tuple(StepPlan(**step | {"observe": tuple(step["observe"])}) for step in row["steps"])
    return replace(StagePlan(**row | {"steps": ()}), steps=steps)


def _round(row: dict[str, Any]) -> RoundPlan:
    row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    if row["edges"] is not None:
        row["edges"] = tuple((a, b) for a, b in row["edges"])
    return RoundPlan(**row)
