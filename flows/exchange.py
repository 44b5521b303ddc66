"""Packets between agents: written by the sender, read by the receiver, one row in the ledger for each link."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ..tasks import packet
from ..tasks.agent import Agent, Context
from ..tasks.aggregate import aggregate, contribution, without
from ..tasks.choice import Choice
from ..tasks.extract import EXTRACTS
from ..tasks.knowledge import FORMS, GENERATOR, Knowledge, Rows, addressed_to, marked, models_of
from ..tasks.memory import KEPT_AS, Item
from ..tasks.parameters import due
from ..tasks.share import share
from . import references
from .exchange_rules import ExchangeRules, weighing
from .mail import Mail
from .plan import Plan
from .versions import Versions


class Post:
    """Carries knowledge along the links of a plan."""

    def __init__(self, mail: Mail, plan: Plan) -> None:
        self._mail, self._plan = mail, plan
        central = len(plan.agents) > plan.learners
        self._rules = [ExchangeRules(exchange, central) for exchange in plan.exchanges]
        self._versions = Versions(plan)
        self._neighbours = lru_cache(maxsize=2)(plan.neighbours)
        self._last: tuple[tuple[int, int, str], Knowledge] | None = None

    def due(self, exchange: int, number: int) -> bool:
        """Whether the exchange takes place in round ``number``."""
        return due(self._rules[exchange].rule.when, self._plan.counted(number))

    def _label(self, sender: str, number: int, exchange: int, holds: int | None = None) -> packet.Label:
        at, last = self._plan.counted(number), self._plan.counted(self._plan.rounds)
        progress = (at - 1) / (last - 1) if last > 1 else 1.0
        more = {} if holds is None else {references.HOLDS: str(holds)}
        return packet.Label(sender, number, exchange, progress, more)

    def _delivered(self, number: int, exchange: int, name: str, reference: Knowledge | None) -> Knowledge | None:
        """Read a delivery; the last one stays at hand, for a broadcast is read by many agents in turn."""
        if self._last is None or self._last[0] != (number, exchange, name):
            message = self._mail.get(number, exchange, name)
            if message is None:
                return None
            self._last = ((number, exchange, name), packet.decode(message, reference)[0])
        return self._last[1]

    def _row(
        self, exchange: int, ends: tuple[int, int], knowledge: Knowledge, encoding: Choice, size: int, status: str
    ) -> list[Any]:
        form, raw = self._rules[exchange].form, knowledge.raw_bytes
        return [*ends, exchange, form, encoding.name, knowledge.items, size, raw, status]

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
        size, encoding = self._upward(agent, place, number, exchange, given)
        status = "late" if place in self._plan.round(number).late else "delivered"
        return [self._row(exchange, (place, to), given, encoding, size, status) for to in receivers]

    def send_up(
        self, agent: Agent, place: int, number: int, exchange: int, context: Context, own: bool
    ) -> list[list[Any]]:
        """Send on to the tier above what an aggregator merged, or (``own``) what its own model says."""
        rules, parent = self._rules[exchange], self._plan.agents[place].parent
        assert parent is not None
        given = agent.memory.recall("working", "received")
        assert given is not None
        if own and "model" in agent.models:
            merged = given
            given = EXTRACTS[rules.extract.knowledge].function(agent, rules.extract, context)
            given = weighing(given, merged)
        size, encoding = self._upward(agent, place, number, exchange, given)
        return [self._row(exchange, (place, parent), given, encoding, size, "delivered")]

    def _upward(self, agent: Agent, place: int, number: int, exchange: int, given: Knowledge) -> tuple[int, Choice]:
        """Write an agent's packet: a difference from what its parent delivered last, where both hold that."""
        rules, parent = self._rules[exchange], self._plan.agents[place].parent
        held = references.kept(agent, exchange) if rules.differences and parent is not None else None
        reference = None
        if held is not None and parent is not None and place not in self._plan.round(number).late:
            reference = references.common(held, self._versions.before(number, parent))
        label = self._label(agent.name, number, exchange, None if held is None else held[1])
        encoding = rules.encoding("up", reference)
        message = share(given, encoding, label, reference)
        self._mail.put(number, exchange, str(place), message)
        return message.size, encoding

    def _heard(
        self,
        number: int,
        exchange: int,
        senders: Sequence[int],
        before: Sequence[int],
        reference: Knowledge | None = None,
    ) -> list[tuple[int, Knowledge]]:
        """Return what arrives from ``senders``, but for what is late, and what those ``before`` sent too late then."""
        this = self._plan.round(number)
        sent = [(s, number) for s in senders if s not in this.late]
        sent += [(s, number - 1) for s in this.stale if s in before]
        found: list[tuple[int, Knowledge]] = []
        for sender, then in sorted(sent):
            message = self._mail.get(then, exchange, str(sender))
            if message is not None:
                arrived, _ = packet.decode(message, reference)
                found.append((sender, marked(arrived, self._plan.agents[sender].name)))
        return found

    def merged(self, agent: Agent, place: int, number: int, exchange: int, context: Context) -> Knowledge | None:
        """Return an aggregator's one piece of knowledge from what its children sent; None if nothing came."""
        children = self._plan.children(place)
        last = references.delivered(agent, exchange)
        heard = self._heard(number, exchange, children, children, None if last is None else last[0])
        if not heard:
            return None
        return aggregate(agent, [k for _, k in heard], self._rules[exchange].rule, context)

    def received(self, agent: Agent, place: int, number: int, exchange: int, context: Context) -> Knowledge | None:
        """Return what reaches a learner: its parent's delivery, or its own merge of what its neighbours sent."""
        parent = self._plan.agents[place].parent
        if parent is not None:
            return self._arrived(agent, place, number, exchange)
        own = agent.memory.recall("working", f"given {exchange}")
        rule = self._rules[exchange].rule
        # What comes late was sent along the links of the round before; who was away then was sent nothing.
        before = self._neighbours(number - 1).get(place, []) if self._plan.round(number).stale else []
        heard = self._heard(number, exchange, self._neighbours(number)[place], before)
        if own is not None and not rule.exclude_self and self.due(exchange, number):
            heard = sorted([*heard, (place, marked(own, agent.name))], key=lambda pair: pair[0])
        if not heard:
            return None
        merged = aggregate(agent, [k for _, k in heard], rule, context)
        return None if merged is None else addressed_to(merged, agent.name)

    def passed_down(self, agent: Agent, place: int, number: int, exchange: int) -> Knowledge | None:
        """Return what the tier above delivered to an aggregator."""
        return self._arrived(agent, place, number, exchange)

    def _arrived(self, agent: Agent, place: int, number: int, exchange: int) -> Knowledge | None:
        parent = self._plan.agents[place].parent
        assert parent is not None
        held = references.kept(agent, exchange)
        for name in (f"{parent}-to-{place}", f"{parent}-to-all"):
            arrived = self._delivered(number, exchange, name, None if held is None else held[0])
            if arrived is not None:
                if self._rules[exchange].differences:
                    references.keep(agent, exchange, arrived, number)
                return arrived
        return None

    def deliver(self, agent: Agent, place: int, number: int, exchange: int, hand: Item) -> list[list[Any]]:
        """Send an aggregator's knowledge to those below it; return the ledger's rows. The aggregator remembers it.

        Those who hold the last delivery are sent the difference from it; the others, whole, what those make of it.
        """
        rules, last, total = self._rules[exchange], references.delivered(agent, exchange), hand.knowledge
        there = set(self._plan.taking_part(number)) | self._versions.changed(number)
        below = [child for child in self._plan.children(place) if child in there]
        held = {child: self._held_by(child, number, exchange, last) for child in below}
        rows: dict[int, list[Any]] = {}
        sizes: dict[str, int] = {}
        for child in sorted(below, key=lambda one: held[one] is None):
            reference = held[child]
            given, name = self._for(child, place, number, exchange, total, last)
            if given is None:
                continue
            if rules.differences and last is not None and reference is None:
                name = f"{place}-to-{child}"
            encoding = rules.encoding("down", reference)
            if name not in sizes:
                message = share(given, encoding, self._label(agent.name, number, exchange), reference)
                self._mail.put(number, exchange, name, message)
                sizes[name] = message.size
                if reference is not None:
                    total = references.as_received(message, reference, total)
            rows[child] = self._row(exchange, (place, child), given, encoding, sizes[name], "delivered")
        kind = KEPT_AS[FORMS[total.form].keyed_by]
        agent.memory.hold(kind, f"delivered {exchange}", total, number, hand.contributor)
        self._mail.remember(number, exchange, place, total)
        return [rows[child] for child in sorted(rows)]

    def _held_by(self, child: int, number: int, exchange: int, last: tuple[Knowledge, int] | None) -> Knowledge | None:
        """Return the last delivery if the child said on its packet of this round that it holds it."""
        if not self._rules[exchange].differences:
            return None
        message = self._mail.get(number, exchange, str(child))
        return None if message is None else references.common(last, references.holds(message))

    def _for(
        self,
        child: int,
        place: int,
        number: int,
        exchange: int,
        total: Knowledge,
        last: tuple[Knowledge, int] | None,
    ) -> tuple[Knowledge | None, str]:
        """Return what ``child`` is given and the packet's name: its own architecture, less its own contribution."""
        learner = self._plan.agents[child].tier < 0
        if learner and self._rules[exchange].rule.exclude_self:
            for _, own in self._heard(number, exchange, [child], [child], None if last is None else last[0]):
                total = without(total, own)
            return (total if total.items else None), f"{place}-to-{child}"
        fitting = self._fitting(total, child, exchange)
        return fitting, f"{place}-to-all" if fitting is total else f"{place}-to-{child}"

    def _fitting(self, knowledge: Knowledge, child: int, exchange: int) -> Knowledge | None:
        """Return what of ``knowledge`` is for ``child`` and can be used there; None where there is nothing.

        Of models, a learner's own architecture and a generator; of rows for somebody, those for the child, or for the
        learners below it.
        """
        learner = self._plan.agents[child].tier < 0
        if isinstance(knowledge, Rows):
            below = self._plan.below(child) if knowledge.addressed and not learner else ()
            return addressed_to(knowledge, self._plan.agents[child].name, below)
        if not learner or getattr(self._rules[exchange].extract, "of", "model") != "model":
            return knowledge
        identity = str(self._plan.agents[child].architecture)
        fitting = [name for name in knowledge.tensors if name in (identity, GENERATOR)]
        if not fitting:
            return None
        return knowledge if len(fitting) == len(knowledge.tensors) else models_of(knowledge, fitting)

    def missed(self, agent: Agent, place: int, number: int, exchange: int) -> tuple[Knowledge | None, list[list[Any]]]:
        """Return what a returning learner missed, and the rows for sending it: what was delivered last above it.

        Its parent may have been away as well; then it comes from further up, and the first to return pays that way.
        """
        above = self._plan.above(place)
        held = [(version, -hop) for hop, one in enumerate(above) if (version := self._versions.before(number, one))]
        if not held:
            return None, []
        version, hops = max(held)[0], -max(held)[1]
        kind = KEPT_AS[FORMS[self._rules[exchange].form].keyed_by]
        last = self._mail.remembered(version, exchange, above[hops], kind)
        if last is None:
            return None, []
        carried, _ = packet.decode(last)
        if self._fitting(carried, place, exchange) is None:
            return None, []
        rows = []
        for sender, receiver in pairwise([*reversed(above[: hops + 1]), place]):
            if receiver == place:
                fitting = self._fitting(carried, place, exchange)
                assert fitting is not None  # as it was above, and packets change no architecture
                carried = fitting
            label = self._label(self._plan.agents[sender].name, number, exchange)
            encoding = self._rules[exchange].encoding("down", None)
            message = share(carried, encoding, label)
            if receiver == place or place == self._first_back(number, receiver):
                rows.append(self._row(exchange, (sender, receiver), carried, encoding, message.size, "delivered"))
            carried, _ = packet.decode(message)
        if self._rules[exchange].differences and hops == 0:
            references.keep(agent, exchange, carried, version)
        return carried, rows

    def _first_back(self, number: int, aggregator: int) -> int:
        return min(one for one in self._plan.round(number).returning if aggregator in self._plan.above(one))
