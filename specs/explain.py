"""Pydantic's answer to a wrong spec, retold: each mistake once, at its place in the file, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from .problems import Path, Problem, dotted, nearest, one_of, ordered, shown, suggestion
from .shapes import Fork, Place, Schema, Shapes, shapes_of
from .tree import Node, at, locate, plain

_NAMED = ("missing", "missing_argument", "extra_forbidden", "unexpected_keyword_argument")
_OWN_WORDS = ("value_error", "assertion_error")
_TAGS = ("union_tag_invalid", "union_tag_not_found")
_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of")
_LENGTHS = {
    "too_short": ("at least", "min_length", "elements"),
    "too_long": ("at most", "max_length", "elements"),
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen": "a list",
    "iterable": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "none": "null",
    "date": "a date",
    "datetime": "a date and time",
    "time": "a time of day",
    "path": "a path",
    "url": "an address",
}
_VAGUE = ("a value", "another value")
_ENDINGS = ("_type", "_parsing", "_from_float", "_parsing_size", "_required", "_too_large", "_exact")


@dataclass(frozen=True)
class _Mistake:
    kind: str
    loc: Path
    value: Any
    context: Mapping[str, Any]
    message: str


def from_validation(error: ValidationError, node: Node, model: type[BaseModel]) -> list[Problem]:
    """Return the problems behind a ``ValidationError`` of ``model`` on the plain values of ``node``."""
    shapes = shapes_of(model)
    mistakes = [
        _Mistake(item["type"], tuple(item["loc"]), item["input"], item.get("ctx", {}), item["msg"])
        for item in error.errors(include_url=False)
    ]
    return ordered(_Explainer(shapes, node).explain(shapes.root, (), mistakes))


class _Explainer:
    def __init__(self, shapes: Shapes, node: Node) -> None:
        self.shapes = shapes
        self.node = node

    def explain(self, schema: Schema | None, path: Path, mistakes: list[_Mistake]) -> list[Problem]:
        problems: list[Problem] = []
        forks: dict[tuple[Path, int], tuple[Fork, dict[str, list[_Mistake]]]] = {}
        missing: dict[Path, Problem] = {}
        extra: list[Place] = []
        for mistake in mistakes:
            place = self.shapes.walk(schema, mistake.loc, path, self.node, mistake.kind in _NAMED)
            if isinstance(place, Fork):
                _, branches = forks.setdefault((place.path, id(place.schema)), (place, {}))
                rest = _Mistake(mistake.kind, place.rest, mistake.value, mistake.context, mistake.message)
                branches.setdefault(place.label, []).append(rest)
            elif mistake.kind in ("missing", "missing_argument"):
                missing[place.path] = self.missing(place)
            elif mistake.kind in _NAMED:
                extra.append(place)
            else:
                problems.append(self.wrong(place, mistake))
        for place in extra:
            # A misspelt key is one mistake, not an unknown key and a missing one.
            needed = [str(path[-1]) for path in missing if path[:-1] == place.path[:-1]]
            meant = nearest(str(place.path[-1]), needed)
            missing.pop((*place.path[:-1], meant or ""), None)
            problems.append(self.unknown(place.path, self.shapes.keys(place.owner), meant))
        problems += missing.values()
        for fork, branches in forks.values():
            problems += self.fork(fork, branches)
        return problems

    def fork(self, fork: Fork, branches: dict[str, list[_Mistake]]) -> list[Problem]:
        """Explain a plain union by the one branch that was meant, or by all of them in one sentence."""
        found = at(self.node, fork.path)
        value = plain(found) if found else next(m.value for group in branches.values() for m in group)
        entered: list[tuple[int, int, str]] = []
        for label, mistakes in branches.items():
            if all(self.is_inside(fork, label, mistake, value) for mistake in mistakes):
                entered.append((self.known(fork, label, value), -len(mistakes), label))
        known, _, label = max(entered, key=lambda item: item[:2], default=(0, 0, ""))
        if entered and (len(entered) == 1 or known or not isinstance(value, dict)):
            return self.explain(self.shapes.branch(fork.schema, label), fork.path, branches[label])
        keys = sorted({key for *_, name in entered for key in self.shapes.keys(self._branch(fork, name))})
        if entered and value and keys:
            return [self.unknown((*fork.path, key), keys) for key in value]
        expected = self.shapes.describe(fork.schema)
        return [self.expected(fork.path, expected, value, suggestion(value, self.shapes.words(fork.schema)))]

    def _branch(self, fork: Fork, label: str) -> Schema | None:
        return self.shapes.branch(fork.schema, label)

    def known(self, fork: Fork, label: str, value: Any) -> int:
        """Return how well a mapping's keys fit a branch; one that takes any key fits a little."""
        branch = self._branch(fork, label)
        if not isinstance(value, dict) or branch is None:
            return 0
        keys = self.shapes.keys(branch)
        free = not keys and self.shapes.bare(branch)["type"] == "dict"
        return 1 if free else 2 * sum(key in keys for key in value)

    def is_inside(self, fork: Fork, label: str, mistake: _Mistake, value: Any) -> bool:
        """Whether a branch took the value for its own and found the mistake within it."""
        if mistake.kind in _OWN_WORDS or (mistake.kind in _TAGS and isinstance(value, dict)):
            return True
        branch = self._branch(fork, label)
        place = self.shapes.walk(branch, mistake.loc, fork.path, self.node, mistake.kind in _NAMED)
        return len(place.path) > len(fork.path)

    def expected(self, path: Path, expected: str, value: Any, hint: str = "") -> Problem:
        mark = locate(self.node, path)
        return Problem(mark, dotted(path), f"expected {expected}; got {shown(value)}", hint)

    def missing(self, place: Place) -> Problem:
        mark = locate(self.node, place.path[:-1], key=True)
        message = "missing element" if isinstance(place.path[-1], int) else "missing key"
        expected = self.shapes.describe(place.schema) if place.schema is not None else _VAGUE[0]
        if expected not in _VAGUE:
            message += f"; expected {expected}"
        return Problem(mark, dotted(place.path), message)

    def unknown(self, path: Path, keys: list[str], meant: str | None = None) -> Problem:
        name = str(path[-1])
        free = [meant] if meant else [key for key in keys if at(self.node, (*path[:-1], key)) is None]
        message = f"unknown key; expected {one_of(keys)}" if keys else "unknown key"
        return Problem(
            locate(self.node, path, key=True),
            dotted(path),
            message,
            suggestion(name, free or keys) or suggestion(name, keys),
        )

    def wrong(self, place: Place, mistake: _Mistake) -> Problem:
        path, schema, kind = place.path, place.schema, mistake.kind
        if place.is_key:
            words = self.shapes.words(schema)
            message = f"unknown key; expected {self.shapes.describe(schema) if schema else 'another word'}"
            mark = locate(self.node, path, key=True)
            return Problem(mark, dotted(path), message, suggestion(mistake.value, words))
        if kind in _TAGS:
            return self.tag(place, mistake)
        if kind in _LENGTHS:
            bound, name, unit = _LENGTHS[kind]
            count = mistake.context.get(name)
            unit = unit[:-1] if count == 1 else unit
            return self.expected(path, f"{bound} {count} {unit}", mistake.value)
        if kind in _RANGES:
            numeric = schema is not None and schema["type"] in ("int", "float", "decimal")
            base: Schema = schema if schema and numeric else {"type": "float"}
            return self.expected(path, self.shapes.describe(base, context=mistake.context), mistake.value)
        if kind == "finite_number":
            return self.expected(path, "a finite number", mistake.value)
        words = self.shapes.words(schema)
        is_word = kind in ("literal_error", "enum")
        expected: str | None = one_of(words or ["another word"]) if is_word else self.type(schema, kind)
        if expected is not None:
            return self.expected(path, expected, mistake.value, suggestion(mistake.value, words))
        return self.own(path, mistake)

    def own(self, path: Path, mistake: _Mistake) -> Problem:
        """Tell a validator's own words; its context may list ``names``, for the nearest one."""
        names = mistake.context.get("names", ())
        message = _own_words(mistake.message)
        if message.startswith("expected "):
            return self.expected(
                path, message.removeprefix("expected "), mistake.value, suggestion(mistake.value, names)
            )
        return Problem(locate(self.node, path), dotted(path), message, suggestion(mistake.value, names))

    def type(self, schema: Schema | None, kind: str) -> str | None:
        """Return what was expected, for an error that means a wrong type."""
        if kind == "string_pattern_mismatch" or kind.endswith(_ENDINGS):
            known = self.shapes.describe(schema) if schema is not None else "another value"
            if known not in _VAGUE:
                return known
            return _TYPES.get(kind.split("_")[0])
        return None

    def tag(self, place: Place, mistake: _Mistake) -> Problem:
        """Explain a discriminated union that found no branch."""
        path, schema, value = place.path, place.schema, mistake.value
        known = schema if schema is not None and schema["type"] == "tagged-union" else {"choices": {}}
        tags = [str(getattr(tag, "value", tag)) for tag in known["choices"]] or ["another word"]
        discriminator = known.get("discriminator")
        if not isinstance(value, dict):
            expected = self.shapes.describe(schema) if schema else "a mapping"
            return self.expected(path, expected, value, suggestion(value, tags))
        if isinstance(discriminator, str):
            inner = (*path, discriminator)
            if discriminator in value:
                given = value[discriminator]
                return self.expected(inner, one_of(tags), given, suggestion(given, tags))
            mark = locate(self.node, path, key=True)
            return Problem(mark, dotted(inner), f"missing key; expected {one_of(tags)}")
        tag = mistake.context.get("tag")
        wrong = [key for key in value if key not in tags]
        if tag in value or len(value) == 1 and wrong:
            return self.unknown((*path, str(tag if tag in value else wrong[0])), tags)
        if tag is not None:
            return self.expected(path, one_of(tags), tag, suggestion(tag, tags))
        return self.expected(path, f"a mapping with one key, {one_of(tags)}", value)


def _own_words(message: str) -> str:
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    if message.startswith("Input should be "):
        message = "expected " + message.removeprefix("Input should be ")
    return message
