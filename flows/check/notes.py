"""Remarks that do not keep a spec from running."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
import numpy as np

from ...specs.document import Loaded
from ...specs.problems import dotted
from ...specs.schema import Spec
from ...tasks.parameters import When
from ...tasks.patterns import GRAPHS
from ...tasks.terms import TERMS
from ..compile import agent_names
from ..holdings import Holdings
from .memories import put_into
from .recipe import moments, needs_companion, recalls

MANY_ROWS = 5_000_000


def notes(loaded: Loaded[Spec], holdings: Holdings | None = None) -> list[str]:
    """Return one sentence for each thing that may not be what was meant; more with the data at hand."""
    spec = loaded.value
    found = [*_clock(spec), *_presence(spec), *_told_once(spec), *_links(spec), *_recipe(spec)]
    rows = spec.rounds * sum(group.count for group in spec.agents)
    if rows > MANY_ROWS:
        found.append(f"{rows:,} pairs of agent and round make large tables; `measure.every` makes them smaller.")
    return found if holdings is None else [*found, *_shares(spec, holdings)]


def _clock(spec: Spec) -> Iterator[str]:
    said = spec.participation
    timed = any(group.speed or group.bandwidth or group.latency for group in spec.agents)
    if said.deadline is not None and not timed:
        yield "Nobody misses the deadline: no agent has a speed, bandwidth or latency."
    if said.deadline is None and said.late == "next":
        yield "`participation.late` says nothing without a deadline."


def _presence(spec: Spec) -> Iterator[str]:
    for group in spec.agents:
        if group.joins > spec.rounds:
            yield f"{group.name} is never there: it joins in round {group.joins}, and the run has {spec.rounds}."
    first = 1
    for group in sorted(spec.agents, key=lambda one: one.joins):
        if group.joins > first:
            break
        first = max(first, (group.leaves or spec.rounds) + 1)
    if first <= spec.rounds:
        yield f"Nobody is there in round {first}."


def _told_once(spec: Spec) -> Iterator[str]:
    """Tell that who is away while keys travel stays unknown."""
    said = spec.participation
    always = said.share == 1 and all(g.availability == 1 and g.joins == 1 for g in spec.agents)
    for step in spec.recipe.round:
        when = getattr(step.parameters, "keys_when", None)
        if isinstance(when, When) and when.until is not None and (not always or said.deadline is not None):
            yield (
                f"Who is away in the rounds up to {when.until} never tells labels and keys, and nothing is found "
                "for it; with `keys_when: first` each agent tells them once."
            )


def _links(spec: Spec) -> Iterator[str]:
    if spec.pattern.name != "decentralized":
        return
    graph, names = spec.pattern.parameters.graph, agent_names(spec)
    if graph.name == "pairs" and len(names) % 2:
        yield f"With {len(names)} agents one of them has no partner in each round."
    if graph.name == "torus" and all(len(names) % rows for rows in range(2, int(len(names) ** 0.5) + 1)):
        yield f"A torus over {len(names)} agents is a ring: the number has no two factors."
    if graph.name == "edges" and {end for pair in graph.parameters.links for end in pair} <= set(names):
        network = nx.Graph(GRAPHS["edges"].function(graph.parameters, names, np.random.default_rng(0)))
        network.add_nodes_from(range(len(names)))
        parts = sorted(nx.connected_components(network), key=lambda part: (-len(part), min(part)))
        for part in parts[1:6]:
            members = [names[place] for place in sorted(part)]
            shown = ", ".join(members[:5]) + (f" and {len(members) - 5} more" if len(members) > 5 else "")
            yield f"No links lead from {shown} to the other agents."
        if len(parts) > 6:
            yield f"The links leave {len(parts)} parts that are cut off from each other."


def _recipe(spec: Spec) -> Iterator[str]:
    steps = spec.recipe.round
    for index, step in enumerate(steps):
        if step.name == "retrieve" and step.parameters.who != "top":  # what the top retrieves is sent back
            after = {recalls(term) for s in steps[index + 1 :] if s.name == "train" for term in s.parameters.losses}
            if step.parameters.knowledge not in after:
                yield f"Remembered {step.parameters.knowledge} are retrieved and no later step uses them."
    trained = [term for step in steps if step.name == "train" for term in step.parameters.losses]
    if spec.recipe.companion is not None and not any(map(needs_companion, trained)):
        names = [entry.name for entry in TERMS if getattr(entry.parameters, "needs_companion", False)]
        yield f"The companion never learns: no `train` has the term {' or '.join(names)}."
    for path, when in moments(spec.recipe):
        if when.first > spec.rounds:
            yield f"{dotted(path)} begins in round {when.first}, and the run has {spec.rounds}."
    used = {getattr(step.parameters, "memory", None) for step in steps if step.name not in ("store", "extract")}
    everything = any(step.name == "forget" and step.parameters.memory is None for step in steps)
    for name in (name for name, said in spec.recipe.memories.items() if said.kind != "sensory"):
        told = any(step.name == "extract" and getattr(step.parameters, "memory", None) == name for step in steps)
        if not told and not put_into(spec.recipe, name):
            yield f"The memory {name} stays empty: nothing is ever stored in it."
        elif name not in used and not everything:
            yield f"Nothing ever retrieves, consolidates or forgets what is stored in {name}."


def _shares(spec: Spec, holdings: Holdings) -> Iterator[str]:
    names = agent_names(spec)
    for what, parts, effect in (
        ("training", holdings.partition.train, "learn from what they receive alone"),
        ("test", holdings.partition.test, "are not measured"),
    ):
        empty = [name for name, ids in zip(names, parts, strict=True) if not len(ids)]
        if empty:
            shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
            yield f"Without {what} samples, {shown} {effect}."
    if not holdings.told:
        return
    train, test = holdings.partition.left_out(len(holdings.y_train), len(holdings.y_test))
    train = np.setdiff1d(train, holdings.public)
    if len(train) or len(test):
        yield f"No agent holds {len(train):,} of the training and {len(test):,} of the test samples."
