"""What a check found, and the line of the user's files that it belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...specs.library import RECIPES
from ...specs.problems import Mark, Path, Problem, dotted
from ...specs.tree import Node, at


@dataclass(frozen=True)
class Finding:
    """One mistake: the key responsible, what is wrong, what to do, and other keys that have a part in it."""

    place: Path
    message: str
    hint: str = ""
    also: tuple[Path, ...] = ()


def in_round(index: int, operation: str, *keys: str) -> Path:
    """Return the path of a step of the round, or of a key in it."""
    return ("recipe", "round", index, operation, *keys)


def problem(finding: Finding, node: Node) -> Problem:
    """Return the finding at the line of the key responsible, or of what stands above it where it is not written.

    A key that was set on the command line comes first. What a shipped recipe says is found at another key that has
    a part in it, or else where the spec names the recipe.
    """
    known = {path: _mark(found) for path in (finding.place, *finding.also) if (found := at(node, path)) is not None}
    where, mark = finding.place, _above(node, finding.place)
    given = [path for path in known if known[path].file.startswith("--set ")]
    if _is_shipped(mark):
        given += [path for path in known if not _is_shipped(known[path])]
        mark = (at(node, ("recipe",)) or node).mark
    if given:
        where, mark = given[0], known[given[0]]
    return Problem(mark, dotted(where), finding.message, finding.hint)


def _above(node: Node, path: Path) -> Mark:
    """Return the position of a key, or of the nearest one above it that is there."""
    while path and at(node, path) is None:
        path = path[:-1]
    return _mark(at(node, path) or node)


def _mark(node: Node) -> Mark:
    """Return the position of a value's key; of the value itself where an override put it there."""
    key = node.key_mark
    return key if key is not None and key.file == node.mark.file else node.mark


def _is_shipped(mark: Mark) -> bool:
    return mark.file.startswith(f"{RECIPES}{os.sep}")
