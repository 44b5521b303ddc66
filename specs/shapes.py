"""What a pydantic model expects at a place, in plain words.

Pydantic tells where a value was wrong by a location that mixes keys with the names of union branches. Walking
the model's core schema beside the location tells them apart, and ends at the schema of the wrong value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic_core import CoreSchema, SchemaValidator

from ..tasks.parameters import NAME
from .problems import Path, one_of, shown
from .tree import Node, at

Schema = Mapping[str, Any]
_WRAPPERS = {
    **dict.fromkeys(("default", "nullable", "model", "dataclass", "custom-error", "definitions"), "schema"),
    **dict.fromkeys(("function-before", "function-after", "function-wrap"), "schema"),
    "lax-or-strict": "lax_schema",
    "json-or-python": "python_schema",
}
_BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
_FIELDS = ("model-fields", "typed-dict", "dataclass-args")
_LISTS = ("list", "tuple", "set", "frozenset", "generator")
_WORDS = {
    "bool": "true or false",
    "none": "null",
    "date": "a date",
    "datetime": "a date and time",
    "time": "a time of day",
    "timedelta": "a duration",
    "url": "an address",
    "any": "a value",
}
_PATTERNS = {NAME: "a name of at most 64 letters, digits, dots, dashes and underscores, a letter or digit first"}


@dataclass(frozen=True)
class Place:
    """Where a location ends: a path in the document, the schema there and that of the mapping around it."""

    path: Path
    schema: Schema | None = None
    owner: Schema | None = None
    is_key: bool = False


@dataclass(frozen=True)
class Fork:
    """Where a location enters a plain union: the branch it took and what is left of it."""

    path: Path
    schema: Schema
    label: str
    rest: Path


class Shapes:
    """The core schema of a model, to be walked and described."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.definitions: dict[str, Schema] = {}
        self.root: Schema = TypeAdapter(model).core_schema
        self._labels: dict[int, dict[str, Schema]] = {}
        self._models: dict[int, type[BaseModel]] = {}
        self.bare(self.root)

    def bare(self, schema: Schema) -> Schema:
        """Return the schema without defaults, validators and other wrappers."""
        while True:
            kind = schema["type"]
            if kind == "definitions":
                self.definitions.update({item["ref"]: item for item in schema["definitions"]})
            if kind == "definition-ref":
                schema = self.definitions[schema["schema_ref"]]
            elif kind == "chain":
                schema = schema["steps"][0]
            elif kind in _WRAPPERS:
                inner = schema[_WRAPPERS[kind]]
                if kind == "model":
                    self._models[id(self.bare(inner))] = schema["cls"]
                schema = inner
            else:
                return schema

    def walk(self, schema: Schema | None, loc: Path, path: Path, node: Node, named: bool) -> Place | Fork:
        """Follow a location; ``named`` if it ends in a key that need not be in the document."""
        owner: Schema | None = None
        while schema is not None:
            schema = self.bare(schema)
            if not loc:
                return Place(path, schema, owner)
            head, kind = loc[0], schema["type"]
            if kind == "tagged-union":
                schema, loc = self._tagged(schema, head), loc[1:]
                continue
            if kind == "union" and "custom_error_type" not in schema:
                return Fork(path, schema, str(head), loc[1:])
            owner, inside = schema, schema
            if kind in _FIELDS:
                field, head = self._field(schema, str(head), path, node)
                schema = field["schema"] if field else None
            elif kind in _LISTS and isinstance(head, int):
                items = schema.get("items_schema")
                last = len(items) - 1 if isinstance(items, list) else 0
                schema = (items[min(head, last)] if last >= 0 else None) if isinstance(items, list) else items
            elif kind == "dict":
                if loc[1:2] == ("[key]",):
                    return Place((*path, str(head)), schema.get("keys_schema"), schema, is_key=True)
                schema, head = schema.get("values_schema"), str(head)
            else:
                break
            path, loc = (*path, head), loc[1:]
            if schema is None and not loc:
                return Place(path, None, inside)
        return Place(_guess(loc, path, node, named), None, owner if not loc else None)

    def branch(self, union: Schema, label: str) -> Schema | None:
        """Return the branch of a plain union by the name that pydantic gives it in locations."""
        if id(union) not in self._labels:
            self._labels[id(union)] = {self._label(choice, name): choice for choice, name in _choices(union)}
        return self._labels[id(union)].get(label)

    def keys(self, schema: Schema | None) -> list[str]:
        """Return the keys that a mapping of this schema may have, sorted; none are listed for a free one."""
        if schema is None:
            return []
        schema = self.bare(schema)
        kind = schema["type"]
        if kind in _FIELDS:
            return sorted(_alias(name, field) for name, field in _fields(schema).items())
        if kind == "dict":
            return self.words(schema["keys_schema"]) if "keys_schema" in schema else []
        if kind == "tagged-union" and not isinstance(schema["discriminator"], str):
            return [str(tag) for tag in schema["choices"]]
        parts = schema["choices"].values() if kind == "tagged-union" else self.branches(schema)
        return sorted({key for part in parts for key in self.keys(part)})

    def branches(self, schema: Schema) -> list[Schema]:
        """Return the branches of a plain union; none for another schema."""
        return [choice for choice, _ in _choices(schema)] if schema["type"] == "union" else []

    def words(self, schema: Schema | None) -> list[str]:
        """Return the words that are right here: of a literal, an enumeration, a short form, or a union with such."""
        if schema is None:
            return []
        schema = self.bare(schema)
        if schema["type"] == "model-fields":
            return self._short(schema)
        if schema["type"] == "literal":
            return [_word(value) for value in schema["expected"]]
        if schema["type"] == "enum":
            return [_word(member.value) for member in schema["members"]]
        return [word for part in self.branches(schema) for word in self.words(part)]

    def describe(self, schema: Schema, in_union: bool = False, context: Mapping[str, Any] | None = None) -> str:
        """Return what is expected, such as "a whole number of at least 1"; ``context`` adds bounds."""
        schema = self.bare(schema)
        kind = schema["type"]
        if kind in ("int", "float", "decimal"):
            number = "a whole number" if kind == "int" else "a number"
            return f"{number} {bounds({**schema, **(context or {})})}".rstrip()
        if kind in ("literal", "enum"):
            words = self.words(schema)
            return f"a word ({one_of(words)})" if in_union and len(words) > 1 else one_of(words)
        if kind == "str":
            pattern = schema.get("pattern")
            return "text" if pattern is None else _PATTERNS.get(pattern, f"text that matches {pattern}")
        if kind in _LISTS:
            return "a list"
        if kind == "union" and "custom_error_type" not in schema:
            # In a fixed order: words and numbers as they stand, mappings after them.
            parts = dict.fromkeys(self.describe(part, in_union=True) for part in self.branches(schema))
            *most, last = sorted(parts, key=lambda part: part.startswith("a mapping"))
            return f"{', '.join(most)}{',' * (len(most) > 1)} or {last}" if most else last
        if kind == "tagged-union" and not isinstance(schema["discriminator"], str):
            return f"a mapping with {one_of(self.keys(schema))}"
        words = self.words(schema)
        if words:
            return f"{one_of(words)}, or a mapping with {'one of these keys' if len(words) > 1 else 'this key'}"
        if kind in _FIELDS or kind in ("dict", "tagged-union"):
            keys = self.keys(schema)
            return f"a mapping with {', '.join(keys)}" if in_union and keys and kind != "dict" else "a mapping"
        return _WORDS.get(kind, "another value")

    def _short(self, schema: Schema) -> list[str]:
        """Return the words that a model takes in place of a mapping, if its JSON Schema names such."""
        model = self._models.get(id(schema))
        if model is None:
            return []
        try:
            whole = model.model_json_schema()
        except PydanticUserError:
            return []
        top = whole.get("$defs", {}).get(whole.get("$ref", "").rsplit("/", 1)[-1], whole)
        return [str(word) for option in top.get("anyOf", []) for word in option.get("enum", [])]

    def _tagged(self, schema: Schema, tag: object) -> Schema | None:
        found = (choice for name, choice in schema["choices"].items() if str(getattr(name, "value", name)) == str(tag))
        return next(found, None)

    def _field(self, schema: Schema, name: str, path: Path, node: Node) -> tuple[Schema | None, str]:
        for key, field in _fields(schema).items():
            alias = _alias(key, field)
            if name in (key, alias):
                by_name = at(node, (*path, alias)) is None and at(node, (*path, key)) is not None
                return field, key if by_name else alias
        return None, name

    def _label(self, choice: Schema, name: str | None) -> str:
        if name is not None:
            return name
        if choice["type"] == "definition-ref":
            choice = self.definitions[choice["schema_ref"]]
        if choice["type"] == "model":
            return str(choice["cls"].__name__)
        definitions = list(self.definitions.values())
        whole = {"type": "definitions", "schema": choice, "definitions": definitions} if definitions else choice
        return SchemaValidator(cast(CoreSchema, whole)).title


