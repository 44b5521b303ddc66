"""YAML text as a tree in which every value knows where it stands.

Scalars are resolved by the core schema of YAML 1.2, so ``on``, ``yes`` and ``no`` are words. There are no tags.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import yaml
from yaml.composer import ComposerError

from .problems import Mark, Path, Problem, dotted, ordered
from .scalars import Scalar, scalar

__all__ = ["Mark", "Node", "Path", "at", "locate", "parse", "plain", "read", "replaced"]

LARGEST_FILE = 256 * 1024
LARGEST_TREE = 100_000
DEEPEST_TREE = 60

Value: TypeAlias = "dict[str, Node] | list[Node] | Scalar"


@dataclass(frozen=True)
class Node:
    """A value, the position where it starts and, in a mapping, the position of its key."""

    value: Value
    mark: Mark
    key_mark: Mark | None = None


def read(path: str | os.PathLike[str]) -> tuple[Node | None, list[Problem]]:
    """Read a file; whatever is wrong with it comes back as problems, and the tree as far as there is one."""
    start = Mark(os.fspath(path), 1, 1)
    try:
        with FilePath(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        return None, [Problem(start, "", f"cannot be read: {getattr(error, 'strerror', None) or error}")]
    if len(content) > LARGEST_FILE:
        return None, [Problem(start, "", f"the file is too large: a spec has at most {LARGEST_FILE:,} bytes")]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")
        mark = Mark(start.file, before.count(b"\n") + 1, len(line) + 1)
        return None, [Problem(mark, "", "the file is not UTF-8 text")]
    return parse(text, start.file)


def parse(text: str, file: str, column: int = 1) -> tuple[Node | None, list[Problem]]:
    """Read YAML text; ``file`` names it in marks, and ``column`` is where its first line starts."""
    reader = _Reader(file, column)
    try:
        composed = reader.compose(text)
    except yaml.YAMLError as error:
        return None, [_unreadable(error, text, reader)]
    except (ValueError, OverflowError, IndexError) as error:  # PyYAML lets some through: a directive, an escape
        return None, [Problem(Mark(file, 1, column), "", f"cannot be read as YAML: {error}")]
    if composed is None:
        return None, [Problem(Mark(file, 1, column), "", "the file is empty")]
    try:
        node = reader.node(composed, (), None, ())
    except _TooManyNodesError:
        message = f"aliases make this larger than {LARGEST_TREE:,} values"
        return None, [Problem(reader.mark(composed), "", message)]
    return node, ordered(reader.problems)


def plain(node: Node) -> Any:
    """Return the values without their positions."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def at(node: Node, path: Path) -> Node | None:
    """Return the node at a path, or None."""
    found = _down(node, path)
    return found[-1] if len(found) == len(path) + 1 else None


def locate(node: Node, path: Path, key: bool = False) -> Mark:
    """Return the position of a place, or of the deepest ancestor that exists; of its key if ``key``."""
    found = _down(node, path)[-1]
    return (found.key_mark if key else None) or found.mark


def replaced(node: Node, path: Path, new: Node) -> Node:
    """Return a tree with another node at a path, whose parent must exist; the given tree stays as it is.

    A value that was there leaves its key's position to the new one. Raises ``LookupError``.
    """
    if not path:
        return replace(new, key_mark=node.key_mark or new.key_mark)
    head, rest = path[0], path[1:]
    if isinstance(node.value, dict) and isinstance(head, str):
        mapping = dict(node.value)
        if rest or head in mapping:
            mapping[head] = replaced(mapping[head], rest, new)
        else:
            mapping[head] = new
        return replace(node, value=mapping)
    if isinstance(node.value, list) and isinstance(head, int):
        items = list(node.value)
        items[head] = replaced(items[head], rest, new)
        return replace(node, value=items)
    raise KeyError(head)


def _down(node: Node, path: Path) -> list[Node]:
    found = [node]
    for element in path:
        value = found[-1].value
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        inside: dict[Any, Node] = dict(pairs)
        inner = inside.get(element)
        if inner is None:
            break
        found.append(inner)
    return found


_PLAIN, _UNTAGGED = "plain", "untagged"


class _Loader(yaml.SafeLoader):
    """Composes nodes, marks plain scalars by their tag instead of resolving them, and bounds the depth."""

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else _UNTAGGED

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST_TREE:
            start = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "nested too deeply", start)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _TooManyNodesError(Exception):
    """Aliases within aliases have multiplied."""


