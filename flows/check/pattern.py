"""Whether a pattern can be laid over the agents, and a recipe over the pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...specs.problems import Path, suggestion
from ...specs.schema import Spec
from ...tasks.choice import Choice
from ...tasks.operations import NEED_A_MODEL
from ...tasks.patterns import GRAPHS, PATTERNS, changes
from ...tasks.streams import numpy_stream
from ..compile import agent_names, names_in, takes_model
from .exchange import described, identity
from .places import Finding, in_round
from .recipe import exchanges, received, roles

FEW = 300
"""Up to so many agents a random graph is drawn to see whether it can be; above, its chance is computed."""
REDRAWN = 50
"""At most so many rounds of a graph that is drawn anew are tried."""


def of_pattern(spec: Spec) -> Iterator[Finding]:
    """Find names that two agents have, trees and graphs that do not exist, and aggregators with nothing to do."""
    yield from _names(spec)
    yield from _topology(spec)
    if spec.pattern.name == "decentralized":
        yield from _graph(spec)
        yield from _peers(spec)
    else:
        yield from _aggregators(spec)
        yield from _top(spec)
    yield from _contributors(spec)
    if spec.pattern.name == "hierarchical" and spec.pattern.parameters.forward == "own":
        yield from _forward(spec)


def tiers(spec: Spec) -> list[tuple[Path, Any, int]]:
    """Return the path, the parameters and the number of agents of each tier of aggregators.

    A tier that takes the recipe's model has it here.
    """
    said = spec.pattern.parameters
    found: list[tuple[Path, Any, int]] = []
    if spec.pattern.name == "distributed":
        found = [(("pattern", "distributed", "server"), said.server, 1)]
    elif spec.pattern.name == "hierarchical":
        found = [(("pattern", "hierarchical", "tiers", i), tier, tier.count) for i, tier in enumerate(said.tiers)]
    forward = getattr(said, "forward", "merged")
    return [
        (path, tier.model_copy(update={"model": spec.recipe.above}), count)
        if tier.model is None and takes_model(spec.recipe, index, len(found), forward)
        else (path, tier, count)
        for index, (path, tier, count) in enumerate(found)
    ]


def _names(spec: Spec) -> Iterator[Finding]:
    named: list[tuple[Path, list[str]]] = [
        (("agents", index, "name"), names_in(group)) for index, group in enumerate(spec.agents)
    ]
    for path, tier, count in tiers(spec):
        if tier.name == "learner":
            yield Finding((*path, "name"), "learner is what the agents with data are called", "take another name")
        names = [tier.name] if count == 1 else [f"{tier.name}-{index + 1}" for index in range(count)]
        named.append(((*path, "name"), names))
    seen: dict[str, Path] = {}
    for path, names in named:
        twice = next((name for name in names if name in seen), None)
        if twice is not None:
            place, other = (path, seen[twice]) if path[0] == "agents" else (seen[twice], path)
            yield Finding(place, f"two agents are called {twice!r}", "take another name", (other,))
        seen |= dict.fromkeys(names, path)


def _topology(spec: Spec) -> Iterator[Finding]:
    name = spec.pattern.name
    try:
        PATTERNS[name].function(spec.pattern.parameters, sum(group.count for group in spec.agents))
    except ValueError as error:
        if name == "hierarchical":
            yield Finding(("pattern", name, "tiers", 0, "count"), str(error), "lower the count, or add agents")
        else:
            yield Finding(("pattern",), str(error), "add agents, or take another pattern", (("agents", 0, "count"),))


def _graph(spec: Spec) -> Iterator[Finding]:
    graph, names = spec.pattern.parameters.graph, agent_names(spec)
    path = ("pattern", "decentralized", "graph", graph.name)
    if len(names) < 2 or graph.name in ("ring", "torus", "complete", "pairs", "exponential"):
        return
    if graph.name == "edges":
        yield from _links((*path, "links"), graph.parameters.links, names)
        return
    key = {"k-regular": "degree", "erdos-renyi": "probability"}.get(graph.name)
    place = path if key is None else (*path, key)
    if len(names) > FEW and graph.name == "erdos-renyi":
        lonely = len(names) * (1 - graph.parameters.probability) ** (len(names) - 1)
        if lonely > 25:
            message = f"about {lonely:,.0f} of {len(names)} agents would have no neighbour, so it is never connected"
            yield Finding(place, message, "raise the probability")
        return
    rounds = min(spec.rounds, REDRAWN) if changes(graph) and len(names) <= FEW else 0
    try:
        for number in range(rounds + 1):
            GRAPHS[graph.name].function(graph.parameters, names, numpy_stream(spec.seed, "graph", number))
    except ValueError as error:
        yield Finding(place, str(error))


def _links(path: Path, links: Sequence[tuple[str, str]], names: Sequence[str]) -> Iterator[Finding]:
    there = set(names)
    example = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    for index, pair in enumerate(links):
        if pair[0] == pair[1]:
            yield Finding((*path, index), f"{pair[0]!r} is linked with itself", "name two agents")
        for end, name in enumerate(pair):
            if name not in there and name not in pair[:end]:
                hint = suggestion(name, names[:1000])
                yield Finding((*path, index, end), f"no agent is called {name!r}; the agents are {example}", hint)


def _peers(spec: Spec) -> Iterator[Finding]:
    for index, step in enumerate(spec.recipe.round):
        if getattr(step.parameters, "who", "learners") == "aggregators":
            hint = "write `who: learners` or `who: all`, or take another pattern"
            yield Finding(in_round(index, step.name, "who"), "peers have no aggregators to do this", hint)
        if step.name == "aggregate" and getattr(step.parameters, "central", False):
            message = f"the rule {step.parameters.by} needs somebody in the middle to whom everybody tells something"
            yield Finding(in_round(index, "aggregate", "by"), message, "take `distributed` or `hierarchical`")


def _aggregators(spec: Spec) -> Iterator[Finding]:
    known = exchanges(spec.recipe)
    mine = [
        (index, step)
        for index, step in enumerate(spec.recipe.round)
        if step.name in NEED_A_MODEL and "top" in roles(step.parameters.who) and received(known, index)
    ]
    own = getattr(spec.pattern.parameters, "forward", "merged") == "own"
    known_tiers = tiers(spec)
    modelled = [(path, tier) for path, tier, _ in known_tiers if tier.model is not None]
    for path, tier in modelled:
        if not mine and not own:
            message = f"{tier.name} has a model that no step of the recipe uses"
            hint = "remove the model, or let a step be done by `who: all`"
            yield Finding((*path, "model"), message, hint)
    for index, step in mine:
        who = step.parameters.who
        (_, first, _), (_, last, _) = known_tiers[0], known_tiers[-1]
        if who == "aggregators" and not modelled:
            hint = f"give {first.name} a `model` under `pattern`, or write `who: learners`"
            message = "this is for aggregators with a model, and none has one"
            yield Finding(in_round(index, step.name, "who"), message, hint)
        elif who == "top" and last.model is None:
            hint = f"give {last.name} a `model` under `pattern`, or write `who: learners`"
            yield Finding(
                in_round(index, step.name, "who"), f"{last.name}, the top, has no model to do this with", hint
            )
        elif step.name == "absorb" and step.parameters.by == "replace" and step.parameters.of == "model":
            yield from _replaced(spec, modelled)


def _top(spec: Spec) -> Iterator[Finding]:
    """Find where aggregators would need samples of their own, and where all that was collected would be sent back."""
    known, steps = exchanges(spec.recipe), spec.recipe.round
    for index, step in enumerate(steps):
        said = step.parameters
        if step.name != "retrieve" or said.by.name not in ("id", "nearest"):
            continue
        if said.who in ("top", "aggregators") and said.asking == "private":
            message = "aggregators have no samples of their own to ask for"
            yield Finding(in_round(index, "retrieve", "for"), message, "write `for: received`")
    for exchange in known:
        for key in ("filters", "select"):
            for place, one in enumerate(getattr(exchange.rule, key)):
                if getattr(one.parameters, "needs_samples", False):
                    message = f"the filter {one.name} looks at an agent's own samples, and aggregators have none"
                    path = (*in_round(exchange.index, "aggregate", key), place)
                    yield Finding(path, message, "let learners filter, in the `extract`, or take another filter")
        following = next((e.index for e in known if e.index > exchange.index), len(steps))
        after = steps[exchange.index : following]
        answered = any(
            (step.name == "retrieve" and step.parameters.who == "top")
            or (step.name == "absorb" and step.parameters.who == "all")  # it says its own in the place of what came
            for step in after
        )
        if exchange.rule.by == "collect" and not answered:
            message = "what was collected would be sent back to everybody as it is"
            hint = "`store` it and `retrieve` from there with `who: top`, or aggregate by mean"
            yield Finding(in_round(exchange.index, "aggregate", "by"), message, hint)


def _contributors(spec: Spec) -> Iterator[Finding]:
    """Find agents to be forgotten that nobody is called."""
    names = agent_names(spec)
    for _, tier, count in tiers(spec):
        names += [tier.name] if count == 1 else [f"{tier.name}-{index + 1}" for index in range(count)]
    for index, step in enumerate(spec.recipe.round):
        name = step.parameters.contributor if step.name == "forget" else None
        if name is not None and name not in names:
            message = f"no agent is called {name!r}; the agents are {names[0]} to {names[-1]}"
            yield Finding(in_round(index, "forget", "contributor"), message, suggestion(name, names[:1000]))


def _replaced(spec: Spec, modelled: list[tuple[Path, Any]]) -> Iterator[Finding]:
    learners: dict[str, Choice] = {group.name: group.model for group in spec.agents}
    known = {identity(model) for model in learners.values()}
    for path, tier in modelled:
        if identity(tier.model) not in known:
            said = described({tier.name: tier.model, **learners})
            message = f"{tier.name} never receives parameters of its architecture ({said})"
            yield Finding((*path, "model"), message, "give it a model that learners have")


def _forward(spec: Spec) -> Iterator[Finding]:
    """Find what keeps a tier from sending on what its own model says."""
    place = ("pattern", "hierarchical", "forward")
    for path, tier, _ in tiers(spec)[:-1]:
        if tier.model is None:
            message = f"{tier.name} has no model, and `forward: own` sends on what a tier's own model says"
            yield Finding((*path, "model"), message, "give it a `model`, or write `forward: merged`", (place,))
    known = exchanges(spec.recipe)
    for exchange in known:
        if exchange.made is None or exchange.extract is None:
            continue
        extract = in_round(exchange.extract, "extract")
        hint = "write `forward: merged`, or take another recipe"
        if exchange.form not in ("logits", "parameters"):
            message = f"with `forward: own` a tier extracts {exchange.form}, and it has no private samples to do so"
            yield Finding(place, message, hint, (extract,))
        elif exchange.made.of == "companion":
            message = "with `forward: own` a tier extracts from its companion, and it has none"
            yield Finding(place, message, hint, (extract,))
        elif exchange.form == "parameters" and len({identity(group.model) for group in spec.agents}) > 1:
            message = "with `forward: own` a tier sends on one architecture, and the learners have more than one"
            yield Finding(place, message, hint)
        if exchange.rule.exclude_self:
            message = "with `forward: own` an agent's own share can no longer be taken out"
            path = in_round(exchange.index, "aggregate", "exclude_self")
            yield Finding(place, message, "write `forward: merged`, or leave exclude_self out", (path,))
    for exchange in known:
        learns = any(
            step.name in ("absorb", "train")
            and "top" in roles(step.parameters.who)
            and received(known, index) == exchange
            for index, step in enumerate(spec.recipe.round)
        )
        if not learns:
            message = "with `forward: own` a tier's model must learn first, and no `absorb` is done by aggregators"
            yield Finding(place, message, "write `who: all` in the recipe's `absorb`")