@lru_cache(maxsize=64)
def shapes_of(model: type[BaseModel]) -> Shapes:
    """Return the shapes of a model, made once."""
    return Shapes(model)


def bounds(limits: Mapping[str, Any]) -> str:
    """Return a range in words: "from 1 to 5", "above 0 and at most 1", "of at least 1"; may be empty."""
    given = {name: _number(limits[name]) for name in (*_BOUNDS, "multiple_of") if limits.get(name) is not None}
    if "ge" in given and "le" in given:
        text = f"from {given['ge']} to {given['le']}"
    else:
        text = " and ".join(f"{word} {given[name]}" for name, word in _BOUNDS.items() if name in given)
    if "multiple_of" in given:
        text += f" that is a multiple of {given['multiple_of']}"
    return text.strip()


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _guess(loc: Path, path: Path, node: Node, named: bool) -> Path:
    """Follow a location without a schema: what the document does not have is a name of pydantic's."""
    for index, element in enumerate(loc):
        if at(node, (*path, element)) is not None or (named and index == len(loc) - 1):
            path = (*path, element)
    return path


def _choices(union: Schema) -> Iterator[tuple[Schema, str | None]]:
    for choice in union["choices"]:
        yield (choice[0], str(choice[1])) if isinstance(choice, tuple) else (choice, None)


def _fields(schema: Schema) -> dict[str, Schema]:
    fields = schema["fields"]
    return fields if isinstance(fields, dict) else {field["name"]: field for field in fields}


def _alias(name: str, field: Schema) -> str:
    alias = field.get("validation_alias")
    return alias if isinstance(alias, str) else name


def _word(value: object) -> str:
    return shown(value) if value is None or isinstance(value, bool) else str(value)
