"""Whether the steps of a recipe make sense in their order: what is exchanged, remembered and called to mind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...specs.schema import Recipe
from .places import Finding, in_round

NEED_COMPANION = ("mutual", "adaptive_mutual")
FROM_MEMORY = {
    "class_logits": "class_logits",
    "prototypes": "prototypes",
    "sample_logits": "logits",
    "pseudo_labels": "logits",
}
"""Terms of ``train`` that read working memory, and the form that they look for there."""


@dataclass(frozen=True)
class Exchange:
    """An ``aggregate`` and what belongs to it, with places in the round; None where a step is missing."""

    index: int
    rule: Any
    extract: int | None
    made: Any
    share: int | None
    encodings: Any

    @property
    def form(self) -> str | None:
        """The form of knowledge that is exchanged."""
        return None if self.made is None else str(self.made.knowledge)

    @property
    def is_probabilities(self) -> bool:
        """Whether what is received are probabilities."""
        return self.rule.by == "sharpened_mean" or getattr(self.made, "scale", None) == "probabilities"


def exchanges(recipe: Recipe) -> list[Exchange]:
    """Return the exchanges of a round."""
    made: list[Exchange] = []
    last: dict[str, int | None] = {"extract": None, "share": None}
    for index, step in enumerate(recipe.round):
        if step.name in last:
            last[step.name] = index
        elif step.name == "aggregate":
            extract, share = last["extract"], last["share"]
            said = [None if at is None else recipe.round[at].parameters for at in (extract, share)]
            made.append(Exchange(index, step.parameters, extract, said[0], share, said[1]))
            last = {"extract": None, "share": None}
    return made


def received(known: list[Exchange], index: int) -> Exchange | None:
    """Return the exchange whose knowledge an agent has in hand at step ``index``."""
    return next((e for e in reversed(known) if e.index < index), None)


def roles(who: str) -> set[str]:
    """Return who is meant."""
    return {"learners", "aggregators"} if who == "all" else {who}


def of_recipe(recipe: Recipe) -> Iterator[Finding]:
    """Find steps that come too early, too often, or for nothing."""
    yield from _start(recipe)
    yield from _order(recipe)
    yield from _who(recipe)
    yield from _memory(recipe)
    yield from _companion(recipe)


_NOT_AT_START = {
    "extract": "nothing is exchanged before the first round",
    "absorb": "nothing has been received before the first round",
    "store": "nothing has been received before the first round",
    "retrieve": "nothing is remembered before the first round",
    "forget": "nothing is remembered before the first round",
}


def _start(recipe: Recipe) -> Iterator[Finding]:
    for index, step in enumerate(recipe.start):
        path = ("recipe", "start", index, step.name)
        if step.name in _NOT_AT_START:
            yield Finding(path, f"`{step.name}` has no place here: {_NOT_AT_START[step.name]}", "move it to `round`")
        elif getattr(step.parameters, "who", "learners") != "learners":
            yield Finding((*path, "who"), "aggregators do nothing before the first round", "write `who: learners`")
        elif step.name == "train":
            for term in step.parameters.losses:
                if term.name in FROM_MEMORY:
                    message = f"the term `{term.name}` has nothing to recall before the first round"
                    yield Finding((*path, "losses"), message, "leave it out here")


def _order(recipe: Recipe) -> Iterator[Finding]:
    last: dict[str, int | None] = {"extract": None, "share": None}
    for index, step in enumerate(recipe.round):
        path = in_round(index, step.name)
        if step.name in last:
            if last[step.name] is not None:
                message = f"a second `{step.name}` before one `aggregate`: an exchange has one"
                yield Finding(path, message, "remove one, or put an `aggregate` between them")
            if step.name == "share" and last["extract"] is None:
                yield Finding(path, "there is nothing to share yet", "put an `extract` before it")
            last[step.name] = index
        elif step.name == "aggregate":
            if last["extract"] is None:
                message = "there is nothing to aggregate: no `extract` since the last `aggregate` or the round's start"
                yield Finding(path, message, "put an `extract` before it")
            last = {"extract": None, "share": None}
        elif step.name in ("absorb", "store") and received(exchanges(recipe), index) is None:
            message = f"there is nothing to {step.name} yet: nothing has been received in the round"
            yield Finding(path, message, "put it after an `aggregate`")
    for name, at in last.items():
        if at is not None:
            message = f"no `aggregate` follows, so what this would {name} reaches nobody"
            yield Finding(in_round(at, name), message, "put an `aggregate` after it, or remove it")


def _who(recipe: Recipe) -> Iterator[Finding]:
    known = exchanges(recipe)
    for index, step in enumerate(recipe.round):
        if "aggregators" not in roles(getattr(step.parameters, "who", "learners")):
            continue
        said, path = step.parameters, in_round(index, step.name, "who")
        if step.name == "extract":
            message = "knowledge is extracted by learners; aggregators pass on what they merged"
            yield Finding(path, message, "write `who: learners`")
        elif received(known, index) is None and step.name not in ("absorb", "store"):
            message = "aggregators work after an `aggregate`, and none comes before this step"
            yield Finding(path, message, "write `who: learners`, or move the step")
        elif step.name == "train" and said.on == "private":
            message = "aggregators hold no private samples to train on"
            yield Finding(path, message, "write `who: learners`, or `on: public`")
        elif _uses_companion(step.name, said):
            yield Finding(path, "aggregators have no companion", "write `who: learners`")


def _uses_companion(operation: str, said: Any) -> bool:
    if operation == "train":
        return any(term.name in NEED_COMPANION for term in said.losses)
    return getattr(said, "of", "model") == "companion"


def _memory(recipe: Recipe) -> Iterator[Finding]:
    stored = stores(recipe)
    for index, step in enumerate(recipe.round):
        said, path = step.parameters, in_round(index, step.name)
        if step.name == "retrieve":
            yield from _retrieve(index, said, stored)
        elif step.name == "forget" and not any(memory == said.memory for _, memory, _ in stored):
            if said.who != "aggregators":
                message = f"nothing is ever stored in {said.memory} memory, so there is nothing to forget"
                yield Finding((*path, "memory"), message, "put a `store` into the recipe, or remove this step")
        elif step.name == "extract" and getattr(said, "source", "") == "training":
            yield from _gathered(recipe, index, said)
        elif step.name == "train":
            yield from _recalled(recipe, index, said)


def stores(recipe: Recipe) -> set[tuple[str, str, str | None]]:
    """Return who stores what: the role, the memory, and the form (None where it cannot be told)."""
    known = exchanges(recipe)
    found: set[tuple[str, str, str | None]] = set()
    for index, step in enumerate(recipe.round):
        exchange = received(known, index)
        if step.name == "store" and exchange is not None:
            found |= {(role, step.parameters.memory, exchange.form) for role in roles(step.parameters.who)}
    return found


def _retrieve(index: int, said: Any, stored: set[tuple[str, str, str | None]]) -> Iterator[Finding]:
    who, form = roles(said.who), said.knowledge
    if any(role in who and memory == said.memory and kept in (form, None) for role, memory, kept in stored):
        return
    elsewhere = sorted({memory for role, memory, kept in stored if role in who and kept == form})
    if elsewhere:
        message = f"{form} are stored in {elsewhere[0]} memory, not in {said.memory} memory"
        yield Finding(in_round(index, "retrieve", "memory"), message, f"write `memory: {elsewhere[0]}`")
    else:
        message = f"nothing ever stores {form} in {said.memory} memory"
        hint = f"put `store: {{memory: {said.memory}}}` after an `aggregate` of {form}"
        yield Finding(in_round(index, "retrieve", "knowledge"), message, hint)


def _gathered(recipe: Recipe, index: int, said: Any) -> Iterator[Finding]:
    path = in_round(index, "extract", "from")
    before = [step.parameters for step in recipe.round[:index] if step.name == "train"]
    if not any(train.on == "private" and train.who != "aggregators" for train in before):
        message = f"{said.knowledge} are gathered while training on private samples, and no such `train` comes before"
        yield Finding(path, message, "put a `train` before it, or write `from: private`")
    if said.of == "companion":
        message = "training gathers what the model says, not what its companion says"
        yield Finding(path, message, "write `from: private`", (in_round(index, "extract", "of"),))


def _recalled(recipe: Recipe, index: int, said: Any) -> Iterator[Finding]:
    path = in_round(index, "train", "losses")
    before = [step.parameters for step in recipe.round[:index] if step.name == "retrieve"]
    for place, term in enumerate(said.losses):
        if term.name in FROM_MEMORY:
            form = FROM_MEMORY[term.name]
            if not any(r.knowledge == form and roles(r.who) & roles(said.who) for r in before):
                message = f"the term `{term.name}` needs remembered {form}, and nothing retrieves them before"
                memory = "episodic" if form == "logits" else "semantic"
                hint = f"put `retrieve: {{memory: {memory}, knowledge: {form}}}` before this `train`"
                yield Finding((*path, place), message, hint)
        elif term.name == "not_true" and said.on == "public":
            message = "the term `not_true` knows the scores of private samples alone"
            yield Finding((*path, place), message, "write `on: private`", (in_round(index, "train", "on"),))


def _companion(recipe: Recipe) -> Iterator[Finding]:
    if recipe.companion is not None:
        return
    hint = "add `companion:` with a model to the recipe"
    for part, steps in (("start", recipe.start), ("round", recipe.round)):
        for index, step in enumerate(steps):
            path = ("recipe", part, index, step.name)
            if step.name == "train":
                for place, term in enumerate(step.parameters.losses):
                    if term.name in NEED_COMPANION:
                        message = f"the term `{term.name}` needs a companion, and the recipe gives agents none"
                        yield Finding((*path, "losses", place), message, hint)
            elif getattr(step.parameters, "of", "model") == "companion":
                yield Finding((*path, "of"), "the recipe gives agents no companion", hint)
