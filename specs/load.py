"""From a file or a shipped name to checked specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .document import Loaded, build, load
from .library import find_spec, spec_names
from .printing import dump
from .problems import Problem, SpecError
from .recipes import expand_recipe, in_recipe
from .schema import Spec
from .tree import parse


def load_specs(name: str, overrides: Sequence[str] = ()) -> list[Loaded[Spec]]:
    """Return the spec called ``name``, or each variant where it is a sweep.

    ``name`` is a path, or a shipped spec such as ``fl/fedavg``. ``overrides`` are ``path=value``. Raises ``SpecError``
    with every mistake at once.
    """
    return load(
        find_spec(name),
        Spec,
        overrides,
        expand_recipe,
        rename=in_recipe,
        late_prefixes=("recipe",),
        early_prefixes=("recipe.use", "recipe.with"),
        candidates=spec_names(),
    )


def load_mapping(said: Mapping[str, Any]) -> list[Loaded[Spec]]:
    """Return the spec that a mapping says, as ``load_specs`` does; for what comes from a server and not from a file.

    Raises ``SpecError`` with the same sentences, without lines.
    """
    try:
        node, problems = parse(dump(dict(said)), "spec")
    except (TypeError, ValueError) as error:
        raise SpecError([Problem(None, "", str(error))]) from None
    try:
        if node is None or problems:
            raise SpecError(problems)
        return build(
            node,
            Spec,
            (),
            expand_recipe,
            rename=in_recipe,
            late_prefixes=("recipe",),
            early_prefixes=("recipe.use", "recipe.with"),
        )
    except SpecError as error:
        raise without_lines(error) from None


def without_lines(error: SpecError) -> SpecError:
    """Return the same problems without positions, where nobody sees a file."""
    return SpecError(replace(problem, mark=None) for problem in error.problems)
