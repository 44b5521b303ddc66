"""From a file or a shipped name to checked specs."""

from __future__ import annotations

from collections.abc import Sequence

from .document import Loaded, load
from .library import find_spec, spec_names
from .recipes import expand_recipe, in_recipe
from .schema import Spec


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
