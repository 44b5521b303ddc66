"""``recipe:`` as people write it, made into the full recipe: a name, ``use`` with ``with``, or the steps."""

from __future__ import annotations

from pathlib import Path as FilePath

from ..tasks.operations import OPERATIONS
from .library import find_recipe, recipe_names
from .override import apply, parse_path
from .problems import Path, Problem, SpecError, suggestion
from .tree import Node, read

FIELDS = ("name", "cite", "differs", "companion", "above", "memories", "start", "round")


def expand_recipe(root: Node) -> tuple[Node, list[Problem]]:
    """Return the spec with its recipe spelled out, and what is wrong with how it is referred to."""
    if not isinstance(root.value, dict) or "recipe" not in root.value:
        return root, []
    recipe = root.value["recipe"]
    made, problems = _expanded(recipe)
    if made is None:
        return root, problems
    made = Node(made.value, recipe.mark, recipe.key_mark)
    return Node({**root.value, "recipe": made}, root.mark, root.key_mark), problems


def _expanded(recipe: Node) -> tuple[Node | None, list[Problem]]:
    if isinstance(recipe.value, list):
        if recipe.value and all(isinstance(item.value, str) for item in recipe.value):
            return None, [Problem(recipe.mark, "recipe", "expected one recipe, not a list of names")]  # makes a sweep
        return Node({"round": recipe}, recipe.mark, recipe.key_mark), []
    if isinstance(recipe.value, str):
        return _used(recipe, "recipe")
    if not isinstance(recipe.value, dict) or not ({"use", "with"} & set(recipe.value)):
        return None, []
    problems = [
        Problem(node.key_mark, f"recipe.{key}", "unknown key; expected use and with", suggestion(key, ("use", "with")))
        for key, node in recipe.value.items()
        if key not in ("use", "with")
    ]
    if "use" not in recipe.value:
        return None, [
            *problems,
            Problem(recipe.mark, "recipe.use", "missing: the name of the recipe that `with` changes"),
        ]
    made, wrong = _used(recipe.value["use"], "recipe.use")
    problems += wrong
    if made is None or "with" not in recipe.value:
        return made, problems
    changed, wrong = _changed(made, recipe.value["with"])
    return changed, [*problems, *wrong]


def _used(name: Node, where: str) -> tuple[Node | None, list[Problem]]:
    if not isinstance(name.value, str):
        message = f"expected the name of a recipe, one of {', '.join(recipe_names())}, or a path to a .yaml file"
        return None, [Problem(name.mark, where, message)]
    path = find_recipe(name.value, FilePath(name.mark.file).parent)
    if path is None:
        message = f"there is no recipe {name.value!r}; expected one of {', '.join(recipe_names())}, or a .yaml file"
        return None, [Problem(name.mark, where, message, suggestion(name.value, recipe_names()))]
    return read(path)


def _changed(recipe: Node, changes: Node) -> tuple[Node, list[Problem]]:
    if not isinstance(changes.value, dict):
        return recipe, [Problem(changes.mark, "recipe.with", "expected a mapping such as {train.epochs: 2}")]
    problems: list[Problem] = []
    for key, value in changes.value.items():
        try:
            path, _ = parse_path(in_round(key))
        except SpecError as error:
            problems += error.problems
            continue
        recipe, wrong = apply(recipe, [(path, value)])
        problems += [Problem(value.key_mark, f'recipe.with."{key}"', p.message, p.hint) for p in wrong]
    return recipe, problems


def in_round(path: str) -> str:
    """Return a path into a recipe: one that begins with an operation means the steps of a round."""
    first = path.split(".")[0].split("[")[0]
    return f"round.{path}" if first in OPERATIONS else path


def in_recipe(path: Path) -> Path:
    """Return ``recipe.train.epochs`` as ``recipe.round.train.epochs``, and any other path as it is."""
    if len(path) > 1 and path[0] == "recipe" and path[1] in OPERATIONS:
        return ("recipe", "round", *path[1:])
    return path
