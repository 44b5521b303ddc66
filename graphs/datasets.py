"""Every source of knowledge graphs as a data set that a spec may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tasks.data.registry import DATASETS, Source
from ..tasks.registry import Entry
from .knowledge_graph import PARTS, KnowledgeGraph
from .sources import GRAPHS, Graphs, GraphSource
from .triples import triple_keys


def put_together(graphs: Graphs) -> KnowledgeGraph:
    """Return the graphs of a source's clients as one, triples client after client.

    Where there are several, the column ``client`` says whose a triple is (``partition: {by: column, column: client}``
    deals them out so again); ``unlearn`` says which are to be forgotten.
    """
    entities = sorted({name for graph in graphs.clients.values() for name in graph.entities})
    relations = sorted({name for graph in graphs.clients.values() for name in graph.relations})
    at = [{name: place for place, name in enumerate(names)} for names in (entities, relations)]
    triples: dict[str, list[npt.NDArray[np.int64]]] = {part: [] for part in PARTS}
    clients: dict[str, list[npt.NDArray[np.str_]]] = {part: [] for part in PARTS}
    forget: list[npt.NDArray[np.bool_]] = []
    for client, graph in graphs.clients.items():
        own = [
            np.array([known[name] for name in names], dtype=np.int64)
            for known, names in zip(at, (graph.entities, graph.relations), strict=True)
        ]
        for part in PARTS:
            rows = getattr(graph, part).numpy()
            triples[part].append(np.stack([own[0][rows[:, 0]], own[1][rows[:, 1]], own[0][rows[:, 2]]], axis=1))
            clients[part].append(np.full(len(rows), client))
        sizes = len(graph.entities), len(graph.relations)
        forget.append(np.isin(triple_keys(graph.train, *sizes).numpy(), triple_keys(graph.unlearn, *sizes).numpy()))
    columns: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    unlearn = np.concatenate(forget)
    for part in PARTS:
        if len(graphs.clients) > 1:
            columns[part]["client"] = np.concatenate(clients[part])
        if unlearn.any():
            columns[part]["unlearn"] = (
                unlearn if part == "train" else np.zeros(sum(map(len, triples[part])), dtype=bool)
            )
    parts: Any = {f"x_{part}": np.concatenate(triples[part]) for part in PARTS}
    parts |= {f"columns_{part}": columns[part] for part in PARTS}
    return KnowledgeGraph(graphs.name, tuple(entities), tuple(relations), **parts)


def _enter(entry: Entry[GraphSource]) -> None:
    source = entry.function

    def read(parameters: Any, root: Path) -> Any:
        return put_together(source(parameters, root))

    read.__doc__ = entry.sentence
    DATASETS.register(entry.name, entry.parameters)(Source(read, source.find_problems, source.find_files, "triples"))


for _entry in GRAPHS:
    _enter(_entry)
