"""Lengths of time as people write them: a number of seconds, or ``90s``, ``10m``, ``1h30m``, ``2d``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PATTERN = r"^\s*([0-9]+\s*w)?\s*([0-9]+\s*d)?\s*([0-9]+\s*h)?\s*([0-9]+\s*m)?\s*([0-9]+(\.[0-9]+)?\s*s)?\s*$"
_LONGEST = 10 * 365 * 86_400


def seconds(said: Any) -> float:
    """Return a length of time in seconds. Raises ``ValueError`` for what is none, is nothing or exceeds ten years."""
    expected = "expected a length of time: seconds, or such as 90s, 10m, 1h30m or 2d"
    if isinstance(said, bool) or not isinstance(said, (int, float, str)):
        raise ValueError(expected)
    if isinstance(said, str):
        found = re.fullmatch(_PATTERN, said)
        if found is None or not said.strip():
            raise ValueError(expected)
        parts = re.findall(r"([0-9.]+)\s*([wdhms])", said)
        said = sum(float(count) * _UNITS[unit] for count, unit in parts)
    if not 0 < said <= _LONGEST:
        raise ValueError("expected a length of time above 0 and of at most ten years")
    return float(said)


def written(length: float) -> str:
    """Return a length of time as a spec would write it, such as ``1h30m``."""
    left, text = length, ""
    for unit, size in _UNITS.items():
        whole = left / size if unit == "s" else left // size
        if whole:
            text += f"{whole:g}{unit}"
            left -= whole * size
    return text


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": _PATTERN, "minLength": 1}]}
    ),
    Field(description="seconds, or such as 90s, 10m, 1h30m, 2d"),
]
