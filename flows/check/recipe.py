"""Whether the steps of a recipe make sense in their order: what is exchanged, and what is called to mind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...specs.problems import Path
from ...specs.schema import Recipe
from ...tasks.choice import Choice
from ...tasks.knowledge import FORMS
from ...tasks.memory import KEPT_AS
from ...tasks.parameters import When
from .places import Finding, in_round

SPLIT = ("mutual",)
"""Terms of ``train`` that can be taken apart into what each of two models learns, sample by sample."""


def recalls(term: Choice) -> str | None:
    """Return the form that a term of ``train`` reads from working memory, or None."""
    form: str | None = getattr(term.parameters, "recalls", None)
    return form


def needs_companion(term: Choice) -> bool:
    """Whether a term of ``train`` trains the companion beside the model."""
    return bool(getattr(term.parameters, "needs_companion", False))


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
    """Return who is meant. The top is one of the aggregators, so only learners are without it."""
    return {"all": {"learners", "aggregators", "top"}, "aggregators": {"aggregators", "top"}}.get(who, {who})


def moments(recipe: Recipe) -> Iterator[tuple[Path, When]]:
    """Yield where the steps of a round say when they are done, or when keys are told, and what they say."""
    for index, step in enumerate(recipe.round):
        for key in ("when", "keys_when"):
            when = getattr(step.parameters, key, None)
            if isinstance(when, When):
                yield in_round(index, step.name, key), when


def of_recipe(recipe: Recipe) -> Iterator[Finding]:
    """Find steps that come too early, too often, or for nothing."""
    yield from _start(recipe)
    yield from _order(recipe)
    yield from _who(recipe)
    yield from _mind(recipe)
    yield from _companion(recipe)


_NOT_AT_START = {
    "extract": "nothing is exchanged before the first round",
    "absorb": "nothing has been received before the first round",
    "store": "nothing has been received before the first round",
    "retrieve": "nothing is remembered before the first round",
    "consolidate": "nothing is remembered before the first round",
    "decay": "nothing is remembered before the first round",
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
                if recalls(term) is not None:
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
        elif step.name == "store" and step.parameters.what == "made":
            if not any(before.name == "extract" for before in recipe.round[:index]):
                message = "there is nothing to store yet: nothing has been made to share in the round"
                yield Finding(path, message, "put it after an `extract`")
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
        if "top" not in roles(getattr(step.parameters, "who", "learners")):
            continue
        said, path = step.parameters, in_round(index, step.name, "who")
        if step.name == "extract":
            message = "knowledge is extracted by learners; aggregators pass on what they merged"
            yield Finding(path, message, "write `who: learners`")
        elif step.name == "store" and said.what == "made":
            message = "learners make knowledge to share; aggregators have only what they received"
            yield Finding(path, message, "write `who: learners`, or `what: received`")
        elif received(known, index) is None and step.name not in ("absorb", "store"):
            message = "aggregators work after an `aggregate`, and none comes before this step"
            yield Finding(path, message, "write `who: learners`, or move the step")
        elif step.name == "train" and said.on == "private":
            message = "aggregators hold no private samples to train on"
            yield Finding(path, message, "write `who: learners`, or `on: public`")
        elif step.name == "absorb" and said.by == "mutual":
            yield Finding(path, "aggregators hold no private samples for mutual learning", "write `who: learners`")
        elif _uses_companion(step.name, said):
            yield Finding(path, "aggregators have no companion", "write `who: learners`")


def _uses_companion(operation: str, said: Any) -> bool:
    if operation == "train":
        return any(needs_companion(term) for term in said.losses)
    return getattr(said, "of", "model") == "companion"


def _mind(recipe: Recipe) -> Iterator[Finding]:
    for index, step in enumerate(recipe.round):
        if step.name == "extract" and getattr(step.parameters, "source", "") == "training":
            yield from _gathered(recipe, index, step.parameters)
        elif step.name == "train":
            yield from _recalled(recipe, index, step.parameters)


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
        form = recalls(term)
        if form is not None:
            if not any(r.knowledge == form and roles(r.who) & roles(said.who) for r in before):
                message = f"the term `{term.name}` needs remembered {form}, and nothing retrieves them before"
                memory = KEPT_AS[FORMS[form].keyed_by]
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
                    if needs_companion(term):
                        message = f"the term `{term.name}` needs a companion, and the recipe gives agents none"
                        yield Finding((*path, "losses", place), message, hint)
            elif getattr(step.parameters, "of", "model") == "companion":
                yield Finding((*path, "of"), "the recipe gives agents no companion", hint)
