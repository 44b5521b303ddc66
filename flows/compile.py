"""From a spec and who holds what to a plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from .. import __version__
from ..specs.schema import AgentGroup, Recipe, Spec, Spread
from ..tasks.architecture import Architecture
from ..tasks.choice import Choice
from ..tasks.models import architecture
from ..tasks.patterns import PATTERNS, Topology
from ..tasks.streams import numpy_stream
from .holdings import Holdings
from .plan import AgentPlan, Plan
from .predict import answers, exchange_bytes, traffic, work
from .rounds import draw, schedule
from .stages import exchange_plans, stage_plans


def digest_of(spec: Spec, data_digest: str, partition_digest: str, origin: Plan | None = None) -> str:
    """Return the run's digest: everything that can change a number, and nothing else.

    ``origin``: the plan of the run that it goes on from.
    """
    said = spec.model_dump(
        mode="json", by_alias=True, exclude={"engine", "name", "cite", "continue_", "schedule", "deploy", "track"}
    )
    said["data"].pop("root")
    for words in ("cite", "differs"):
        said["recipe"].pop(words)
    for part in (*said["agents"], said["data"]["public"] or {}):  # a key that says nothing makes no other run
        for key in ("site", "dataset"):
            if part.get(key, "") is None:
                del part[key]
    parts = [__version__, said, data_digest, partition_digest, *([origin.digest] if origin is not None else [])]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def compile_spec(spec: Spec, holdings: Holdings, origin: Plan | None = None) -> Plan:
    """Return the plan of ``spec``, which goes on from the run of the plan ``origin``, or starts anew.

    Raises ``ValueError`` (``ShapeError``) for what :mod:`.check` did not rule out.
    """
    classes = len(holdings.labels)
    learners = [agent for group in spec.agents for agent in _learners(spec, group, holdings, classes)]
    learners = [
        replace(agent, samples=len(train), test_samples=len(test))
        for agent, train, test in zip(learners, holdings.partition.train, holdings.partition.test, strict=True)
    ]
    topology: Topology = PATTERNS[spec.pattern.name].function(spec.pattern.parameters, len(learners))
    topology = _with_models(topology, spec.recipe)
    learners = _under(learners, topology)
    aggregators = _aggregators(topology, holdings, classes, len(learners))
    exchanges = tuple(exchange_plans(spec.recipe))
    known = _architectures(spec, holdings)
    exchanges = tuple(
        exchange_bytes(exchange, answer, learners, known, spec.recipe, holdings, topology)
        for exchange, answer in zip(exchanges, answers(spec.recipe), strict=True)
    )
    companion = _companion(spec, holdings)
    learners = [
        replace(a, work=work(spec.recipe, a, known[str(a.architecture)], companion, len(holdings.public)))
        for a in learners
    ]
    central = spec.pattern.name != "decentralized"
    graph = None if central else spec.pattern.parameters.graph
    start, stages = stage_plans(spec.recipe, topology, central)
    before = 0 if origin is None else origin.counted(origin.rounds)
    return Plan(
        name=spec.name,
        digest=digest_of(spec, holdings.digest, holdings.partition.digest(), origin),
        seed=spec.seed,
        rounds=spec.rounds,
        pattern=spec.pattern.name,
        recipe=spec.recipe.name,
        agents=(*learners, *aggregators),
        learners=len(learners),
        start=start,
        stages=stages,
        exchanges=exchanges,
        edges=() if graph is None else draw(spec.seed, learners, graph, 0),
        schedule=schedule(
            spec.seed,
            spec.rounds,
            learners,
            traffic(len(learners), exchanges),
            spec.participation,
            graph,
            central and bool(exchanges),
            before,
        ),
        companion=None if spec.recipe.companion is None else spec.recipe.companion.model_dump(mode="json"),
        memories={name: said.model_dump(mode="json", by_alias=True) for name, said in spec.recipe.memories.items()},
        classes=classes,
        input_shape=holdings.input_shape,
        public=len(holdings.public),
        public_labelled=bool(spec.data.public and spec.data.public.labelled),
        measure_every=spec.measure.every,
        metrics=tuple(spec.measure.metrics),
        predict=spec.measure.predict,
        kind=holdings.kind,
        before=before,
    )


def agent_names(spec: Spec) -> list[str]:
    """Return the learners' names, in order."""
    return [name for group in spec.agents for name in names_in(group)]


