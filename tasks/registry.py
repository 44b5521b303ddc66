"""Names that a spec may use, each standing for one function and the parameters it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .. import EXTENSIONS
from .parameters import Parameters

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[F]):
    """One name of a registry: its function, the parameters it takes, and what it does in one sentence."""

    name: str
    function: F
    parameters: type[Parameters]
    sentence: str


class Registry(Generic[F]):
    """Functions found by name. Outside packages add theirs under the entry-point group ``codistill.<name>``.

    An entry point names a module; importing it registers what it holds. ``codistill.EXTENSIONS`` names modules of parts
    that ship and do the same without being asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._entries: dict[str, Entry[F]] = {}
        self._outside_loaded = False

    def register(self, name: str, parameters: type[Parameters]) -> Callable[[F], F]:
        """Return a decorator that enters a function under ``name``.

        Raises ``ValueError`` for a name that is taken, or a function without a docstring: its first sentence
        is what ``codistill list`` prints.
        """

        def enter(function: F) -> F:
            if name in self._entries:
                raise ValueError(f"{self.name}: the name {name!r} is taken by {self._entries[name].function!r}")
            text = inspect.getdoc(function)
            if not text:
                raise ValueError(f"{self.name}: {name!r} needs a docstring")
            sentence = " ".join(text.split("\n\n")[0].split())
            self._entries[name] = Entry(name, function, parameters, sentence)
            return function

        return enter

    def _load_outside(self) -> None:
        if not self._outside_loaded:
            self._outside_loaded = True
            for module in EXTENSIONS.get(self.name, ()):
                import_module(module)
            for point in entry_points(group=f"codistill.{self.name}"):
                point.load()

    def __getitem__(self, name: str) -> Entry[F]:
        self._load_outside()
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load_outside()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[F]]:
        self._load_outside()
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Return the names in the order in which they were entered."""
        self._load_outside()
        return list(self._entries)
