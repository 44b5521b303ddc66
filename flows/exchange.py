"""Packets between agents: written by the sender, read by the receiver, one row in the ledger for each link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from ..tasks import packet
from ..tasks.agent import Agent, Context
from ..tasks.aggregate import Aggregate, aggregate, contribution, without
from ..tasks.choice import Choice
from ..tasks.extract import EXTRACTS, Extract
from ..tasks.knowledge import FORMS, Knowledge, Models, Rows
from ..tasks.memory import Kind
from ..tasks.share import EncodingChoice, share
from .folder import RunFolder
from .plan import ExchangePlan, Plan
from .versions import Versions

HELD_AS: dict[str, Kind] = {"tensor": "procedural", "sample": "episodic", "class": "semantic"}
"""Where an aggregator remembers what it delivered, by what the form is keyed by."""


class _Rules:
    """An exchange's parameters, parsed once."""

    def __init__(self, exchange: ExchangePlan) -> None:
        self.rule: Any = TypeAdapter(Aggregate).validate_python(exchange.rule)
        self.extract: Any = TypeAdapter(Extract).validate_python(exchange.extract)
        self.up: Choice = EncodingChoice.model_validate(exchange.up)
        self.down: Choice = EncodingChoice.model_validate(exchange.down)
        self.form = exchange.form


