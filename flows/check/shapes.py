"""What can be told only with the data at hand: models that do not fit, features that do not match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from ...specs.problems import Path
from ...specs.schema import Spec
from ...tasks.architecture import Architecture, ShapeError
from ...tasks.choice import Choice
from ...tasks.models import architecture
from ..compile import agent_names
from ..holdings import Holdings
from .pattern import tiers
from .places import Finding, in_round
from .recipe import exchanges, roles

WIDTH_KEYS = {"mlp": "hidden", "cnn": "hidden", "fedavg-cnn": "hidden", "resnet": "width"}
"""The parameter of each model that decides how wide its features are."""


@dataclass(frozen=True)
class _Model:
    name: str
    path: Path
    choice: Choice
    made: Architecture | None


def of_shapes(spec: Spec, holdings: Holdings) -> Iterator[Finding]:
    """Find models that do not fit the samples, prototypes of unequal width, and agents that cannot make any."""
    learners: list[_Model] = []
    for index, group in enumerate(spec.agents):
        model, wrong = _fitted(group.name, ("agents", index, "model"), group.model, holdings)
        yield from wrong
        learners.append(model)
    above: list[_Model] = []
    for path, tier, _ in tiers(spec):
        if tier.model is not None:
            model, wrong = _fitted(tier.name, (*path, "model"), tier.model, holdings)
            yield from wrong
            above.append(model)
    companion = None
    if spec.recipe.companion is not None:
        companion, wrong = _fitted("companion", ("recipe", "companion"), spec.recipe.companion, holdings)
        yield from wrong
    yield from _widths(spec, learners, above, companion)
    yield from _features(spec, learners)
    yield from _rows(spec, learners, companion, holdings)
    yield from _keys(spec, learners, holdings)
    yield from _empty(spec, holdings)


def _fitted(name: str, path: Path, choice: Choice, holdings: Holdings) -> tuple[_Model, list[Finding]]:
    shape = holdings.input_shape
    try:
        made = architecture(choice.name, choice.parameters, shape, len(holdings.labels))
    except ShapeError as error:
        message = f"{choice.name} does not fit samples of {list(shape)}: {error}"
        hint = "take another model, such as mlp, or change its parameters"
        return _Model(name, path, choice, None), [Finding(path, message, hint)]
    return _Model(name, path, choice, made), []


def _widths(spec: Spec, learners: list[_Model], above: list[_Model], companion: _Model | None) -> Iterator[Finding]:
    """Find models whose features are not as wide as the prototypes that they are held against."""
    made: Any = next((e.made for e in exchanges(spec.recipe) if e.form == "prototypes"), None)
    if made is None:
        return
    trains = [step.parameters for step in spec.recipe.round if step.name == "train"]
    using = [t for t in trains if any(term.name == "prototypes" for term in t.losses)]
    compared = list(learners)
    if made.of == "companion":
        if not using and spec.measure.predict != "prototypes":
            return
        compared = [companion, *learners] if companion is not None else learners
    if any("top" in roles(train.who) for train in using):
        compared += above
    yield from _unequal(compared, "prototypes need")


def _features(spec: Spec, learners: list[_Model]) -> Iterator[Finding]:
    """Find models whose features cannot go into, or come out of, one network."""
    for exchange in exchanges(spec.recipe):
        keys = getattr(exchange.made, "keys", None)
        if exchange.rule.equal_features and (keys is None or keys.name == "features"):
            yield from _unequal(learners, f"the rule {exchange.rule.by} needs")


def _rows(spec: Spec, learners: list[_Model], companion: _Model | None, holdings: Holdings) -> Iterator[Finding]:
    """Find embeddings whose rows mean nothing to each other, and names of which no two agents hold any."""
    for exchange in exchanges(spec.recipe):
        if not hasattr(exchange.made, "table"):
            continue
        of_companion = exchange.made.of == "companion"
        every = [model for model, group in zip(learners, spec.agents, strict=True) for _ in range(group.count)]
        sent = [companion.made if of_companion and companion is not None else model.made for model in every]
        counts = [own for own, *_ in exchange.made.foretell(holdings, sent)] if all(sent) else [1]
        if not any(counts) and exchange.extract is not None:
            by, table = spec.data.partition.by, exchange.made.table
            message = f"under the partition {by} no two agents hold one of the {table}, so nothing would be told"
            hint = "take the partition uniform or dirichlet" if table == "relations" else "take another partition"
            yield Finding(("data", "partition"), message, hint, (in_round(exchange.extract, "extract"),))
        if of_companion:
            continue
        there = [(model, model.made.name) for model in learners if model.made is not None]
        for model, name in there:
            if name != there[0][1]:
                message = f"rows of {name} and of {there[0][1]} have no mean"
                yield Finding(model.path, message, f"give {model.name} the model of {there[0][0].name}")


def _unequal(compared: list[_Model], what: str) -> Iterator[Finding]:
    widths = [(model, model.made.features) for model in compared if model.made is not None]
    if len({width for _, width in widths}) < 2:
        return
    first, wanted = widths[0]
    said = ", ".join(f"{model.name}: {width}" for model, width in widths)
    for model, width in widths:
        if width != wanted:
            message = f"{what} features of equal width ({said})"
            yield Finding(model.path, message, _remedy(model, wanted, first))


def _keys(spec: Spec, learners: list[_Model], holdings: Holdings) -> Iterator[Finding]:
    """Find models that make keys of other widths than the others, where they are to be searched together."""
    values, public = prod(holdings.input_shape), len(holdings.public)
    for exchange in exchanges(spec.recipe):
        said: Any = getattr(exchange.made, "keys", None)
        if said is None or exchange.rule.equal_features:
            continue
        there = [(m, said.parameters.numbers(m.made.features, values, public)) for m in learners if m.made is not None]
        shown = ", ".join(f"{model.name}: {width}" for model, width in there)
        for model, width in there:
            if width != there[0][1]:
                message = f"the keys {said.name} are of unequal width ({shown})"
                yield Finding(model.path, message, "take the keys projection, or models with features of one width")


def _remedy(model: _Model, wanted: int, first: _Model) -> str:
    """Return which parameter to change to what."""
    name = model.choice.name
    if name in ("mlp", "fedavg-cnn"):
        hidden = [*model.choice.parameters.hidden[:-1], wanted]
        return f"write `{name}: {{hidden: {hidden}}}`"
    if name == "cnn":
        return f"write `cnn: {{hidden: {wanted}}}`"
    if name == "resnet" and wanted % 16 == 0:
        return f"write `resnet: {{width: {wanted // 4}}}`"
    key = WIDTH_KEYS.get(first.choice.name)
    return f"change {key} of {first.name}'s {first.choice.name}, or take another model" if key else "take mlp or cnn"


def _empty(spec: Spec, holdings: Holdings) -> Iterator[Finding]:
    names = agent_names(spec)
    empty = [name for name, ids in zip(names, holdings.partition.train, strict=True) if not len(ids)]
    by_class = [e for e in exchanges(spec.recipe) if e.form in ("class_logits", "prototypes")]
    if empty and by_class:
        message = f"{len(empty)} agents have no training samples to make {by_class[0].form} of, such as {empty[0]}"
        yield Finding(("data", "partition"), message, "lower the number of agents, or divide the samples more evenly")
