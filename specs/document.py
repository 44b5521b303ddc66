"""From a file to checked specs: read, override, transform, sweep, validate; all mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from .explain import from_validation
from .override import Assignment, apply, parse_assignment
from .problems import Mark, Path, Problem, SpecError, is_within, suggestion
from .sweep import MOST_VARIANTS, Variant, expand
from .tree import Node, plain, read

M = TypeVar("M", bound=BaseModel)
Transform = Callable[[Node], tuple[Node, list[Problem]]]
Rename = Callable[[Path], Path]


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """One spec: the checked value, the tree behind it and, in a sweep, what was chosen where."""

    value: M
    node: Node
    choices: dict[str, Any]


def load(
    path: str | os.PathLike[str],
    model: type[M],
    overrides: Sequence[str] = (),
    transform: Transform | None = None,
    *,
    rename: Rename = lambda path: path,
    late_prefixes: tuple[str, ...] = (),
    early_prefixes: tuple[str, ...] = (),
    candidates: Iterable[str] = (),
    limit: int = MOST_VARIANTS,
) -> list[Loaded[M]]:
    """Read a spec and return it, or the variants of its sweep. Raises ``SpecError`` with every problem.

    ``overrides`` are texts such as ``rounds=3``; ``rename`` turns the short form of a path into the full one. They
    are applied before ``transform``, except those below one of ``late_prefixes`` (unless below one of
    ``early_prefixes``), which name what the transform makes. ``candidates`` are the names of the specs that exist, for
    the answer to a missing file.
    """
    if not FilePath(path).is_file():
        raise SpecError([missing_file(path, candidates)])
    node, problems = read(path)
    if node is None:
        raise SpecError([*problems, *_assignments(overrides)[1]])
    return build(
        node,
        model,
        overrides,
        transform,
        rename=rename,
        late_prefixes=late_prefixes,
        early_prefixes=early_prefixes,
        limit=limit,
        problems=problems,
    )


def build(
    node: Node,
    model: type[M],
    overrides: Sequence[str] = (),
    transform: Transform | None = None,
    *,
    rename: Rename = lambda path: path,
    late_prefixes: tuple[str, ...] = (),
    early_prefixes: tuple[str, ...] = (),
    limit: int = MOST_VARIANTS,
    problems: Iterable[Problem] = (),
) -> list[Loaded[M]]:
    """Do what ``load`` does on a tree that was read already, with the problems found so far."""
    given, wrong = _assignments(overrides)
    assignments = [(rename(path), value) for path, value in given]
    structural = [*problems, *wrong]
    late = [item for item in assignments if _is_late(item[0], late_prefixes, early_prefixes)]
    node, wrong = apply(node, [item for item in assignments if item not in late])
    found = [*structural, *wrong]
    variants: list[Variant] = []
    # A list may be a sweep for the transform (the name of a recipe), or for the schema in what it made.
    for start in _variants(node, transform, limit, found):
        made, transformed = transform(start.node) if transform else (start.node, [])
        made, wrong = apply(made, late)
        found += [*transformed, *wrong]
        inner, invalid = expand(made, lambda tree: validate(tree, model), limit - len(variants))
        found += (problem for problem in invalid if not _follows(problem, structural, transformed))
        variants += [Variant({**start.choices, **item.choices}, item.node) for item in inner]
    if found:
        raise SpecError(found)
    return [Loaded(model.model_validate(plain(item.node)), item.node, item.choices) for item in variants]


def validate(node: Node, model: type[BaseModel]) -> list[Problem]:
    """Return what a model finds wrong with a tree."""
    try:
        model.model_validate(plain(node))
    except ValidationError as error:
        return from_validation(error, node, model)
    return []


def missing_file(path: str | os.PathLike[str], candidates: Iterable[str]) -> Problem:
    """Return the problem of a spec that does not exist, with the nearest name that does."""
    names = list(candidates)
    asked = FilePath(path).with_suffix("").as_posix() if FilePath(path).name else os.fspath(path)
    by_last = {name.rsplit("/", 1)[-1].removesuffix(".yaml"): name for name in names}
    hint = suggestion(asked, names)
    if not hint:
        last = suggestion(asked.rsplit("/", 1)[-1], by_last)
        hint = next((f"did you mean {by_last[name]!r}?" for name in by_last if f"{name!r}?" in last), "")
    return Problem(Mark(os.fspath(path), 1, 1), "", "there is no such file", hint)


def _assignments(overrides: Sequence[str]) -> tuple[list[Assignment], list[Problem]]:
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            assignments.append(parse_assignment(text))
        except SpecError as error:
            problems += error.problems
    return assignments, problems


def _variants(node: Node, transform: Transform | None, limit: int, found: list[Problem]) -> Iterator[Variant]:
    if transform is None:
        yield Variant({}, node)
        return
    variants, problems = expand(node, lambda tree: transform(tree)[1], limit)
    found += problems
    yield from variants


def _is_late(path: Path, late: tuple[str, ...], early: tuple[str, ...]) -> bool:
    """Whether a path lies below a late prefix (not at it) and neither at nor below an early one."""
    keys = [str(element) for element in path]
    below = any(keys[: len(start)] == start and len(keys) > len(start) for start in _split(late))
    return below and not any(keys[: len(start)] == start for start in _split(early))


def _split(prefixes: tuple[str, ...]) -> list[list[str]]:
    return [prefix.split(".") for prefix in prefixes]


def _follows(problem: Problem, structural: list[Problem], transformed: list[Problem]) -> bool:
    """Whether a problem only repeats another: at or below a broken place, or above one that has no final form."""
    if any(item.where and is_within(problem.where, item.where) for item in structural):
        return True
    return any(is_within(problem.where, item.where) or is_within(item.where, problem.where) for item in transformed)