class _Reader:
    def __init__(self, file: str, column: int) -> None:
        self.file = file
        self.column = column
        self.count = 0
        self.problems: list[Problem] = []

    def compose(self, text: str) -> yaml.Node | None:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()

    def mark(self, node: yaml.Node) -> Mark:
        return self.position(node.start_mark.line, node.start_mark.column)

    def position(self, line: int, column: int) -> Mark:
        return Mark(self.file, line + 1, column + (self.column if line == 0 else 1))

    def problem(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.mark(node), dotted(path), message, hint))

    def node(self, node: yaml.Node, path: Path, key_mark: Mark | None, above: tuple[int, ...]) -> Node:
        self.count += 1
        if self.count > LARGEST_TREE:
            raise _TooManyNodesError
        value: Value = None
        if id(node) in above:
            self.problem(node, path, "this holds an alias of itself")
        elif len(above) > DEEPEST_TREE:
            self.problem(node, path, "nested too deeply")
        elif isinstance(node, yaml.MappingNode):
            value = self.mapping(node, path, (*above, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            below = (*above, id(node))
            value = [self.node(item, (*path, index), None, below) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.ScalarNode):
            value = self.scalar(node, path)
        if node.tag not in (_PLAIN, _UNTAGGED):
            written = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.problem(node, path, f"the tag {written} is not allowed", "write the value without a tag")
        return Node(value, self.mark(node), key_mark)

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Scalar:
        text: str = node.value
        if self.is_broken(node, path):
            return None
        if node.tag != _PLAIN:
            return text
        try:
            return scalar(text)
        except ValueError:
            self.problem(node, path, f"a number of {len(text):,} digits is too long")
            return None

    def is_broken(self, node: yaml.ScalarNode, path: Path) -> bool:
        broken = any("\ud800" <= letter <= "\udfff" for letter in node.value)
        if broken:
            self.problem(node, path, "half of a surrogate pair is not a character")
        return broken

    def mapping(self, node: yaml.MappingNode, path: Path, above: tuple[int, ...]) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PLAIN and key_node.value == "<<":
                for key, item in self.merged(value_node, path, above):
                    merged.setdefault(key, item)
                continue
            name = self.key(key_node, path)
            if name is None:
                continue
            item = self.node(value_node, (*path, name), self.mark(key_node), above)
            if name in own:
                first = own[name].key_mark
                line = f" (first in line {first.line})" if first else ""
                self.problem(key_node, (*path, name), f"the key {name!r} is here twice{line}")
            else:
                own[name] = item
        return {**merged, **own}

    def merged(self, node: yaml.Node, path: Path, above: tuple[int, ...]) -> Iterator[tuple[str, Node]]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                value = self.node(source, path, None, above).value
                yield from value.items() if isinstance(value, dict) else ()
            else:
                self.problem(source, path, "'<<' merges a mapping or a list of mappings")

    def key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node, path, "a key is a word, not a list or a mapping")
            return None
        text: str = node.value
        if self.is_broken(node, path):
            return None
        if node.tag not in (_PLAIN, _UNTAGGED):
            self.problem(node, (*path, text), "a key has no tag")
        elif not isinstance(self.scalar(node, (*path, text)), str):
            self.problem(node, (*path, text), f"a key is a word; {text or 'nothing'} is not", "put it in quotes")
        return text


_HINTS = {
    "mapping values are not allowed here": "text that holds ': ' needs quotes",
    "found character '\\t' that cannot start any token": "indent with spaces, not with tabs",
}


def _unreadable(error: yaml.YAMLError, text: str, reader: _Reader) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        position = error.problem_mark or error.context_mark
        mark = reader.position(position.line, position.column) if position else Mark(reader.file, 1, reader.column)
        if error.problem == "but found another document":
            return Problem(mark, "", "a second document starts here; a spec is one document")
        message = ", ".join(part for part in (error.context, error.problem) if part)
        return Problem(mark, "", f"cannot be read as YAML: {message}", _HINTS.get(error.problem or "", ""))
    index = getattr(error, "position", 0)  # a ReaderError: a character that YAML does not allow
    line = text.count("\n", 0, index)
    mark = reader.position(line, index - (text.rfind("\n", 0, index) + 1))
    return Problem(mark, "", f"cannot be read as YAML: the character {text[index : index + 1]!r} is not allowed")
