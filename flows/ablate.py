"""Ablations of memory: the same spec with less of one memory left, each an ordinary spec of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..specs.document import Loaded
from ..specs.problems import Mark, Problem, SpecError, one_of, suggestion
from ..specs.schema import Recipe, Spec
from .report.text import value_text

WORDS = {"empty": 0.0, "half": 0.5}
"""Shares that have a name."""


@dataclass(frozen=True)
class Ablation:
    """A memory of which the share ``left`` is left, and the ``path=value`` that make a spec say so."""

    memory: str
    left: float
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """What tables and pages call it."""
        known = {0.0: "emptied", 0.5: "halved"}
        return f"{self.memory} {known.get(self.left) or 'at ' + value_text(self.left)}"


def ablations(said: Sequence[str], variants: Sequence[Loaded[Spec]]) -> list[Ablation]:
    """Return the ablations that ``said`` asks for, each ``NAME`` or ``NAME=LEFT``; nothing said: of every memory.

    ``variants`` are one spec over seeds. A name alone means emptied and halved. Memories that the recipe does not
    declare hold one piece of each form and can only be emptied. Raises ``SpecError`` with every mistake.
    """
    axes = sorted(set(variants[0].choices) - {"seed"})
    if axes:
        message = f"an ablation compares one spec over seeds, and this is a sweep over {', '.join(axes)}"
        raise SpecError([Problem(None, "", message, "choose one value for each")])
    recipe, rounds = variants[0].value.recipe, variants[0].value.rounds
    declared, pieces = [name for name, one in recipe.memories.items() if one.kind != "sensory"], _pieces(recipe)
    if not declared and not pieces:
        message = f"the recipe {recipe.name} remembers nothing beyond a round, so there is no memory to ablate"
        raise SpecError([Problem(None, "recipe", message, "take a recipe with `memories` or a `store`")])
    found: list[Ablation] = []
    problems: list[Problem] = []
    for text in said or declared or pieces:
        name, _, share = text.partition("=")
        mark = Mark(f"--memory {text}", 1, 1) if said else None
        try:
            lefts = _lefts(share, text, name in pieces)
        except ValueError as error:
            problems.append(Problem(mark, "", str(error)))
            lefts = []
        if name in declared:
            found += [Ablation(name, left, (f"recipe.memories.{name}.keep={left!r}",)) for left in lefts]
        elif name in recipe.memories:
            message = f"{name} is sensory memory: an agent's own samples are no memory that it could do without"
            problems.append(Problem(mark, "", message, "compare with less data: --set data.take.train=..."))
        elif name not in pieces:
            names = [*declared, *pieces]
            message = f"the recipe {recipe.name} has no memory {name!r}; expected {one_of(names)}"
            problems.append(Problem(mark, "", message, suggestion(name, names)))
        elif any(lefts):
            message = f"{name} memory is not declared, so that it can be emptied and nothing between"
            problems.append(
                Problem(mark, "", message, f"write {name}=empty, or declare it under the recipe's memories")
            )
        else:
            never = [f"recipe.round[{at}].store.when={{from: {rounds + 1}}}" for at in pieces[name]]
            found += [Ablation(name, left, tuple(never)) for left in lefts]
    if problems:
        raise SpecError(problems)
    return list(dict.fromkeys(found))


def _lefts(share: str, text: str, empties: bool) -> list[float]:
    """Return the shares that a text after ``NAME=`` names, or those that are taken where it names none."""
    if "=" not in text:
        return [0.0] if empties else list(WORDS.values())
    try:
        left = WORDS[share] if share in WORDS else float(share)
    except ValueError:
        left = -1.0
    if not 0 <= left < 1:
        raise ValueError(f"expected empty, half, or a share of at least 0 and below 1 that is left; got {share!r}")
    return [left]


def _pieces(recipe: Recipe) -> dict[str, list[int]]:
    """Return the memories that steps store to without a declaration, and the places of these steps in the round."""
    found: dict[str, list[int]] = {}
    for index, step in enumerate(recipe.round):
        if step.name == "store" and step.parameters.memory not in recipe.memories:
            found.setdefault(step.parameters.memory, []).append(index)
    return found