def names_in(group: AgentGroup) -> list[str]:
    """Return the names of a group's agents: the group's own where it is one, else numbered from 1."""
    return [group.name] if group.count == 1 else [f"{group.name}-{i + 1}" for i in range(group.count)]


def _drawn(seed: int, name: str, key: str, said: float | Spread | None) -> float | None:
    if not isinstance(said, Spread):
        return said
    low, high = sorted((said.low, said.high))
    return float(low * (high / low) ** numpy_stream(seed, key, name).random())


def _learners(spec: Spec, group: AgentGroup, holdings: Holdings, classes: int) -> list[AgentPlan]:
    made = architecture(group.model.name, group.model.parameters, holdings.input_shape, classes)
    return [
        AgentPlan(
            name=name,
            group=group.name,
            role="learner",
            tier=-1,
            parent=None,
            model=group.model.model_dump(mode="json"),
            architecture=made.name,
            initial=group.initial,
            samples=0,
            test_samples=0,
            work=0.0,
            speed=_drawn(spec.seed, name, "speed", group.speed),
            bandwidth=_drawn(spec.seed, name, "bandwidth", group.bandwidth),
            latency=group.latency,
            availability=group.availability,
            joins=group.joins,
            leaves=group.leaves,
            site=group.site or "" if spec.engine.kind == "sites" else "",
        )
        for name in names_in(group)
    ]


def _under(learners: list[AgentPlan], topology: Topology) -> list[AgentPlan]:
    if not topology.parents:
        return learners
    return [replace(a, parent=len(learners) + p) for a, p in zip(learners, topology.parents, strict=True)]


def takes_model(recipe: Recipe, tier: int, tiers: int, forward: str) -> bool:
    """Whether an aggregator to which the pattern gives no model has the recipe's."""
    return recipe.above is not None and (tier == tiers - 1 or forward == "own")


def _with_models(topology: Topology, recipe: Recipe) -> Topology:
    """Return ``topology`` with the recipe's model for those above to which the pattern gives none."""
    made = tuple(
        replace(one, model=recipe.above)
        if one.model is None and takes_model(recipe, one.tier, topology.tiers, topology.forward)
        else one
        for one in topology.aggregators
    )
    return replace(topology, aggregators=made)


def _aggregators(topology: Topology, holdings: Holdings, classes: int, learners: int) -> list[AgentPlan]:
    made: list[AgentPlan] = []
    # Above sites there is nothing to test with: their test data stay with them.
    tested = sum(len(ids) for ids in holdings.partition.test) if holdings.told else 0
    for one in topology.aggregators:
        model, identity = None, None
        if one.model is not None:
            model = one.model.model_dump(mode="json")
            identity = architecture(one.model.name, one.model.parameters, holdings.input_shape, classes).name
        parent = None if one.parent is None else learners + one.parent
        made.append(
            AgentPlan(
                one.name,
                one.tier_name,
                one.tier_name,
                one.tier,
                parent,
                model,
                identity,
                "shared",
                0,
                tested if model else 0,
                0.0,
            )  # fmt: skip
        )
    return made


def _companion(spec: Spec, holdings: Holdings) -> Architecture | None:
    chosen = spec.recipe.companion
    if chosen is None:
        return None
    return architecture(chosen.name, chosen.parameters, holdings.input_shape, len(holdings.labels))


def _architectures(spec: Spec, holdings: Holdings) -> dict[str, Architecture]:
    chosen: list[Choice] = [group.model for group in spec.agents]
    if spec.recipe.companion is not None:
        chosen.append(spec.recipe.companion)
    made = [architecture(c.name, c.parameters, holdings.input_shape, len(holdings.labels)) for c in chosen]
    return {a.name: a for a in made}
