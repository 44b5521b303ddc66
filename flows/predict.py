"""What a plan will cost: bytes of each packet, floating point operations of each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from ..specs.schema import Recipe
from ..tasks.aggregate import Aggregate
from ..tasks.architecture import Architecture
from ..tasks.choice import Choice
from ..tasks.extract import Extract
from ..tasks.keys import KeyChoice
from ..tasks.knowledge import FORMS
from ..tasks.models import architecture
from ..tasks.parameters import When, due
from ..tasks.patterns import Topology
from ..tasks.share import EncodingChoice
from ..tasks.sizes import MODEL, TENSOR, exact, model_bytes, rows_bytes, told_bytes
from .holdings import Holdings
from .plan import AgentPlan, ExchangePlan
from .rounds import Traffic


def exchange_bytes(
    exchange: ExchangePlan,
    answer: Any,
    learners: Sequence[AgentPlan],
    known: Mapping[str, Architecture],
    recipe: Recipe,
    holdings: Holdings,
    topology: Topology,
) -> ExchangePlan:
    """Return ``exchange`` with the bytes that each learner sends up and gets back, were everybody to take part.

    ``answer``: the ``retrieve`` of the top whose result is sent back in the place of what was merged, or None.
    """
    up, down = (EncodingChoice.model_validate(said) for said in (exchange.up, exchange.down))
    foretell = getattr(TypeAdapter(Extract).validate_python(exchange.extract), "foretell", None)
    if foretell is not None:
        models = [_sent_model(exchange, learner, recipe, holdings, known) for learner in learners]
        return _foretold(exchange, foretell(holdings, models), up, down, topology)
    counts = [np.unique(holdings.y_train[ids]).size for ids in holdings.partition.train]
    everything = np.unique(np.concatenate([holdings.y_train[ids] for ids in holdings.partition.train])).size
    classes, foretold = len(holdings.labels), exact(up) and exact(down)
    sent, returned, told = [], [], []
    weighted = exchange.rule["weight"] == "samples"
    private = exchange.extract.get("from") in ("private", "bridge") and exchange.form == "logits"
    to_each = exchange.rule["by"] == "train_on_features" or exchange.extract.get("from") == "bridge"
    filtered = bool(exchange.extract.get("filters") or exchange.rule["filters"] or exchange.rule["select"])
    for learner, held in zip(learners, counts, strict=True):
        if exchange.form == "parameters":
            model = _sent_model(exchange, learner, recipe, holdings, known)
            sent.append(model_bytes(up, model))
            returned.append(sum(model_bytes(down, one) for one in _returned(exchange, model, learner, learners, known)))
            continue
        assert learner.architecture is not None
        features = known[learner.architecture].features
        if exchange.form == "logits":
            rows = learner.samples if private else len(holdings.public)
            merged = sum(one.samples for one in learners) if private and not to_each else rows
        else:
            rows, merged = int(held), int(everything)
        sent.append(rows_bytes(up, rows, features if exchange.form == "prototypes" else classes, weighted))
        told.append(
            told_bytes(up, rows, exchange.extract.get("labels", False), _key_width(exchange, features, holdings))
        )
        form = exchange.form if answer is None else answer.knowledge
        if answer is not None:
            own, by_class = answer.by.name == "nearest", FORMS[form].keyed_by == "class"
            merged = rows if own else int(everything) if by_class else merged
        returned.append(
            rows_bytes(down, merged, features if form == "prototypes" else classes, weighted or not to_each)
        )
    if not topology.aggregators:
        returned = [0] * len(learners)
    numbers, tensors = _brought(exchange, learners, known, classes)
    if numbers and topology.aggregators:
        returned = [size + MODEL + tensors * (TENSOR + 24) + numbers * 4 for size in returned]
        foretold = False
    if not holdings.told and FORMS[exchange.form].keyed_by == "class":
        foretold = False  # which classes an agent holds, its site keeps to itself
    foretold &= not filtered and (answer is None or answer.by.name == "nearest")
    more = tuple(told) if any(told) else ()
    return replace(exchange, up_bytes=tuple(sent), down_bytes=tuple(returned), told_bytes=more, exact=foretold)


def _foretold(
    exchange: ExchangePlan, rows: Sequence[tuple[int, int, int]], up: Choice, down: Choice, topology: Topology
) -> ExchangePlan:
    """Return ``exchange`` with the bytes of rows whose number and width the extract itself tells."""
    weighted, apart = exchange.rule["weight"] == "samples", exchange.rule["by"] == "side_by_side"
    if apart:  # nothing is merged: what all told comes back
        every_row = sum(own for own, _, _ in rows)
        rows = [(own, every_row, width) for own, _, width in rows]
    sent = tuple(rows_bytes(up, own, width, weighted) for own, _, width in rows)
    back = tuple(rows_bytes(down, every, width, True) if topology.aggregators else 0 for _, every, width in rows)
    filtered = bool(exchange.rule["filters"] or exchange.rule["select"] or exchange.extract.get("changed") or apart)
    return replace(exchange, up_bytes=sent, down_bytes=back, exact=exact(up) and exact(down) and not filtered)


def _brought(
    exchange: ExchangePlan, learners: Sequence[AgentPlan], known: Mapping[str, Architecture], classes: int
) -> tuple[int, int]:
    rule: Any = TypeAdapter(Aggregate).validate_python(exchange.rule)
    features = max(known[str(learner.architecture)].features for learner in learners)
    brought: tuple[int, int] = rule.brings(classes, features, len(learners))
    return brought


def answers(recipe: Recipe) -> list[Any]:
    """Return, for each exchange of a round, what the top retrieves last to send it back, or None."""
    found: list[Any] = []
    for step in recipe.round:
        if step.name == "aggregate":
            found.append(None)
        elif step.name == "retrieve" and step.parameters.who == "top" and found:
            found[-1] = step.parameters
    return found


def _key_width(exchange: ExchangePlan, features: int, holdings: Holdings) -> int:
    said = exchange.extract.get("keys")
    if said is None:
        return 0
    values = int(np.prod(holdings.input_shape))
    width: int = KeyChoice.model_validate(said).parameters.numbers(features, values, len(holdings.public))
    return width


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
    """Return a function from a round to the predicted bytes that each learner sends and gets in it."""
    held = [_when(exchange.rule) for exchange in exchanges]
    told = [_when(exchange.extract, "keys_when") for exchange in exchanges]

    @cache
    def of(these: tuple[bool, ...], telling: tuple[bool, ...]) -> tuple[Traffic, ...]:
        up, down = [0] * learners, [0] * learners
        for exchange, here, more in zip(exchanges, these, telling, strict=True):
            if not here:
                continue
            for i in range(learners):
                up[i] += exchange.up_bytes[i] + (exchange.told_bytes[i] if more and exchange.told_bytes else 0)
                down[i] += exchange.down_bytes[i]
        return tuple(Traffic(*passed) for passed in zip(up, down, strict=True))

    def passed(number: int) -> Sequence[Traffic]:
        return of(tuple(due(when, number) for when in held), tuple(due(when, number) for when in told))

    return passed


def _when(said: Mapping[str, Any], key: str = "when") -> When | None:
    """Return when it is said to be; what is told by each agent ``first`` counts in round 1."""
    if said.get(key) is None:
        return None
    return When.model_validate({"until": 1} if said[key] == "first" else said[key])


def work(recipe: Recipe, agent: AgentPlan, model: Architecture, companion: Architecture | None, public: int) -> float:
    """Return the floating point operations of one round: two a multiply-add, three passes a training sample."""
    named = {"model": model.multiply_adds, "companion": companion.multiply_adds if companion is not None else 0}
    total = 0.0
    for step in recipe.round:
        said = step.parameters
        if step.name == "train":
            total += said.work(agent.samples, public, named["model"], named["companion"])
        elif step.name == "extract" and getattr(said, "source", "") in ("public", "private"):
            total += 2.0 * (public if said.source == "public" else agent.samples) * named[said.of]
        elif step.name == "absorb" and said.by == "distil":
            total += 6.0 * said.epochs * public * named["model"]
        elif step.name == "absorb" and said.by == "mutual":
            total += 6.0 * said.epochs * agent.samples * 2 * named["model"]
        elif step.name == "absorb" and said.by == "bridge_samples":
            total += 6.0 * said.epochs * agent.samples * named["model"] * (1 + bool(said.own_ce_weight))
    return total
