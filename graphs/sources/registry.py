"""The sources of knowledge graphs that a spec may name, and what they give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...tasks.data.dataset import DataError
from ...tasks.data.registry import data_root
from ...tasks.parameters import Parameters
from ...tasks.registry import Registry
from ..triples import Triples


@dataclass(frozen=True, eq=False)
class Graphs:
    """What a source gives: the graph of each client by name, and sentences on what was found while reading.

    A source of one whole graph, to be cut into clients, gives it as its only client.
    """

    name: str
    clients: Mapping[str, Triples]
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the clients' names and graphs, not of the source's name or the notes."""
        digest = hashlib.sha256()
        for client, graph in self.clients.items():
            digest.update(repr((client, graph.digest())).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class GraphSource:
    """A source of graphs: how it is read, what stands in the way of reading it, and which files it reads.

    ``read(parameters, root)`` returns the graphs; its docstring is the source's. ``find_problems(parameters, root)``
    returns sentences, cheaply, without reading the triples. ``find_files(parameters, root)`` lists the files that
    ``read`` would read.
    """

    read: Callable[[Any, Path], Graphs]
    find_problems: Callable[[Any, Path], list[str]]
    find_files: Callable[[Any, Path], list[Path]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.read.__doc__)

    def __call__(self, parameters: Parameters, root: str | Path | None = None) -> Graphs:
        """Return the graphs that ``parameters`` describe; raise ``DataError`` with every problem found."""
        found = self.problems(parameters, root)
        if found:
            raise DataError("\n".join(found))
        return self.read(parameters, data_root(root))

    def problems(self, parameters: Parameters, root: str | Path | None = None) -> list[str]:
        """Return, before anything runs, a sentence for each thing that is missing or wrong; [] if all is well."""
        return self.find_problems(parameters, data_root(root))

    def files(self, parameters: Parameters, root: str | Path | None = None) -> list[Path]:
        """Return the files that would be read."""
        return self.find_files(parameters, data_root(root))


GRAPHS: Registry[GraphSource] = Registry("graph_sources")


def add_graph_source(
    name: str,
    parameters: type[Parameters],
    problems: Callable[[Any, Path], list[str]],
    files: Callable[[Any, Path], list[Path]],
) -> Callable[[Callable[[Any, Path], Graphs]], Callable[[Any, Path], Graphs]]:
    """Return a decorator that enters a reading function as the source ``name``, with its two companions."""

    def enter(read: Callable[[Any, Path], Graphs]) -> Callable[[Any, Path], Graphs]:
        GRAPHS.register(name, parameters)(GraphSource(read, problems, files))
        return read

    return enter
