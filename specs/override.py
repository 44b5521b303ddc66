"""``--set recipe.train.epochs=2``: values given on the command line, put into the tree of a spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace

from .problems import Mark, Path, Problem, SpecError, dotted, nearest, one_of, shown
from .tree import Node, parse, plain, replaced

Assignment = tuple[Path, Node]
"""A path as it was written (names may stand for list elements) and the value to put there."""

_KEY = re.compile(r"""("(?:[^"\\]|\\.)*")|([^\s.\[\]"=]+)""")
_INDEX = re.compile(r"\[([0-9]{1,9})\]")


def parse_path(text: str) -> tuple[Path, int]:
    """Return the path that text starts with and where it ends; ``agents[0].count`` is ``agents.0.count``.

    Raises ``ValueError`` with the offset of what is wrong as its second argument.
    """
    path: list[str | int] = []
    end = 0
    while True:
        found = _KEY.match(text, end)
        if found is None:
            raise ValueError("expected a key", end)
        quoted, word = found.groups()
        if quoted is not None:
            try:
                path.append(json.loads(quoted))
            except ValueError:
                raise ValueError("cannot read the quoted key", end) from None
        else:
            path.append(int(word) if word.isascii() and word.isdigit() and len(word) < 10 else word)
        end = found.end()
        while index := _INDEX.match(text, end):
            path.append(int(index[1]))
            end = index.end()
        if not text.startswith(".", end):
            return tuple(path), end
        end += 1


def parse_assignment(text: str) -> Assignment:
    """Read ``path=value``; the value is YAML. Raises ``SpecError``."""
    file = f"--set {text}"
    try:
        path, end = parse_path(text)
        if not text.startswith("=", end):
            raise ValueError("expected '='", end)
    except ValueError as error:
        message, offset = error.args
        mark = Mark(file, 1, offset + 1)
        raise SpecError([Problem(mark, "", message, "an assignment is path=value, such as rounds=3")]) from None
    value = text[end + 1 :]
    mark = Mark(file, 1, 1)
    if not value.strip():
        return path, Node(None, mark, mark)
    node, problems = parse(value, file, column=end + 2)
    if node is None or problems:
        raise SpecError(replace(problem, where="") for problem in problems)
    return path, replace(node, key_mark=mark)


def apply(node: Node, assignments: Iterable[Assignment]) -> tuple[Node, list[Problem]]:
    """Put values into a tree; mappings that do not exist are made, lists are not."""
    problems: list[Problem] = []
    for path, new in assignments:
        try:
            node = _put(node, _resolve(node, path, new.key_mark or new.mark), new)
        except SpecError as error:
            problems += error.problems
    return node, problems


def _put(node: Node, path: Path, new: Node) -> Node:
    """Replace or add a value, with the mappings that are missing on the way."""
    depth = 0
    current: Node | None = node
    while depth < len(path) and current is not None and current.value is not None:
        head = path[depth]
        if isinstance(current.value, dict) and isinstance(head, str):
            current = current.value.get(head)
        elif isinstance(current.value, list) and isinstance(head, int):
            current = current.value[head]
        depth += 1
    mark = new.key_mark or new.mark
    for key in reversed(path[depth:]):
        new = Node({str(key): new}, mark, mark)
    return replaced(node, path[:depth], new)


def _resolve(node: Node, path: Path, mark: Mark) -> Path:
    """Return the path with names of list elements turned into indexes. Raises ``SpecError``."""
    done: Path = ()
    current: Node | None = node
    index = 0
    while index < len(path):
        element, index = path[index], index + 1
        if current is None or current.value is None:
            if isinstance(element, int):
                raise _error(mark, done, "there is no list here")
            done, current = (*done, element), None
        elif isinstance(current.value, dict):
            key, index = _key(current.value, path, index)
            if isinstance(element, int) and key not in current.value:
                raise _error(mark, done, f"there is no {element} in this mapping", f"it has {_names(current.value)}")
            done, current = (*done, key), current.value.get(key)
        elif isinstance(current.value, list):
            if isinstance(element, str):
                following = path[index] if index < len(path) else None
                inner, used = _named(current.value, element, following, done, mark)
                index += used
            else:
                inner = (element,)
            if not isinstance(inner[0], int) or inner[0] >= len(current.value):
                raise _error(mark, done, f"there is no [{inner[0]}]: the list has {len(current.value)} elements")
            current = current.value[inner[0]]
            if len(inner) == 2 and isinstance(current.value, dict):
                current = current.value[str(inner[1])]
            done = (*done, *inner)
        else:
            message = f"there is nothing inside {shown(plain(current))}"
            raise _error(mark, done, message, f"set {dotted(done)} as a whole")
    return done


def _key(mapping: dict[str, Node], path: Path, index: int) -> tuple[str, int]:
    """Return the key that an element names and the index after it; a key that holds dots spans several."""
    key = str(path[index - 1])
    joined, end = key, index
    while joined not in mapping and end < len(path) and isinstance(path[end], str):
        joined, end = f"{joined}.{path[end]}", end + 1
    return (joined, end) if joined in mapping else (key, index)


def _named(items: list[Node], name: str, following: str | int | None, done: Path, mark: Mark) -> tuple[Path, int]:
    """Return the way to the element of that name, and how many further path elements that took (an index)."""
    ways: list[Path] = []
    names: list[str] = []
    for index, item in enumerate(items):
        if not isinstance(item.value, dict):
            continue
        given = item.value.get("name")
        if given is not None and isinstance(given.value, str):
            way: Path = (index,)
            names.append(given.value)
        elif len(item.value) == 1:
            way = (index, *item.value)
            names.extend(item.value)
        else:
            continue
        if names[-1] == name:
            ways.append(way)
    count = len(ways)
    if not ways:
        near = nearest(name, names)
        expected = f"; expected {one_of(list(dict.fromkeys(names)))}" if names else ""
        hint = f"did you mean {near!r}?" if near else ""
        raise _error(mark, done, f"no element of this list is named {name!r}{expected}", hint)
    if isinstance(following, int):
        if following >= count:
            raise _error(mark, done, f"there is no {name}[{following}]: {count} named {name!r}")
        return ways[following], 1
    if count > 1:
        choices = ", ".join(f"{name}[{number}]" for number in range(min(count, 5)))
        raise _error(mark, done, f"{count} elements of this list are named {name!r}", f"say which one: {choices}")
    return ways[0], 0


def _names(mapping: dict[str, Node]) -> str:
    return ", ".join(mapping) or "nothing"


def _error(mark: Mark, path: Path, message: str, hint: str = "") -> SpecError:
    return SpecError([Problem(mark, dotted(path), message, hint)])
