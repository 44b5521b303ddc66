"""What a run left in its folder, read back: tables and figures with names and types."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as compute

from ...specs.tree import parse, plain
from .memories import carried
from .reading import COLUMNS, NotARunError, read_json, read_table
from .sums import PartitionCounts, partition_counts, summed, within
from .text import natural_key

PREFERRED_METRICS = ("accuracy", "mrr", "hits_at_10", "hits_at_1")
KINDS = ("sensory", "working", "semantic", "episodic", "procedural", "emotional")


@dataclass(frozen=True)
class RoundAccuracy:
    """The headline metric over the learners at the end of one round."""

    round: int
    total: float
    mean: float
    worst: float
    best: float


@dataclass(frozen=True)
class Link:
    """What one agent sent to another over the whole run."""

    sender: str
    receiver: str
    bytes: int
    packets: int


@dataclass(frozen=True)
class AgentInfo:
    """One agent: what it is called, what it is, and what it learns with."""

    name: str
    group: str
    role: str
    model: str | None = None


@dataclass(frozen=True)
class Results:
    """A run folder, read. Every helper gives an empty answer where a table is missing or empty."""

    folder: Path
    run: dict[str, Any]
    plan: dict[str, Any]
    summary: dict[str, Any]
    spec_text: str
    metrics: pa.Table
    control: pa.Table
    ledger: pa.Table
    memory: pa.Table
    stores: pa.Table
    events: pa.Table
    privacy: pa.Table
    partition: pa.Table
    clock: pa.Table
    timings: pa.Table
    metric: str = field(default="accuracy")

    @classmethod
    def read(cls, folder: str | Path) -> Results:
        """Read a run folder, finished or still running."""
        path = Path(folder)
        if not path.is_dir():
            raise NotARunError(f"{path} is not a run: there is no such folder.")
        if not (path / "run.json").is_file():
            raise NotARunError(f"{path} is not a run: it holds no run.json.")
        tables = {name: read_table(path, name) for name in COLUMNS}
        spec = path / "spec.yaml"
        measured = sorted(set(tables["metrics"].column("metric").to_pylist()) - {None})
        preferred = [metric for metric in PREFERRED_METRICS if metric in measured]
        return cls(
            folder=path,
            run=read_json(path / "run.json"),
            plan=read_json(path / "plan.json"),
            summary=read_json(path / "summary.json"),
            spec_text=spec.read_text(encoding="utf-8", errors="replace") if spec.is_file() else "",
            metric=(preferred or measured or ["accuracy"])[0],
            **tables,
        )

    @property
    def status(self) -> str:
        """Give `running`, `finished` or `failed`, as run.json says."""
        return str(self.run.get("status", "unknown"))

    @property
    def has_control(self) -> bool:
        """Whether the local control was measured."""
        return bool(self.control_accuracy())

    def spec(self) -> dict[str, Any]:
        """Give the resolved spec; empty where it is missing or not a mapping."""
        node, problems = parse(self.spec_text, str(self.folder / "spec.yaml"))
        if node is None and self.spec_text.strip():
            raise NotARunError(f"the run's spec cannot be read: {problems[0]}")
        content = plain(node) if node is not None else {}
        return content if isinstance(content, dict) else {}

    def agents(self) -> list[AgentInfo]:
        """List every agent that any file names, learners first, in the plan's order and then by name."""
        planned = self.plan.get("agents")
        listed = [entry for entry in planned if isinstance(entry, dict)] if isinstance(planned, list) else []
        if isinstance(planned, dict):
            listed = [{"name": name, **entry} for name, entry in planned.items() if isinstance(entry, dict)]
        known = {str(entry["name"]): entry for entry in listed if "name" in entry}
        facts: dict[str, tuple[str, str]] = {}
        for table in (self.metrics, self.control):
            columns = (table.column(name).to_pylist() for name in ("agent", "group", "role"))
            facts.update({agent: (group, role) for agent, group, role in zip(*columns, strict=True)})
        roles = dict(zip(*(self.memory.column(name).to_pylist() for name in ("agent", "role")), strict=True))
        names = set(facts) | set(roles) | set(known)
        names |= {agent for link in self.links() for agent in (link.sender, link.receiver)}
        held = zip(*(self.partition.column(name).to_pylist() for name in ("agent", "split")), strict=True)
        names |= {agent for agent, split in held if split != "public"}
        order = {name: index for index, name in enumerate(known)}
        agents = []
        for name in names:
            entry = known.get(name, {})
            group, role = facts.get(name, (None, None))
            role = str(role or entry.get("role") or roles.get(name) or "learner")
            group = str(group or entry.get("group") or ("agents" if role == "learner" else role))
            model = entry.get("model")
            model = next(iter(model), None) if isinstance(model, dict) else model
            agents.append(AgentInfo(name, group, role, None if model is None else str(model)))
        return sorted(agents, key=lambda a: (a.role != "learner", order.get(a.name, len(order)), natural_key(a.name)))

    def _values(self, table: pa.Table) -> dict[int, dict[str, tuple[float, int]]]:
        """Give round -> agent -> (value, weight) of the headline metric, over learners where there are any."""
        table = table.filter(compute.equal(table.column("metric"), self.metric))
        learners = table.filter(compute.equal(table.column("role"), "learner"))
        table = learners if learners.num_rows else table
        values: dict[int, dict[str, tuple[float, int]]] = {}
        columns = (table.column(name).to_pylist() for name in ("round", "agent", "value", "weight"))
        for number, agent, value, weight in zip(*columns, strict=True):
            if value is not None and math.isfinite(value):
                values.setdefault(number, {})[agent] = (value, weight or 0)
        return dict(sorted(values.items()))

    def _by_round(self, table: pa.Table) -> list[RoundAccuracy]:
        rounds = []
        for number, agents in self._values(table).items():
            values = [value for value, _ in agents.values()]
            weight = sum(weight for _, weight in agents.values())
            mean = math.fsum(values) / len(values)
            total = math.fsum(value * each for value, each in agents.values()) / weight if weight else mean
            rounds.append(RoundAccuracy(number, total, mean, min(values), max(values)))
        return rounds

    def _last(self, table: pa.Table, until: int | None = None) -> dict[str, float]:
        last: dict[str, float] = {}
        for number, agents in self._values(table).items():
            if until is None or number <= until:
                last.update({agent: value for agent, (value, _) in agents.items()})
        return last

    def accuracy_by_round(self) -> list[RoundAccuracy]:
        """Give the headline metric over learners, round by round; total is correct answers over test samples."""
        return self._by_round(self.metrics)

    def control_by_round(self) -> list[RoundAccuracy]:
        """Give the same of the local control, in which each agent learns alone."""
        return self._by_round(self.control)

    def last_accuracy(self) -> dict[str, float]:
        """Give each agent's last measured value."""
        return self._last(self.metrics)

    def first_accuracy(self) -> dict[str, float]:
        """Give each agent's first measured value."""
        first: dict[str, float] = {}
        for agents in reversed(self._values(self.metrics).values()):
            first.update({agent: value for agent, (value, _) in agents.items()})
        return first

    def control_accuracy(self) -> dict[str, float]:
        """Give each agent's value in the local control, as of the last round that the run itself has measured."""
        last = max(self._values(self.metrics), default=None)
        return self._last(self.control, last) or self._last(self.control)

    def gain_by_agent(self) -> dict[str, float]:
        """Give each agent's last value less the same agent's in the local control."""
        control = self.control_accuracy()
        return {agent: value - control[agent] for agent, value in self.last_accuracy().items() if agent in control}

    def bytes_by_round(self) -> dict[int, int]:
        """Give the bytes put on the wire in each round, lost and late packets included."""
        return {number: value for (number,), value in summed(self.ledger, ["round"]).items()}

    def cumulative_bytes(self, rounds: Iterable[int] | None = None) -> dict[int, int]:
        """Give the bytes up to and including each round (the ledger's rounds unless others are asked for)."""
        by_round = self.bytes_by_round()
        asked = sorted(by_round) if rounds is None else sorted(rounds)
        return {number: sum(value for at, value in by_round.items() if at <= number) for number in asked}

    def bytes_by_form(self) -> dict[str, int]:
        """Give the bytes of each form of knowledge."""
        return {form: value for (form,), value in summed(self.ledger, ["form"]).items()}

    def bytes_by_form_and_round(self) -> dict[str, dict[int, int]]:
        """Give form -> round -> bytes."""
        return within(summed(self.ledger, ["form", "round"]))

    def bytes_sent_by_agent(self) -> dict[str, int]:
        """Give the bytes that each agent sent."""
        return {agent: value for (agent,), value in summed(self.ledger, ["from"]).items()}

    def packets_by_status(self) -> dict[str, int]:
        """Give how many packets were delivered, late and lost."""
        ones = self.ledger.append_column("packets", pa.array([1] * self.ledger.num_rows, pa.int64()))
        return {status: value for (status,), value in summed(ones, ["status"], "packets").items()}

    def links(self) -> list[Link]:
        """Give what passed from whom to whom: bytes and packets."""
        ones = self.ledger.append_column("packets", pa.array([1] * self.ledger.num_rows, pa.int64()))
        packets = summed(ones, ["from", "to"], "packets")
        sizes = summed(self.ledger, ["from", "to"])
        return [Link(one, other, size, packets[one, other]) for (one, other), size in sizes.items()]

    @cached_property
    def held(self) -> pa.Table:
        """The memory table, in which those who rest in a round hold what they held."""
        return carried(self.memory)

    def bytes_held_by_kind(self) -> dict[str, dict[int, int]]:
        """Give kind of memory -> round -> bytes, summed over agents."""
        nested = within(summed(self.held, ["kind", "round"]))
        order = {kind: index for index, kind in enumerate(KINDS)}
        return {kind: nested[kind] for kind in sorted(nested, key=lambda kind: (order.get(kind, len(KINDS)), kind))}

    def bytes_held_by_role(self) -> dict[str, dict[int, int]]:
        """Give role -> round -> bytes, summed over its agents."""
        return within(summed(self.held, ["role", "round"]))

    def bytes_held_by_agent(self) -> dict[str, int]:
        """Give the bytes each agent held at the end of the last round."""
        nested = within(summed(self.held, ["agent", "round"]))
        last = max(map(max, nested.values()), default=0)
        return {agent: rounds.get(last, 0) for agent, rounds in nested.items()}

    def partition_counts(self, split: str = "train") -> PartitionCounts:
        """Give who holds how many samples of each label in a split."""
        return partition_counts(self.partition, split, [agent.name for agent in self.agents()])

    def simulated_ends(self) -> dict[int, float]:
        """Give the simulated second at which each round ended."""
        ends: dict[int, float] = {}
        for number, end in zip(*(self.clock.column(name).to_pylist() for name in ("round", "round_end")), strict=True):
            if end is not None and math.isfinite(end):
                ends[number] = max(end, ends.get(number, 0.0))
        return dict(sorted(ends.items()))

    def accuracy_by_simulated_time(self) -> list[tuple[float, RoundAccuracy]]:
        """Give the simulated second and the accuracy of each measured round; round 0 is at second 0."""
        ends = {0: 0.0} | self.simulated_ends()
        return [(ends[at.round], at) for at in self.accuracy_by_round() if at.round in ends]
