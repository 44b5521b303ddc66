"""What the kind of a declared memory allows: sensory memory is told of and not touched, working memory is brief."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...specs.schema import Recipe
from .places import Finding, in_round

SAMPLES = "samples"
"""What sensory memory holds; the one thing that it holds, and that no other kind holds."""

FREE = ("kind", "holds")
"""What can be said of sensory memory."""


def of_kinds(recipe: Recipe) -> Iterator[Finding]:
    """Find sensory memories that are said to be more than the samples that the partition gives an agent."""
    for name, said in recipe.memories.items():
        where = ("recipe", "memories", name)
        if said.kind != "sensory":
            if said.holds == SAMPLES:
                message = f"an agent's own samples are its sensory memory, and {name} is {said.kind}"
                yield Finding((*where, "holds"), message, "write `kind: sensory`, or what form of knowledge it holds")
            continue
        if said.holds != SAMPLES:
            message = f"{name} is sensory memory, which holds an agent's own samples, not {said.holds}"
            hint = f"write `holds: {SAMPLES}`, or another kind"
            yield Finding((*where, "holds"), message, hint, ((*where, "kind"),))
        usual = type(said)(kind=said.kind, holds=said.holds)
        for key in type(said).model_fields:
            if key not in FREE and getattr(said, key) != getattr(usual, key):
                message = f"{name} is sensory memory: it is what the partition gives, and has no {key}"
                hint = "remove it; `data.take` and `data.partition` say how many samples an agent has"
                yield Finding((*where, key), message, hint)


def of_use(recipe: Recipe, index: int, operation: str, said: Any) -> Iterator[Finding]:
    """Find a step that puts something into sensory memory or takes something out of it."""
    for key in ("memory", "into"):
        name = getattr(said, key, None)
        if name in recipe.memories and recipe.memories[name].kind == "sensory":
            message = f"{name} is sensory memory, an agent's own samples, which never leave it; no step may touch it"
            hint = "`extract` says what may be shared of them, and `data.partition` who has which"
            yield Finding(in_round(index, operation, key), message, hint)
