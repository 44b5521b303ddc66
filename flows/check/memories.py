"""Whether what is stored, retrieved, consolidated and forgotten fits the memories that it is said of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...specs.problems import Path, suggestion
from ...specs.schema import Recipe
from ...tasks.knowledge import FORMS
from ...tasks.remember import PIECES
from .kinds import of_kinds, of_use
from .places import Finding, in_round
from .recipe import exchanges, received, roles

BY_CLASS = {"logits": "class_logits"}
"""What the means by class of a form are called; forms that are keyed by class stay what they are."""


@dataclass(frozen=True)
class Hand:
    """What somebody has in hand to store: its form (None: not known), and whether its rows tell labels and keys."""

    form: str | None
    labels: bool
    keys: bool


def in_hand(recipe: Recipe, index: int, role: str, what: str = "received") -> Hand | None:
    """Return what ``role`` received, or made, when it does step ``index``; None where that is nothing.

    What the top retrieved takes the place of what was merged there: for the top from then on, for learners, who are
    sent it, from the beginning.
    """
    if what == "made":
        made = [step.parameters for step in recipe.round[:index] if step.name == "extract"]
        return _of_extract(made[-1]) if made else None
    known = exchanges(recipe)
    exchange = received(known, index)
    if exchange is None:
        return None
    following = next((e.index for e in known if e.index > exchange.index), len(recipe.round))
    until = following if role == "learners" else index
    answers = [
        step.parameters
        for step in recipe.round[exchange.index : until]
        if step.name == "retrieve" and step.parameters.who == "top"
    ]
    if answers:
        memory = recipe.memories.get(answers[-1].memory)
        whole = memory is not None and answers[-1].by.name == "all"
        return Hand(answers[-1].knowledge, whole, whole and memory is not None and memory.keys != "none")
    if exchange.made is None:
        return Hand(None, True, True)
    one = _of_extract(exchange.made)
    return one if exchange.rule.by == "collect" else Hand(one.form, False, False)


def _of_extract(said: Any) -> Hand:
    return Hand(said.knowledge, getattr(said, "labels", False), getattr(said, "keys", None) is not None)


def put_into(recipe: Recipe, memory: str) -> list[tuple[int, set[str], Hand]]:
    """Return the steps that put something into a memory: their places, who does them, and what goes in."""
    found = []
    for index, step in enumerate(recipe.round):
        said = step.parameters
        if step.name == "store" and said.memory == memory:
            for role in sorted(roles(said.who)):
                hand = in_hand(recipe, index, role, said.what)
                if hand is not None:
                    found.append((index, {role}, hand))
        elif step.name == "consolidate" and said.into == memory and said.memory in recipe.memories:
            found.append((index, roles(said.who), Hand(by_class(recipe.memories[said.memory].holds), True, False)))
    return found


def by_class(form: str) -> str:
    """Return what the means by class of ``form`` are called."""
    return BY_CLASS.get(form, form)


def of_memories(recipe: Recipe) -> Iterator[Finding]:
    """Find memories that do not exist, hold something else, or cannot be asked in the way in which they are."""
    yield from of_kinds(recipe)
    for index, step in enumerate(recipe.round):
        said = step.parameters
        unfit = [*_unknown(recipe, index, step.name, said), *of_use(recipe, index, step.name, said)]
        yield from unfit
        if unfit:
            continue
        if step.name == "store" and said.memory in recipe.memories:
            yield from _store(recipe, index, said)
        elif step.name == "retrieve":
            yield from _retrieve(recipe, index, said)
        elif step.name == "consolidate":
            yield from _consolidate(recipe, index, said)
        elif step.name == "decay":
            yield from _undeclared(recipe, index, "decay", "memory", said.memory)
        if step.name in ("forget", "decay", "consolidate"):
            yield from _empty(recipe, index, step.name, said)
        if step.name in ("retrieve", "decay", "consolidate"):
            yield from _emptied(recipe, index, step.name, said)


def _unknown(recipe: Recipe, index: int, operation: str, said: Any) -> Iterator[Finding]:
    known = [*recipe.memories, *PIECES]
    for key in ("memory", "into"):
        name = getattr(said, key, None)
        if name is not None and name not in known:
            hint = suggestion(name, known) or f"declare it under `memories`, or take {', '.join(PIECES)}"
            yield Finding(in_round(index, operation, key), f"there is no memory {name!r}", hint)


def _declared(memory: str) -> Path:
    return ("recipe", "memories", memory)


def _store(recipe: Recipe, index: int, said: Any) -> Iterator[Finding]:
    memory, place = recipe.memories[said.memory], in_round(index, "store", "memory")
    also = ((*_declared(said.memory), "holds"),)
    hands = [hand for role in sorted(roles(said.who)) if (hand := in_hand(recipe, index, role, said.what)) is not None]
    wrong = next((hand.form for hand in hands if hand.form not in (memory.holds, None)), None)
    if wrong == "parameters":
        hint = "store them in procedural memory, which needs no declaration"
        yield Finding(place, f"{said.memory} holds rows of {memory.holds}, and parameters are stored into it", hint)
    elif wrong is not None:
        message = f"{said.memory} holds {memory.holds}, and {wrong} are stored into it"
        yield Finding(place, message, f"write `holds: {wrong}`, or declare another memory for them", also)
    elif memory.keys != "none" and hands and not any(hand.keys for _, _, hand in put_into(recipe, said.memory)):
        message = f"the entries of {said.memory} have keys, and what is stored into it never tells any"
        hint = "give the `extract` of logits `keys`, and aggregate `by: collect`; or declare `keys: none`"
        yield Finding(place, message, hint, ((*_declared(said.memory), "keys"),))


def _retrieve(recipe: Recipe, index: int, said: Any) -> Iterator[Finding]:
    memory, how = recipe.memories.get(said.memory), said.by.name
    place = in_round(index, "retrieve", "by")
    if memory is None and how != "all":
        message = f"{said.memory} memory is not declared, and it knows `by: all` alone, not {how}"
        yield Finding(place, message, f"declare a memory of the kind {said.memory} under `memories`")
        return
    stored = list(_never_stored(recipe, index, said))
    yield from stored
    if stored or memory is None:
        return
    given = by_class(memory.holds) if how == "class" else memory.holds
    if said.knowledge != given:
        found = in_round(index, "retrieve", "knowledge")
        message = f"{said.memory} holds {memory.holds}, and {said.knowledge} are retrieved from it by {how}"
        yield Finding(found, message, f"write `knowledge: {given}`", ((*_declared(said.memory), "holds"),))
    if said.asking == "received" and how in ("id", "nearest") and received(exchanges(recipe), index) is None:
        message = "nothing has been received yet in the round that could be asked for"
        yield Finding(in_round(index, "retrieve", "for"), message, "put it after an `aggregate`, or ask `for: private`")
    if how == "nearest":
        yield from _nearest(recipe, index, said, memory)
    if how == "class" or (how == "nearest" and said.by.parameters.same_class):
        yield from _labels(recipe, place, said.memory)


def _never_stored(recipe: Recipe, index: int, said: Any) -> Iterator[Finding]:
    who, form = roles(said.who), said.knowledge
    stored = [
        (memory, hand.form)
        for memory in dict.fromkeys([*recipe.memories, *PIECES])
        for _, doing, hand in put_into(recipe, memory)
        if doing & who
    ]
    declared = said.memory in recipe.memories
    if any(memory == said.memory and (declared or kept in (form, None)) for memory, kept in stored):
        return
    elsewhere = sorted({memory for memory, kept in stored if kept == form})
    called = said.memory if declared else f"{said.memory} memory"
    if elsewhere:
        other = elsewhere[0] if elsewhere[0] in recipe.memories else f"{elsewhere[0]} memory"
        message = f"{form} are stored in {other}, not in {called}"
        yield Finding(in_round(index, "retrieve", "memory"), message, f"write `memory: {elsewhere[0]}`")
    else:
        hint = f"put `store: {{memory: {said.memory}}}` after an `aggregate` of {form}"
        yield Finding(in_round(index, "retrieve", "knowledge"), f"nothing ever stores {form} in {called}", hint)


def _nearest(recipe: Recipe, index: int, said: Any, memory: Any) -> Iterator[Finding]:
    place, exchange = in_round(index, "retrieve", "by"), received(exchanges(recipe), index)
    own = said.by.parameters.keys
    asking = own if said.asking == "private" else getattr(getattr(exchange, "made", None), "keys", None)
    also = ((*_declared(said.memory), "keys"),)
    if said.asking == "private" and own is None:
        message = "an agent asks for its own samples here, and nothing says how it finds their keys"
        yield Finding(place, message, "give `nearest` the `keys` that the `extract` has, or ask `for: received`")
    elif memory.keys == "none" and not (memory.holds == "prototypes" and asking is not None):
        message = f"the entries of {said.memory} have no keys, and {memory.holds} are not what samples are found by"
        yield Finding(place, message, f"declare {said.memory} with `keys: float32`", also)
    elif memory.keys == "none" and asking is not None and asking.name != "features":
        message = f"{said.memory} is searched by its prototypes, which are features, and the keys are {asking.name}"
        yield Finding(place, message, "take the keys features", also)


def _labels(recipe: Recipe, place: Path, memory: str) -> Iterator[Finding]:
    if not any(hand.labels for _, _, hand in put_into(recipe, memory)):
        message = f"nothing tells the labels of what {memory} holds, so no entry of it has a class"
        yield Finding(place, message, "give the `extract` `labels: true`, and aggregate `by: collect`")


def _undeclared(recipe: Recipe, index: int, operation: str, key: str, memory: str) -> Iterator[Finding]:
    if memory not in recipe.memories:
        message = f"{memory} memory is not declared, and {operation} works on the entries of declared memories"
        hint = f"declare a memory of the kind {memory} under `memories`"
        yield Finding(in_round(index, operation, key), message, hint)


def _consolidate(recipe: Recipe, index: int, said: Any) -> Iterator[Finding]:
    yield from _undeclared(recipe, index, "consolidate", "memory", said.memory)
    yield from _undeclared(recipe, index, "consolidate", "into", said.into)
    if not {said.memory, said.into} <= set(recipe.memories):
        return
    episodes, facts = recipe.memories[said.memory], recipe.memories[said.into]
    made, place = by_class(episodes.holds), in_round(index, "consolidate", "into")
    if made in FORMS and FORMS[made].keyed_by != "class":
        message = f"{said.memory} holds {episodes.holds}, which have no means by class"
        yield Finding(in_round(index, "consolidate", "memory"), message, "consolidate logits or prototypes")
    elif facts.holds != made:
        message = f"the means by class of {episodes.holds} are {made}, and {said.into} holds {facts.holds}"
        yield Finding(place, message, f"write `holds: {made}`", ((*_declared(said.into), "holds"),))
    elif facts.keys != "none":
        message = f"the means of classes have no keys, and the entries of {said.into} have"
        yield Finding(place, message, "declare it with `keys: none`", ((*_declared(said.into), "keys"),))
    if put_into(recipe, said.memory):
        yield from _labels(recipe, in_round(index, "consolidate", "memory"), said.memory)


def _empty(recipe: Recipe, index: int, operation: str, said: Any) -> Iterator[Finding]:
    """Find steps on memories that nothing is ever stored in; aggregators remember what they delivered."""
    if said.memory is None or (said.memory not in recipe.memories and said.who == "aggregators"):
        return
    if not any(doing & roles(said.who) for _, doing, _ in put_into(recipe, said.memory)):
        called = said.memory if said.memory in recipe.memories else f"{said.memory} memory"
        message = f"nothing is ever stored in {called}, so there is nothing to {operation}"
        path = in_round(index, operation, "memory")
        yield Finding(path, message, "put a `store` into the recipe, or remove this step")


def _emptied(recipe: Recipe, index: int, operation: str, said: Any) -> Iterator[Finding]:
    """Find steps on working memory before anything is put into it in the round: it is empty there."""
    memory, puts = recipe.memories.get(said.memory), put_into(recipe, said.memory)
    if memory is None or memory.kind != "working" or not puts:
        return
    if not any(at < index and doing & roles(said.who) for at, doing, _ in puts):
        message = f"{said.memory} is working memory, which is emptied at a round's end, and nothing is in it here yet"
        path = in_round(index, operation, "memory")
        yield Finding(path, message, f"put the step after the `store`, or declare {said.memory} of another kind")
