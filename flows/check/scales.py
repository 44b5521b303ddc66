"""Whether the scores that a term of ``train`` recalls are of the scale that it takes: logits, or probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from ...specs.problems import Path
from ...specs.schema import Recipe
from .places import Finding, in_round
from .recipe import exchanges, recalls, received, roles

SAID = {"logits": "logits before the softmax", "probabilities": "probabilities"}


def of_scales(recipe: Recipe) -> Iterator[Finding]:
    """Find terms that take one scale where scores of the other are stored in the memory that they are recalled from."""
    for index, step in enumerate(recipe.round):
        for place, term in enumerate(step.parameters.losses if step.name == "train" else ()):
            wanted, form = getattr(term.parameters, "scale", None), recalls(term)
            if wanted is None or form is None:
                continue
            for memory in _recalled_from(recipe, index, form):
                for scale, source in _put_into(recipe, memory):
                    if scale != wanted:
                        message = f"the term {term.name} takes {SAID[wanted]}, and {SAID[scale]} are stored in {memory}"
                        hint = f"write `scale: {wanted}` in the extract"
                        if "scale" in type(term.parameters).model_fields:
                            hint += f", or `{term.name}: {{scale: {scale}}}`"
                        yield Finding((*in_round(index, "train", "losses"), place), message, hint, (source,))


def _recalled_from(recipe: Recipe, index: int, form: str) -> list[str]:
    """Return the memories that learners retrieve ``form`` from before step ``index``."""
    before = (step.parameters for step in recipe.round[:index] if step.name == "retrieve")
    return list(dict.fromkeys(r.memory for r in before if r.knowledge == form and "learners" in roles(r.who)))


def _put_into(recipe: Recipe, memory: str, seen: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Yield the scale of each thing that is stored in a memory, where it is known, and where its extract says so.

    Answers that the top retrieves are of the scale of what is stored in the memory that it asked; those ``seen`` are
    left out.
    """
    known = exchanges(recipe)
    for index, step in enumerate(recipe.round):
        if step.name != "store" or step.parameters.memory != memory:
            continue
        exchange, said = received(known, index), step.parameters
        if said.what == "made":
            places = [at for at, before in enumerate(recipe.round[:index]) if before.name == "extract"]
            made = recipe.round[places[-1]].parameters if places else None
            if made is not None and made.knowledge == "logits":
                yield made.scale, in_round(places[-1], "extract", "scale")
        elif exchange is not None and exchange.form == "logits" and exchange.extract is not None:
            asked = {
                between.parameters.memory
                for between in recipe.round[exchange.index : index]
                if between.name == "retrieve" and between.parameters.who == "top"
            }
            if asked - {memory}:
                for other in sorted(asked - {memory, *seen}):
                    yield from _put_into(recipe, other, (*seen, memory))
            else:
                scale = "probabilities" if exchange.is_probabilities else "logits"
                yield scale, in_round(exchange.extract, "extract", "scale")
