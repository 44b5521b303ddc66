"""What a plan will cost: bytes of each packet, floating point operations of each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..specs.schema import Recipe
from ..tasks.architecture import Architecture
from ..tasks.models import architecture
from ..tasks.patterns import Topology
from ..tasks.share import EncodingChoice
from ..tasks.sizes import exact, model_bytes, rows_bytes
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
            returned.append(model_bytes(down, model))
        elif exchange.form == "logits":
            sent.append(rows_bytes(up, len(holdings.public), classes, weighted))
            returned.append(rows_bytes(down, len(holdings.public), classes, True))
        else:
            assert learner.architecture is not None
            width = classes if exchange.form == "class_logits" else known[learner.architecture].features
            sent.append(rows_bytes(up, int(held), width, weighted))
            returned.append(rows_bytes(down, int(everything), width, True))
    if not topology.aggregators:
        returned = [0] * len(learners)
    return replace(exchange, up_bytes=tuple(sent), down_bytes=tuple(returned), exact=exact(up) and exact(down))


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


def traffic(learners: int, exchanges: Sequence[ExchangePlan]) -> list[Traffic]:
    """Return the predicted bytes of a round for each learner."""
    return [
        Traffic(sum(e.up_bytes[i] for e in exchanges), sum(e.down_bytes[i] for e in exchanges)) for i in range(learners)
    ]


def work(recipe: Recipe, agent: AgentPlan, model: Architecture, companion: Architecture | None, public: int) -> float:
    """Return the floating point operations of one round: two a multiply-add, three passes a training sample."""
    named = {"model": model.multiply_adds, "companion": companion.multiply_adds if companion is not None else 0}
    total = 0.0
    for step in recipe.round:
        said = step.parameters
        if step.name == "train":
            samples = agent.samples if said.on == "private" else public
            terms = {term.name for term in said.losses}
            both = any(getattr(term.parameters, "needs_companion", False) for term in said.losses)
            trained = named["model"] + (named["companion"] if both else 0)
            total += 2.0 * samples * (3 * said.epochs * trained + ("not_true" in terms) * named["model"])
        elif step.name == "extract" and said.knowledge == "logits":
            total += 2.0 * public * named[said.of]
        elif step.name == "extract" and getattr(said, "source", "") == "private":
            total += 2.0 * agent.samples * named[said.of]
        elif step.name == "absorb" and said.by == "distil":
            total += 6.0 * said.epochs * public * named["model"]
    return total
