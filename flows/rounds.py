"""Round by round: who is there, who takes part, who is late, and what the simulated clock says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..specs.schema import Participation
from ..tasks.choice import Choice
from ..tasks.patterns import GRAPHS, changes
from ..tasks.streams import numpy_stream
from .plan import AgentPlan, RoundPlan


@dataclass(frozen=True)
class Cost:
    """What a round costs a learner in simulated seconds."""

    compute: float
    transfer: float


@dataclass(frozen=True)
class Traffic:
    """Bytes that a learner sends and gets in a round: to and from its aggregator, or along each link to a peer."""

    up: int
    down: int


def cost(agent: AgentPlan, up: int, down: int) -> Cost:
    """Return the simulated seconds of one round in which ``up`` and ``down`` bytes pass the agent's link."""
    compute = agent.work / (agent.speed * 1e9) if agent.speed else 0.0
    transfer = (up + down) * 8 / (agent.bandwidth * 1e6) if agent.bandwidth else 0.0
    packets = (up > 0) + (down > 0)
    return Cost(compute, transfer + agent.latency * packets)


def schedule(
    seed: int,
    rounds: int,
    learners: Sequence[AgentPlan],
    traffic: Callable[[int], Sequence[Traffic]],
    participation: Participation,
    graph: Choice | None,
    central: bool,
    before: int = 0,
) -> tuple[RoundPlan, ...]:
    """Return the plan of every round. ``central``: an aggregator can bring a returning agent up to date.

    ``traffic``: what each learner sends and gets in a round. Presence and choice come from streams by round and agent:
    adding an agent changes nobody else's presence. ``before``: rounds done by the runs that this one goes on from, from
    which ``joins``, ``leaves`` and the streams are counted.
    """
    made: list[RoundPlan] = []
    everybody = tuple(range(len(learners)))
    links = None if graph is None else draw(seed, learners, graph, 0)
    fresh: set[int] | None = None  # who has what was delivered last; None: nothing was yet
    late_before: tuple[int, ...] = ()
    clock = 0.0
    for number in range(1, rounds + 1):
        counted = before + number
        there = [i for i in everybody if _there(seed, learners[i], counted)]
        chosen = _choose(seed, there, learners, participation, counted)
        returning = tuple(i for i in chosen if central and fresh is not None and i not in fresh)
        edges = _edges(seed, learners, graph, counted)
        passed = _passed(chosen, traffic(counted), returning, links if edges is None else edges)
        seconds = [_seconds(learners[i], passed[i]) for i in chosen]
        deadline = participation.deadline
        late = tuple(i for i, s in zip(chosen, seconds, strict=True) if deadline is not None and s > deadline)
        duration = max((s for s in seconds if deadline is None or s <= deadline), default=0.0)
        clock += deadline if late and deadline is not None else duration
        stale = tuple(i for i in late_before if i not in chosen or i in late) if participation.late == "next" else ()
        made.append(
            RoundPlan(
                number,
                None if chosen == everybody else chosen,
                late,
                stale,
                returning,
                tuple(i for i in everybody if i not in there),
                edges,
                clock,
            )
        )
        late_before = late
        if stale or len(late) < len(chosen):
            fresh = set(chosen)
    return tuple(made)


def _passed(
    chosen: Sequence[int], traffic: Sequence[Traffic], returning: Sequence[int], links: Sequence[tuple[int, int]] | None
) -> dict[int, Traffic]:
    """Return the bytes that pass each chosen agent's link: with its aggregator, or with the peers that it has now."""
    if links is None:
        again = set(returning)
        return {i: Traffic(traffic[i].up, traffic[i].down * (2 if i in again else 1)) for i in chosen}
    sent, received = dict.fromkeys(chosen, 0), dict.fromkeys(chosen, 0)
    for a, b in links:
        if a in sent and b in sent:
            for sender, receiver in ((a, b), (b, a)):
                sent[sender] += traffic[sender].up
                received[receiver] += traffic[sender].up
    return {i: Traffic(sent[i], received[i]) for i in chosen}


def _seconds(agent: AgentPlan, passed: Traffic) -> float:
    spent = cost(agent, passed.up, passed.down)
    return spent.compute + spent.transfer


def _there(seed: int, agent: AgentPlan, number: int) -> bool:
    if number < agent.joins or (agent.leaves is not None and number > agent.leaves):
        return False
    return agent.availability >= 1 or numpy_stream(seed, "there", agent.name, number).random() < agent.availability


def _choose(
    seed: int, there: list[int], learners: Sequence[AgentPlan], said: Participation, number: int
) -> tuple[int, ...]:
    wanted = min(len(there), max(said.minimum, round(said.share * len(there))))
    if wanted == len(there):
        return tuple(there)
    drawn = {i: numpy_stream(seed, "chosen", learners[i].name, number).random() for i in there}
    return tuple(sorted(sorted(there, key=lambda i: drawn[i])[:wanted]))


def _edges(
    seed: int, learners: Sequence[AgentPlan], graph: Choice | None, number: int
) -> tuple[tuple[int, int], ...] | None:
    if graph is None or not changes(graph):
        return None
    return draw(seed, learners, graph, number)


def draw(seed: int, learners: Sequence[AgentPlan], graph: Choice, number: int) -> tuple[tuple[int, int], ...]:
    """Return the links of the graph as drawn for round ``number``."""
    generator: np.random.Generator = numpy_stream(seed, "graph", number)
    return tuple(GRAPHS[graph.name].function(graph.parameters, [a.name for a in learners], generator))
