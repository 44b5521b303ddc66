"""What is wrong with a spec, and where: one problem a line, with the nearest right word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

Path = tuple[str | int, ...]
"""A place in a document: keys of mappings and indexes of lists."""

_PLAIN_KEY = re.compile(r"""[^\s.\[\]"'=]+""")


@dataclass(frozen=True, order=True)
class Mark:
    """A position in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One mistake: its position, its dotted path, what was expected and, if there is one, a hint."""

    mark: Mark | None
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        start = ": ".join(part for part in (str(self.mark or ""), self.where) if part)
        text = f"{start}: {self.message}" if start else self.message
        return f"{text}; {self.hint}" if self.hint else text


class SpecError(Exception):
    """A spec that cannot be run, with every problem that was found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: list[Problem] = ordered(problems)
        super().__init__("\n".join(map(str, self.problems)))


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems by file, line and column, each one (a position and a message) once."""
    found: dict[tuple[Mark | None, str, str], Problem] = {}
    for problem in problems:
        # One mark can stand for many places (an alias, a sweep); without a mark the path tells them apart.
        found.setdefault((problem.mark, "" if problem.mark else problem.where, problem.message), problem)
    start = Mark("", 0, 0)
    return sorted(found.values(), key=lambda problem: (problem.mark or start, problem.where, problem.message))


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that was most likely meant, or None if none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    folded = word.casefold()
    close = get_close_matches(folded, by_folded, n=1, cutoff=0.65)
    if close:
        return by_folded[close[0]]
    begun = [name for start, name in by_folded.items() if len(folded) >= 3 and start.startswith(folded)]
    return begun[0] if len(begun) == 1 else None


def suggestion(word: object, candidates: Iterable[str]) -> str:
    """Return the hint that names the nearest candidate, or the empty string."""
    near = nearest(word, candidates) if isinstance(word, str) else None
    return f"did you mean {near!r}?" if near is not None else ""


def one_of(words: Sequence[str]) -> str:
    """Return "one of a, b, c", or the only word there is."""
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def dotted(path: Path) -> str:
    """Return a path as text, such as ``recipe[1].train.epochs``; a key that holds a dot is quoted."""
    text = ""
    for element in path:
        if isinstance(element, int):
            text += f"[{element}]"
            continue
        plain = _PLAIN_KEY.fullmatch(element) and not element.isdecimal()
        text += ("." if text else "") + (element if plain else json.dumps(element, ensure_ascii=False))
    return text


def is_within(where: str, place: str) -> bool:
    """Whether a dotted path is a place or lies below it."""
    return not place or where == place or where.startswith((f"{place}.", f"{place}["))


def shown(value: Any, width: int = 60) -> str:
    """Return a value as it would be written in a spec, shortened to about ``width`` characters."""
    text = _written(value, 0)
    return text if len(text) <= width else text[: width - 3] + "..."


def _written(value: Any, depth: int) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(value[:200])
    if isinstance(value, int | float):
        # Turning a huge integer into text is refused by Python.
        return repr(value) if isinstance(value, float) or value.bit_length() < 500 else "a huge number"
    if isinstance(value, dict | list) and depth >= 4:
        return "..."
    if isinstance(value, dict):
        inner = [f"{key}: {_written(item, depth + 1)}" for key, item in list(value.items())[:20]]
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(item, depth + 1) for item in value[:20]) + "]"
    return repr(value)[:200]
