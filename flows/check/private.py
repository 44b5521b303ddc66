"""Whether private steps are possible, and whether nothing else gives away what they keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...specs.problems import Path
from ...specs.schema import Recipe
from .places import Finding
from .recipe import SPLIT, needs_companion


def of_private(recipe: Recipe) -> Iterator[Finding]:
    """Find private steps that cannot be taken, plain steps of the same model, and accounts that are forgotten."""
    trains = list(_steps(recipe, "train"))
    guarded = [(path, said) for path, said in trains if said.private is not None]
    for path, said in guarded:
        yield from _possible(path, said)
    for of in dict.fromkeys(said.private.of for _, said in guarded):
        source = next((*path, "private") for path, said in guarded if said.private.of == of)
        yield from _plain(recipe, of, source)
    for path, said in _steps(recipe, "forget") if guarded else ():
        if said.memory == "procedural":
            message = "agents count their private steps in procedural memory, and this makes them forget how many"
            yield Finding((*path, "memory"), message, "remove this step", ((*guarded[0][0], "private"),))


def _steps(recipe: Recipe, operation: str) -> Iterator[tuple[Path, Any]]:
    for part, steps in (("start", recipe.start), ("round", recipe.round)):
        for index, step in enumerate(steps):
            if step.name == operation:
                yield ("recipe", part, index, operation), step.parameters


def _possible(path: Path, said: Any) -> Iterator[Finding]:
    names, of = [term.name for term in said.losses], (*path, "private", "of")
    if said.on == "public":
        yield Finding((*path, "on"), "public samples are nobody's to keep private", "leave `private` out")
    if said.private.of == "companion" and not set(names) & set(SPLIT):
        message = "private steps of the companion need a term that trains it and can be taken apart"
        yield Finding(of, message, "add the term `mutual`, or write `of: model`", ((*path, "losses"),))
    for place, term in enumerate(said.losses):
        trained = said.private.of == "model" or needs_companion(term)
        if trained and term.name not in SPLIT:
            message = f"the term `{term.name}` cannot be taken apart into single samples, as private steps must be"
            yield Finding((*path, "losses", place), message, "leave it out, or take `mutual`", (of,))


def _plain(recipe: Recipe, of: str, source: Path) -> Iterator[Finding]:
    for path, said in _steps(recipe, "train"):
        guarded = said.private is not None and said.private.of == of
        trained = of == "model" or any(map(needs_companion, said.losses))
        if said.on == "private" and trained and not guarded:
            message = f"this trains the {of} in plain steps, and another `train` keeps its steps private"
            yield Finding(path, message, f"write `private: {{of: {of}}}` here too, or nowhere", (source,))
    for path, said in _steps(recipe, "absorb"):
        if of == "model" and said.by == "mutual":
            message = "mutual learning trains the model in plain steps, and `train` keeps its steps private"
            yield Finding((*path, "by"), message, "absorb by replace", (source,))
