"""Every way to cut a knowledge graph into clients as a way to deal out a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..tasks.data.partition import Partition
from ..tasks.late import late
from ..tasks.parameters import Parameters
from ..tasks.registry import Entry, Registry
from .knowledge_graph import PARTS, KnowledgeGraph
from .splits import SPLITS, CommunitySplitParameters, SplitParameters, Splitter

if TYPE_CHECKING:
    import torch

    from .triples import Triples
else:
    torch = late("torch")


GRAPH_PARTITIONERS: Registry[Callable[..., Partition]] = Registry("graph_partitioners")
"""``function(said, graph, agents, generator)`` deals out all parts of a :class:`KnowledgeGraph`."""


class ByGraph(Parameters):
    """Nothing to choose."""


class ByCommunity(ByGraph):
    """How large the communities are."""

    resolution: float = Field(1.0, gt=0, le=100, description="the larger, the more and the smaller communities")


def _enter(entry: Entry[Splitter]) -> None:
    community = entry.parameters is CommunitySplitParameters

    def deal(said: Any, graph: KnowledgeGraph, agents: int, generator: np.random.Generator) -> Partition:
        parameters = CommunitySplitParameters(resolution=said.resolution) if community else SplitParameters()
        whole = _triples(graph)
        clients = entry.function(parameters, whole, agents, generator).clients
        held = {part: [_places(graph, part, client) for client in clients] for part in PARTS}
        return Partition(tuple(held["train"]), tuple(held["test"]), tuple(held["valid"]))

    deal.__doc__ = entry.sentence
    GRAPH_PARTITIONERS.register(entry.name, ByCommunity if community else ByGraph)(deal)


def _triples(graph: KnowledgeGraph) -> Triples:
    from .triples import Triples

    parts = [torch.from_numpy(np.array(getattr(graph, f"x_{part}"))) for part in PARTS]
    return Triples(graph.entities, graph.labels, *parts)


def _places(graph: KnowledgeGraph, part: str, client: Triples) -> npt.NDArray[np.int64]:
    """Return at which positions of a part the triples of ``client`` stand, rising."""
    every: npt.NDArray[np.int64] = np.asarray(getattr(graph, f"x_{part}"))
    entities = np.searchsorted(np.array(graph.entities), np.array(client.entities))
    relations = np.searchsorted(np.array(graph.labels), np.array(client.relations))
    own = getattr(client, part).numpy()
    own = np.stack([entities[own[:, 0]], relations[own[:, 1]], entities[own[:, 2]]], axis=1)
    keys, mine = (_keys(graph, triples) for triples in (every, own))
    order = np.argsort(keys, kind="stable")
    return np.sort(order[np.searchsorted(keys[order], mine)])


def _keys(graph: KnowledgeGraph, triples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    keys: npt.NDArray[np.int64] = (triples[:, 0] * graph.classes + triples[:, 1]) * len(graph.entities) + triples[:, 2]
    return keys


for _entry in SPLITS:
    _enter(_entry)
