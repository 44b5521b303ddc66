"""One stage of a round, done by one cohort of agents. This is what a worker process runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from ..specs.schema import StepChoice
from ..tasks.agent import Agent, Context
from ..tasks.kinds import DATA_KINDS
from ..tasks.knowledge import Knowledge
from ..tasks.memory import KINDS
from ..tasks.operations import NEED_A_MODEL, OPERATIONS
from ..tasks.parameters import due
from .exchange import Post
from .keeper import Keeper
from .plan import Plan, StagePlan, StepPlan
from .tables import as_text
from .world import Holding


@dataclass
class Rows:
    """What a stage has to tell: rows for the tables, each with the place of the agent that it is about."""

    metrics: list[list[Any]] = field(default_factory=list)
    ledger: list[list[Any]] = field(default_factory=list)
    memory: list[list[Any]] = field(default_factory=list)
    stores: list[list[Any]] = field(default_factory=list)
    events: list[list[Any]] = field(default_factory=list)
    embeddings: list[list[Any]] = field(default_factory=list)


class Worker:
    """Does stages of one run for the cohorts that it is given."""

    def __init__(self, holding: Holding) -> None:
        self._plan: Plan = holding.plan
        self._world = holding.world
        self._keeper = Keeper(holding.folder, holding.plan, holding.world, holding.ids, holding.valid)
        self._post = Post(holding.mail, holding.plan)
        self._steps: dict[str, Any] = {}
        self._drawn_in = cache(self._first_and_last)

    def perform(
        self, number: int, stage_index: int, places: list[int], only_measured: list[int], write: bool = False
    ) -> Rows:
        """Do stage ``stage_index`` of round ``number`` (-1: the start) for the agents at ``places``.

        The agents at ``only_measured`` did not take part and are measured alone. ``write``: agents that are in the
        middle of the round are written too, so that another worker can go on with them.
        """
        stage = self._plan.start if stage_index < 0 else self._plan.stages[stage_index]
        rows = Rows()
        for place in places:
            agent = self._keeper.load(place, number, stage_index)
            if stage.kind in ("start", "local"):
                finished = self._alone(stage, stage_index, number, place, agent, rows)
            else:
                finished = self._aggregate(stage, number, place, agent, rows)
            if not finished:
                self._keeper.keep(place, agent, number, stage_index, write)
            told = agent.memory.told()
            rows.events += [[place, e.place, e.what, e.about, e.count, e.sentence] for e in told]
        for place in only_measured:
            self._measure(number, place, self._keeper.load(place, number, stage_index), rows)
        return rows

    def _context(self, number: int, step: StepPlan | None = None, **known: Any) -> Context:
        if step is not None:
            known |= {"place": step.place, "observe": frozenset(step.observe)}
        plan = self._plan
        return Context(self._world, plan.seed, plan.counted(number), plan.counted(plan.rounds), **known)

    def _do(self, step: StepPlan, agent: Agent, number: int) -> None:
        if step.place not in self._steps:
            said = StepChoice.model_validate({step.operation: step.parameters})
            self._steps[step.place] = said.parameters
        if number == 0 or due(self._steps[step.place].when, self._plan.counted(number)):
            OPERATIONS[step.operation][0](agent, self._steps[step.place], self._context(number, step))

    def _first_and_last(self, place: int) -> tuple[int, ...]:
        """Return the first and the last round in which a learner takes part; nothing where there is one or none."""
        there = [number for number in range(1, self._plan.rounds + 1) if place in self._plan.taking_part(number)]
        return (there[0], there[-1]) if len(there) > 1 else ()

    def _by_learners(self, step: StepPlan) -> bool:
        """Whether learners do a step. Peers are each their own top."""
        who = step.parameters.get("who", "learners")
        return who in ("learners", "all") or (who == "top" and len(self._plan.agents) == self._plan.learners)

    def _alone(self, stage: StagePlan, index: int, number: int, place: int, agent: Agent, rows: Rows) -> bool:
        """Do what an agent does by itself, and return whether its round is finished."""
        if index == 0 and place in self._plan.round(number).returning:
            self._catch_up(agent, number, place, rows)
        if stage.receives is not None:
            context = self._context(number, place=f"aggregate.{stage.receives}")
            received = self._post.received(agent, place, number, stage.receives, context)
            _receive(agent, received, number, agent.above)
        begun = stage.kind == "start" and self._keeper.inherits(place)  # the start was when it began
        for step in () if begun else stage.steps:
            if self._by_learners(step):
                self._do(step, agent, number)
        if index == 0 and number in self._drawn_in(place):
            drawn = DATA_KINDS[self._plan.kind].function.drawn(agent, self._context(number))
            rows.embeddings += [[place, name, as_text(values)] for name, values in drawn.items()]
        if stage.sends is not None and self._post.due(stage.sends, number):
            rows.ledger += self._post.send(agent, place, number, stage.sends, self._context(number))
        if not (stage.last or stage.kind == "start"):
            return False
        self._finish(number, place, agent, rows, save=bool(stage.steps) or number > 0)
        return True

    def _catch_up(self, agent: Agent, number: int, place: int, rows: Rows) -> None:
        """Give a returning agent what its aggregator delivered last, and do what follows a delivery but training."""
        for index in range(len(self._plan.exchanges)):
            missed, sent = self._post.missed(agent, place, number, index)
            if missed is None:
                continue
            rows.ledger += sent
            _receive(agent, missed, number, agent.above)
            after = next(s for s in self._plan.stages if s.kind == "local" and s.receives == index)
            for step in after.steps:
                if step.operation in ("store", "absorb", "forget") and self._by_learners(step):
                    self._do(step, agent, number)
        agent.memory.rest()

    def _aggregate(self, stage: StagePlan, number: int, place: int, agent: Agent, rows: Rows) -> bool:
        """Do what an aggregator does, and return whether its round is finished."""
        assert stage.receives is not None
        top = self._plan.agents[place].parent is None
        context = self._context(number, final=top, place=f"aggregate.{stage.receives}")
        if stage.kind == "merge":
            total = self._post.merged(agent, place, number, stage.receives, context)
        else:
            total = self._post.passed_down(agent, place, number, stage.receives)
        if total is not None:
            _receive(agent, total, number, "" if stage.kind == "merge" else agent.above)
            for step in stage.steps:
                if _by_aggregator(step, stage, agent, top):
                    self._do(step, agent, number)
            hand = agent.memory.items("working").get("received")  # nothing where it was called to mind in vain
            if stage.kind == "merge" and not top:
                rows.ledger += self._post.send_up(agent, place, number, stage.receives, context, stage.own)
            elif hand is not None:
                rows.ledger += self._post.deliver(agent, place, number, stage.receives, hand)
        if stage.last:
            self._finish(number, place, agent, rows, save=True)
        return stage.last

    def _finish(self, number: int, place: int, agent: Agent, rows: Rows, save: bool) -> None:
        if self._plan.measured(number) and len(agent.test_ids) and "model" in agent.models:
            self._measure(number, place, agent, rows)
        rows.memory += self._held(place, agent)
        rows.stores += self._served(place, agent)
        agent.memory.rest()
        if save:
            self._keeper.save(place, agent, number)

    def _measure(self, number: int, place: int, agent: Agent, rows: Rows) -> None:
        measure = DATA_KINDS[self._plan.kind].function.measure
        found = measure(agent, self._plan.metrics, self._plan.predict, self._context(number))
        rows.metrics += [[place, name, value, weight] for name, (value, weight) in found.items()]

    def _served(self, place: int, agent: Agent) -> list[list[Any]]:
        """Return what each declared memory holds and how it served in the round, which begins anew."""
        served: list[list[Any]] = []
        for name, declared in sorted(agent.memory.declared.items()):
            if declared.kind == "sensory" and agent.samples:
                served.append([place, name, "sensory", *self._samples(agent), 0, 0, 0.0, 0, 0])
            elif name in agent.memory.stores:
                store = agent.memory.stores[name]
                said = store.statistics
                counted = [said.hits, said.misses, said.mean_age, said.refused, said.evicted]
                served.append([place, name, declared.kind, said.items, said.bytes, *counted])
                store.begin_statistics()
        return served

    def _samples(self, agent: Agent) -> tuple[int, int]:
        """Return how many private training samples an agent has, and their bytes with their labels."""
        return agent.samples, agent.samples * self._world.bytes_each

    def _held(self, place: int, agent: Agent) -> list[list[Any]]:
        held_weights: list[torch.Tensor] = [value for model in agent.models.values() for value in model.parameters()]
        held_weights += [value for module in agent.parked.values() for value in module.values()]
        weights, tensors = sum(value.numel() for value in held_weights), len(held_weights)
        held = []
        for kind in KINDS:
            items, size = agent.memory.count(kind), agent.memory.bytes(kind)
            for store in agent.memory.stores.values():
                if store.declaration.kind == kind:
                    items, size = items + store.statistics.items, size + store.statistics.bytes
            if kind == "sensory":
                items, size = self._samples(agent)
            elif kind == "procedural":
                items, size = items + tensors, size + weights * 4
            if size:
                held.append([place, kind, items, size])
        return held


def _by_aggregator(step: StepPlan, stage: StagePlan, agent: Agent, top: bool) -> bool:
    """Whether an aggregator does a step of this stage."""
    if step.operation in NEED_A_MODEL and "model" not in agent.models:
        return False
    if step.parameters.get("who") == "top":
        return top and stage.kind == "merge"
    return stage.kind == "relay" or top or stage.own


def _receive(agent: Agent, knowledge: Knowledge | None, number: int, contributor: str) -> None:
    """Put what an agent received in the place of what an exchange before this one brought, even if it is nothing.

    ``contributor``: whose it is where its rows do not say; "" is the agent itself, which merged it.
    """
    held = {key: item for key, item in agent.memory.items("working").items() if key != "received"}
    agent.memory.drop("working")
    for key, item in held.items():
        agent.memory.hold("working", key, item.knowledge, item.round, item.contributor)
    if knowledge is not None:
        agent.memory.hold("working", "received", knowledge, number, contributor)
