"""Plain data as YAML that people like to read and that the reader of specs reads back as the same data."""

from __future__ import annotations

import math
import re
from typing import Any

from .scalars import scalar

WIDTH = 100
_LONGEST_KEY = 1_000  # YAML allows a key of 1,024 characters in front of a colon
_WORDS = re.compile(r"[^\W\d][\w./+-]*(?: [\w./+-]+)*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def dump(data: dict[str, Any]) -> str:
    """Return data as YAML: keys in their order, one a line; inner mappings that fit in one line in braces.

    Raises ``TypeError`` for what a spec cannot hold, ``ValueError`` for a key that YAML cannot.
    """
    if not data:
        return "{}\n"
    return "\n".join(_mapping(data, 0)) + "\n"


def _mapping(data: dict[str, Any], indent: int) -> list[str]:
    lines: list[str] = []
    for key, value in data.items():
        lines += _item(" " * indent + _key(key) + ":", value, indent)
    return lines


def _item(start: str, value: Any, indent: int) -> list[str]:
    """Return the lines of a value behind its key or its dash."""
    if isinstance(value, dict | list):
        flow = _flow(value)
        if not value or (_is_simple(value) and len(start) + 1 + len(flow) <= WIDTH and "\n" not in flow):
            return [f"{start} {flow}"]
        if isinstance(value, dict):
            inner = _mapping(value, indent + 2)
            if start.endswith("-"):  # the first key goes beside the dash
                return [f"{start} {inner[0].lstrip(' ')}", *inner[1:]]
            return [start, *inner]
        lines = [start]
        for item in value:
            lines += _item(" " * (indent + 2) + "-", item, indent + 2)
        return lines
    if isinstance(value, str) and _is_block(value):
        *body, last = value.split("\n")
        rows = body if last == "" else [*body, last]
        return [f"{start} |{'' if last == '' else '-'}", *(" " * (indent + 2) + row if row else "" for row in rows)]
    return [f"{start} {_scalar(value)}"]


def _is_simple(value: Any) -> bool:
    """Whether a value reads well in one line: no list of mappings or of lists."""
    if isinstance(value, dict):
        return all(_is_simple(item) for item in value.values())
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return not (isinstance(value, str) and _is_block(value))


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _is_block(text: str) -> bool:
    """Whether a text can stand in lines of its own behind a ``|`` without loss."""
    if "\n" not in text or text[0] in " \n" or text.endswith("\n\n"):
        return False
    return all(row.isprintable() and not (row and row.isspace()) for row in text.split("\n"))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a word; {key!r} is not")
    text = _scalar(key)
    if len(text) > _LONGEST_KEY:
        raise ValueError(f"a key has at most {_LONGEST_KEY:,} characters")
    return text


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return ".nan"
        return repr(value).replace("inf", ".inf")
    if not isinstance(value, str):
        raise TypeError(f"a spec holds no {type(value).__name__}: {value!r}")
    if value.isprintable() and _WORDS.fullmatch(value) and isinstance(scalar(value), str):
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isprintable():
        return letter
    code = ord(letter)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
