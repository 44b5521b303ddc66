"""Whether bridge samples are made, held and learned from in one way, and whether somebody above can learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...specs.problems import Path
from ...specs.schema import Recipe, Spec
from .pattern import tiers
from .places import Finding, in_round
from .recipe import Exchange, exchanges, received, roles


def of_bridge(spec: Spec) -> Iterator[Finding]:
    """Find what keeps agents from learning from each other on bridge samples."""
    known = exchanges(spec.recipe)
    for exchange in known:
        if exchange.extract is not None and getattr(exchange.made, "source", "") == "bridge":
            yield from _extract(spec.recipe, exchange, in_round(exchange.extract, "extract"))
    for index, step in enumerate(spec.recipe.round):
        if step.name == "absorb" and step.parameters.by == "bridge_samples":
            exchange_in_hand = received(known, index)
            if exchange_in_hand is not None and exchange_in_hand.made is not None:
                yield from _absorb(step.parameters, exchange_in_hand, in_round(index, "absorb"))
                yield from _above(spec, step.parameters, in_round(index, "absorb", "who"))


def _extract(recipe: Recipe, exchange: Exchange, path: Path) -> Iterator[Finding]:
    said = exchange.made
    if said.memory is None or said.memory not in recipe.memories:
        message = "codes of bridge samples stay in a declared memory, and "
        message += "none is named" if said.memory is None else f"{said.memory} is none"
        hint = "declare `bridge: {kind: episodic, holds: logits, keys: float32}` under `memories`, write it here"
        yield Finding((*path, "memory"), message, hint)
    elif recipe.memories[said.memory].keys == "none":
        message = f"codes of bridge samples are keys, and the memory {said.memory} holds none"
        yield Finding((*path, "memory"), message, "write `keys: float32` where it is declared")
    if said.keys is None or said.keys.name != "principal":
        message = "bridge samples are made of codes that can be turned back: principal components alone"
        yield Finding((*path, "keys"), message, "write `keys: {principal: {width: 32}}`")
    if not said.labels:
        yield Finding(path, "bridge samples travel with their labels", "write `labels: true`")
    if said.keys_when not in (None, "first") and not said.keys_when.holds(1):
        message = "codes of bridge samples are told from the first round on"
        yield Finding((*path, "keys_when"), message, "write `keys_when: first`")
    if said.of != "model" or said.scale != "logits":
        key = "of" if said.of != "model" else "scale"
        message = "what is said of bridge samples are logits of the agent's own model"
        yield Finding((*path, key), message, f"leave `{key}` out")


def _absorb(said: Any, exchange: Exchange, path: Path) -> Iterator[Finding]:
    made, rule = exchange.made, in_round(exchange.index, "aggregate")
    if getattr(made, "source", "") != "bridge":
        message = "nobody speaks of bridge samples in the exchange before"
        source = in_round(exchange.extract or 0, "extract")
        yield Finding((*path, "by"), message, "extract logits `from: bridge`", (source,))
    elif said.memory != made.memory:
        message = f"codes of bridge samples are held in {made.memory}, not in {said.memory}"
        yield Finding((*path, "memory"), message, f"write `memory: {made.memory}`")
    if exchange.rule.by != "collect":
        message = f"who learns bridge samples must know whose each is, and {exchange.rule.by} mixes them"
        yield Finding((*rule, "by"), message, "write `by: collect`", ((*path, "by"),))
    elif exchange.rule.exclude_self:
        message = "each agent is answered on its own samples, so there is no share to take out"
        yield Finding((*rule, "exclude_self"), message, "leave exclude_self out", ((*path, "by"),))


def _above(spec: Spec, said: Any, path: Path) -> Iterator[Finding]:
    """Find tiers that cannot be a parent: a top without a model, and tiers with one that send on others' words."""
    all_of_them = tiers(spec)
    if not all_of_them:
        return
    if not {"learners", "aggregators"} <= roles(said.who):
        message = "parent and child learn from each other on bridge samples, so both must"
        yield Finding(path, message, "write `who: all`")
    place, top, _ = all_of_them[-1]
    if top.model is None:
        message = f"{top.name} has no model, and parents learn bridge samples with their own"
        yield Finding((*place, "model"), message, "give it a `model` under `pattern`", (path,))
    if getattr(spec.pattern.parameters, "forward", "own") == "merged":
        for place, tier, _ in all_of_them[:-1]:
            if tier.model is not None:
                message = f"{tier.name} has a model, and with `forward: merged` it says nothing to the tier above"
                yield Finding((*place, "model"), message, "write `forward: own`, or remove the model", (path,))
