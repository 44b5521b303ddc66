"""In what some specs differ: the keys whose values are not the same in all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

ABSENT = object()


def canonical(value: Any) -> str:
    """Give a text that is the same for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, default=str)


def value_words(value: Any) -> str:
    """Write a spec's value in one short line; a recipe is the chain of its operations."""
    if value is ABSENT:
        return "–"
    if isinstance(value, list) and value and all(isinstance(item, dict) and len(item) == 1 for item in value):
        return " → ".join(str(next(iter(item))) for item in value)
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1 and not any(value.values()):
        return str(next(iter(value)))  # a name with nothing chosen
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _element(items: Sequence[Any], index: int) -> str:
    """Name an element of a list by the operation or the name that it carries in every spec."""
    if all(isinstance(item, dict) for item in items):
        if len({next(iter(item)) if len(item) == 1 else "" for item in items} - {""}) == 1:
            return ""  # the single key names it
        names = {item.get("name") for item in items}
        if len(names) == 1 and isinstance(name := names.pop(), str):
            return f".{name}"
    return f"[{index}]"


def _walk(values: Sequence[Any], path: str) -> Iterator[tuple[str, Sequence[Any]]]:
    if len({"" if value is ABSENT else canonical(value) for value in values}) == 1:
        return
    if all(isinstance(value, dict) for value in values):
        keys = list(dict.fromkeys(key for value in values for key in value))
        if any(all(key in value for value in values) for key in keys):
            for key in keys:
                yield from _walk([value.get(key, ABSENT) for value in values], f"{path}.{key}" if path else str(key))
            return
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        found: list[tuple[str, Sequence[Any]]] = []
        for index in range(len(values[0])):
            items = [value[index] for value in values]
            if all(isinstance(item, dict) for item in items) and not set.intersection(*map(set, items)):
                break  # not the same operations: the lists as a whole differ
            found += _walk(items, path + _element(items, index))
        else:
            yield from found
            return
    yield path, values


FIRST = ("recipe.name", "pattern", "data.dataset")
"""The keys that people look for before any other."""


def comparable(spec: dict[str, Any]) -> dict[str, Any]:
    """Give a spec without what changes no number: the seed, the engine, who is told, the words about the recipe."""
    said = {key: value for key, value in spec.items() if key not in ("seed", "engine", "cite", "track")}
    recipe = said.get("recipe")
    if isinstance(recipe, dict):
        said["recipe"] = {key: value for key, value in recipe.items() if key not in ("cite", "differs")}
    return said


def differing(specs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Give each key whose values differ, with its value in every spec, in words."""
    found: dict[str, list[str]] = {}
    walked = list(_walk(list(specs), ""))
    order = {key: place for place, key in enumerate(FIRST)}
    for path, values in sorted(walked, key=lambda pair: order.get(pair[0], len(order))):
        key, again = path, 2
        while key in found:
            key, again = f"{path} ({again})", again + 1
        found[key] = [value_words(value) for value in values]
    return found