class Post:
    """Carries knowledge along the links of a plan."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._rules = [_Rules(exchange) for exchange in plan.exchanges]
        self._versions = Versions(plan)
        self._neighbours = lru_cache(maxsize=2)(plan.neighbours)
        self._last: tuple[Path, Knowledge] | None = None

    def _label(self, sender: str, number: int, exchange: int) -> packet.Label:
        progress = (number - 1) / (self._plan.rounds - 1) if self._plan.rounds > 1 else 1.0
        return packet.Label(sender, number, exchange, progress)

    def _read(self, path: Path) -> Knowledge:
        """Read a packet; the last one stays at hand, for a broadcast is read by many agents in turn."""
        if self._last is None or self._last[0] != path:
            self._last = (path, packet.read(path))
        return self._last[1]

    def _row(
        self, number: int, exchange: int, sender: int, receiver: int, knowledge: Knowledge, size: int, status: str
    ) -> list[Any]:
        rules = self._rules[exchange]
        upward = self._plan.agents[receiver].tier > self._plan.agents[sender].tier or not self._central
        encoding = (rules.up if upward else rules.down).name
        return [sender, receiver, exchange, rules.form, encoding, knowledge.items, size, knowledge.raw_bytes, status]

    @property
    def _central(self) -> bool:
        return len(self._plan.agents) > self._plan.learners

    def send(self, agent: Agent, place: int, number: int, exchange: int, context: Context) -> list[list[Any]]:
        """Send a learner's knowledge to its parent, or to each of its neighbours; return the ledger's rows."""
        made = agent.memory.recall("working", "to share")
        assert made is not None
        given = contribution(made, self._rules[exchange].rule.weight)
        agent.memory.hold("working", f"given {exchange}", given, number)
        parent = self._plan.agents[place].parent
        receivers = [parent] if parent is not None else self._neighbours(number)[place]
        if not receivers:
            return []
        message = share(given, self._rules[exchange].up, self._label(agent.name, number, exchange))
        packet.write(self._folder.packet(number, exchange, str(place)), message)
        status = "late" if place in self._plan.round(number).late else "delivered"
        return [self._row(number, exchange, place, to, given, message.size, status) for to in receivers]

    def send_up(
        self, agent: Agent, place: int, number: int, exchange: int, context: Context, own: bool
    ) -> list[list[Any]]:
        """Send on to the tier above what an aggregator merged, or (``own``) what its own model says."""
        rules, parent = self._rules[exchange], self._plan.agents[place].parent
        assert parent is not None
        given = agent.memory.recall("working", "received")
        assert given is not None
        if own and agent.models:
            merged = given
            given = EXTRACTS[rules.extract.knowledge].function(agent, rules.extract, context)
            given = _weighing(given, merged)
        message = share(given, rules.up, self._label(agent.name, number, exchange))
        packet.write(self._folder.packet(number, exchange, str(place)), message)
        return [self._row(number, exchange, place, parent, given, message.size, "delivered")]

    def _heard(
        self, number: int, exchange: int, senders: Sequence[int], before: Sequence[int]
    ) -> list[tuple[int, Knowledge]]:
        """Return what arrives from ``senders``, but for what is late, and what those ``before`` sent too late then."""
        this = self._plan.round(number)
        sent = [(s, self._folder.packet(number, exchange, str(s))) for s in senders if s not in this.late]
        sent += [(s, self._folder.packet(number - 1, exchange, str(s))) for s in this.stale if s in before]
        return [(sender, packet.read(path)) for sender, path in sorted(sent) if path.exists()]

    def merged(self, agent: Agent, place: int, number: int, exchange: int, context: Context) -> Knowledge | None:
        """Return an aggregator's one piece of knowledge from what its children sent; None if nothing came."""
        children = self._plan.children(place)
        heard = self._heard(number, exchange, children, children)
        if not heard:
            return None
        merged: Knowledge = aggregate(agent, [k for _, k in heard], self._rules[exchange].rule, context)
        return merged

    def received(self, agent: Agent, place: int, number: int, exchange: int, context: Context) -> Knowledge | None:
        """Return what reaches a learner: its parent's delivery, or its own merge of what its neighbours sent."""
        parent = self._plan.agents[place].parent
        if parent is not None:
            path = self._delivery(number, exchange, parent, place)
            return self._read(path) if path is not None else None
        own = agent.memory.recall("working", f"given {exchange}")
        rule = self._rules[exchange].rule
        # What comes late was sent along the links of the round before; who was away then was sent nothing.
        before = self._neighbours(number - 1).get(place, []) if self._plan.round(number).stale else []
        heard = self._heard(number, exchange, self._neighbours(number)[place], before)
        if own is not None and not rule.exclude_self:
            heard = sorted([*heard, (place, own)], key=lambda pair: pair[0])
        if not heard:
            return None
        merged: Knowledge = aggregate(agent, [k for _, k in heard], rule, context)
        return merged

    def passed_down(self, place: int, number: int, exchange: int) -> Knowledge | None:
        """Return what the tier above delivered to an aggregator."""
        parent = self._plan.agents[place].parent
        assert parent is not None
        path = self._delivery(number, exchange, parent, place)
        return self._read(path) if path is not None else None

    def _delivery(self, number: int, exchange: int, parent: int, child: int) -> Path | None:
        apart = self._plan.agents[child].tier < 0 and self._rules[exchange].rule.exclude_self
        for name in (f"{parent}-to-{child}", f"{parent}-to-all")[: 1 if apart else 2]:
            path = self._folder.packet(number, exchange, name)
            if path.exists():
                return path
        return None

    def deliver(self, agent: Agent, place: int, number: int, exchange: int, total: Knowledge) -> list[list[Any]]:
        """Send an aggregator's knowledge to those below it; return the ledger's rows. The aggregator remembers it."""
        agent.memory.hold(HELD_AS[FORMS[total.form].keyed_by], f"delivered {exchange}", total, number)
        there = set(self._plan.taking_part(number)) | self._versions.changed(number)
        rows: list[list[Any]] = []
        sizes: dict[str, int] = {}
        for child in self._plan.children(place):
            if child not in there:
                continue
            given, name = self._for(child, place, number, exchange, total)
            if given is None:
                continue
            if name not in sizes:
                message = share(given, self._rules[exchange].down, self._label(agent.name, number, exchange))
                packet.write(self._folder.packet(number, exchange, name), message)
                sizes[name] = message.size
            rows.append(self._row(number, exchange, place, child, given, sizes[name], "delivered"))
        return rows

    def _for(
        self, child: int, place: int, number: int, exchange: int, total: Knowledge
    ) -> tuple[Knowledge | None, str]:
        """Return what ``child`` is given and the packet's name: its own architecture, less its own contribution."""
        learner = self._plan.agents[child].tier < 0
        if learner and self._rules[exchange].rule.exclude_self:
            for _, own in self._heard(number, exchange, [child], [child]):
                total = without(total, own)
            return (total if total.items else None), f"{place}-to-{child}"
        identity = self._plan.agents[child].architecture
        if learner and isinstance(total, Models) and len(total.tensors) > 1 and identity in total.tensors:
            group = Models({identity: total.tensors[identity]}, {identity: total.samples_by[identity]})
            return group, f"{place}-to-{child}"
        return total, f"{place}-to-all"

    def missed(self, place: int, number: int, exchange: int) -> tuple[Knowledge | None, list[list[Any]]]:
        """Return what a returning learner missed, and the rows for sending it: what was delivered last above it.

        Its parent may have been away as well; then it comes from further up, and the first to return pays that way.
        """
        above = self._plan.above(place)
        held = [(version, -hop) for hop, one in enumerate(above) if (version := self._versions.before(number, one))]
        if not held:
            return None, []
        version, hops = max(held)[0], -max(held)[1]
        kind = HELD_AS[FORMS[self._rules[exchange].form].keyed_by]
        state = self._folder.state(version, above[hops])
        path = state.with_name(f"{above[hops]}.{kind}.delivered%20{exchange}.arrow")
        if not path.exists():
            return None, []
        carried: Knowledge = packet.read(path)
        rows = []
        for sender, receiver in pairwise([*reversed(above[: hops + 1]), place]):
            identity = self._plan.agents[receiver].architecture
            if receiver == place and isinstance(carried, Models) and identity in carried.tensors:
                carried = Models({identity: carried.tensors[identity]}, {identity: carried.samples_by[identity]})
            label = self._label(self._plan.agents[sender].name, number, exchange)
            message = share(carried, self._rules[exchange].down, label)
            if receiver == place or place == self._first_back(number, receiver):
                rows.append(self._row(number, exchange, sender, receiver, carried, message.size, "delivered"))
            carried, _ = packet.decode(message)
        return carried, rows

    def _first_back(self, number: int, aggregator: int) -> int:
        return min(one for one in self._plan.round(number).returning if aggregator in self._plan.above(one))


def _weighing(own: Knowledge, merged: Knowledge) -> Knowledge:
    """Return ``own`` with the weight of all the agents that stand behind ``merged``."""
    if isinstance(own, Models) and isinstance(merged, Models):
        return Models(own.tensors, {identity: merged.samples for identity in own.tensors})
    assert isinstance(own, Rows) and isinstance(merged, Rows)
    behind = float(merged.weights.mean()) if merged.items else 1.0
    return replace(own, weights=torch.full_like(own.weights, behind), samples=merged.samples)
