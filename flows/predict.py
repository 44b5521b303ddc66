"""What a plan will cost: bytes of each packet, floating point operations of each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ..specs.schema import Recipe
from ..tasks.architecture import Architecture
from ..tasks.models import architecture
from ..tasks.parameters import When, due
from ..tasks.patterns import Topology
from ..tasks.share import EncodingChoice
from ..tasks.sizes import COLUMN, exact, model_bytes, rows_bytes
from .holdings import Holdings
from .plan import AgentPlan, ExchangePlan
from .rounds import Traffic


def exchange_bytes(
    exchange: ExchangePlan,
    learners: Sequence[AgentPlan],
    known: Mapping[str, Architecture],
    recipe: Recipe,
    holdings: Holdings,
    topology: Topology,
) -> ExchangePlan:
    """Return ``exchange`` with the bytes that each learner sends up and gets back, were everybody to take part."""
    up, down = (EncodingChoice.model_validate(said) for said in (exchange.up, exchange.down))
    counts = [np.unique(holdings.y_train[ids]).size for ids in holdings.partition.train]
    everything = np.unique(np.concatenate([holdings.y_train[ids] for ids in holdings.partition.train])).size
    classes = len(holdings.labels)
    sent, returned = [], []
    weighted = exchange.rule["weight"] == "samples"
    for learner, held in zip(learners, counts, strict=True):
        if exchange.form == "parameters":
            model = _sent_model(exchange, learner, recipe, holdings, known)
            sent.append(model_bytes(up, model))
            returned.append(sum(model_bytes(down, one) for one in _returned(exchange, model, learner, learners, known)))
        elif exchange.form == "logits":
            scored = len(holdings.public) if exchange.extract["from"] == "public" else learner.samples
            told = _told_bytes(exchange, scored, known, learner)
            sent.append(rows_bytes(up, scored, classes, weighted) + told)
            returned.append(rows_bytes(down, scored, classes, True))
        else:
            assert learner.architecture is not None
            width = classes if exchange.form == "class_logits" else known[learner.architecture].features
            sent.append(rows_bytes(up, int(held), width, weighted))
            returned.append(rows_bytes(down, int(everything), width, True))
    if not topology.aggregators:
        returned = [0] * len(learners)
    plain = not (exchange.extract.get("keys") or exchange.extract.get("labels"))
    return replace(
        exchange, up_bytes=tuple(sent), down_bytes=tuple(returned), exact=plain and exact(up) and exact(down)
    )


def _told_bytes(exchange: ExchangePlan, rows: int, known: Mapping[str, Architecture], learner: AgentPlan) -> int:
    """Return the most that labels and keys of ``rows`` samples add to a packet."""
    told = rows * 4 + COLUMN if exchange.extract["labels"] else 0
    if exchange.extract["keys"] is not None:
        ((name, said),) = exchange.extract["keys"].items()
        width = known[str(learner.architecture)].features if name == "features" else said["width"]
        told += rows * width * 4 + COLUMN
    return told


def _returned(
    exchange: ExchangePlan,
    own: Architecture,
    learner: AgentPlan,
    learners: Sequence[AgentPlan],
    known: Mapping[str, Architecture],
) -> list[Architecture]:
    """Return the models that come back to a learner: that of its own kind, or all that others gave."""
    if exchange.extract["of"] == "companion" or not exchange.rule["exclude_self"]:
        return [own]
    return [known[name] for name in dict.fromkeys(str(other.architecture) for other in learners if other != learner)]


def _sent_model(
    exchange: ExchangePlan,
    learner: AgentPlan,
    recipe: Recipe,
    holdings: Holdings,
    known: Mapping[str, Architecture],
) -> Architecture:
    if exchange.extract["of"] == "companion":
        assert recipe.companion is not None
        chosen = recipe.companion
        return architecture(chosen.name, chosen.parameters, holdings.input_shape, len(holdings.labels))
    assert learner.architecture is not None
    return known[learner.architecture]


def traffic(learners: int, exchanges: Sequence[ExchangePlan]) -> Callable[[int], Sequence[Traffic]]:
    """Return what tells for a round the predicted bytes of each learner, in the exchanges that take place in it."""

    @cache
    def of(there: tuple[int, ...]) -> Sequence[Traffic]:
        some = [exchanges[index] for index in there]
        return [Traffic(sum(e.up_bytes[i] for e in some), sum(e.down_bytes[i] for e in some)) for i in range(learners)]

    rules = [None if e.rule.get("when") is None else When.model_validate(e.rule["when"]) for e in exchanges]
    return lambda number: of(tuple(index for index, when in enumerate(rules) if due(when, number)))


def work(recipe: Recipe, agent: AgentPlan, model: Architecture, companion: Architecture | None, public: int) -> float:
    """Return the floating point operations of one round: two a multiply-add, three passes a training sample."""
    named = {"model": model.multiply_adds, "companion": companion.multiply_adds if companion is not None else 0}
    total = 0.0
    for step in recipe.round:
        said = step.parameters
        if step.name == "train":
            samples = agent.samples if said.on == "private" else public
            terms = {term.name for term in said.losses}
            trained = named["model"] + (named["companion"] if terms & {"mutual", "adaptive_mutual"} else 0)
            total += 2.0 * samples * (3 * said.epochs * trained + ("not_true" in terms) * named["model"])
        elif step.name == "extract" and said.knowledge == "logits":
            total += 2.0 * (public if said.source == "public" else agent.samples) * named[said.of]
        elif step.name == "extract" and getattr(said, "source", "") == "private":
            total += 2.0 * agent.samples * named[said.of]
        elif step.name == "absorb" and said.by == "distil":
            total += 6.0 * said.epochs * public * named["model"]
        elif step.name == "absorb" and said.by == "mutual":
            total += 6.0 * said.epochs * agent.samples * 2 * named["model"]
        elif step.name == "absorb" and said.by == "bridge_samples":
            total += 6.0 * said.epochs * agent.samples * named["model"] * (1 + bool(said.own_ce_weight))
    return total
