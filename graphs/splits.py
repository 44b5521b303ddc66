"""Cutting one knowledge graph into clients, and putting clients together again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from ..tasks.data.stratify import apportion
from ..tasks.late import late
from ..tasks.parameters import Parameters
from ..tasks.registry import Registry
from .triples import PIECES, Triples, first_of_each, no_triples, shared_entities, triple_keys

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late("torch")

Owners: TypeAlias = dict[str, npt.NDArray[np.int64]]
"""For each of train, valid and test the client of each triple, int64 [N]."""


@dataclass(frozen=True, eq=False)
class Split:
    """The graphs of the clients, in their order, and sentences on how the graph was cut."""

    clients: tuple[Triples, ...]
    notes: tuple[str, ...]

    def digest(self) -> str:
        """Return the SHA-256 (hex) over the clients' graphs in their order."""
        return hashlib.sha256("".join(client.digest() for client in self.clients).encode()).hexdigest()


class SplitParameters(Parameters):
    """Which triples of a client are trained on."""

    ratio: tuple[float, float, float] | None = Field(
        None,
        description="Shares of train, valid and test, drawn anew from all triples of each client, as FedE's 0.8, 0.1, "
        "0.1; nothing said: a triple stays in the part in which the whole graph has it.",
    )

    @field_validator("ratio")
    @classmethod
    def _shares(cls, ratio: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if ratio is not None and not (ratio[0] > 0 and min(ratio) >= 0 and abs(sum(ratio) - 1) <= 1e-6):
            raise ValueError(f"expected shares of train, valid and test that sum to 1, train above 0, not {ratio}")
        return ratio


class CommunitySplitParameters(SplitParameters):
    """How large the communities are."""

    resolution: float = Field(1.0, gt=0, le=100, description="The larger, the more and the smaller communities.")


Splitter: TypeAlias = Callable[[Any, Triples, int, np.random.Generator], Split]
"""(parameters, whole, clients, generator) -> Split"""

SPLITS: Registry[Splitter] = Registry("splits")


def restricted(whole: Triples, train: Tensor, valid: Tensor, test: Tensor, unlearn: Tensor) -> Triples:
    """Return these triples of ``whole`` (each int64 [N, 3] of its ids) with the entities and relations they use."""
    every = torch.cat([train, valid, test])
    entities, relations = torch.unique(every[:, [0, 2]]), torch.unique(every[:, 1])

    def local(rows: Tensor) -> Tensor:
        columns = zip(rows.T.contiguous(), (entities, relations, entities), strict=True)
        return torch.stack([torch.searchsorted(ids, column) for column, ids in columns], 1)

    return Triples(
        tuple(whole.entities[one] for one in entities.tolist()),
        tuple(whole.relations[one] for one in relations.tolist()),
        local(train),
        local(valid),
        local(test),
        local(unlearn),
    )


def _drawn(
    whole: Triples, rows: Sequence[Tensor], ratio: Sequence[float], generator: np.random.Generator
) -> list[Tensor]:
    """Return the triples of one client cut anew into train, valid and test, each in the order of the whole graph."""
    every = torch.cat(list(rows))
    every = every[first_of_each(triple_keys(every, len(whole.entities), len(whole.relations)))]
    ends = np.cumsum(apportion(np.array(ratio), len(every)))[:-1]
    order = generator.permutation(len(every))
    return [every[torch.from_numpy(np.sort(part))] for part in np.split(order, ends)]


def _cut(
    by: str, parameters: SplitParameters, whole: Triples, owners: Owners, clients: int, generator: np.random.Generator
) -> Split:
    """Return the clients of a graph whose triples have ``owners``. Raises ``ValueError`` if one cannot train."""
    forget = whole.keys("unlearn")
    made = []
    for client in range(clients):
        rows = [getattr(whole, piece)[torch.from_numpy(owners[piece] == client)] for piece in PIECES]
        if parameters.ratio is not None:
            rows = _drawn(whole, rows, parameters.ratio, generator)
        if len(rows[0]) == 0:
            raise ValueError(
                f"{by}: client {client} of {clients} gets no triple to train on; cut the graph into fewer clients"
            )
        train, valid, test = rows
        keys = triple_keys(train, len(whole.entities), len(whole.relations))
        made.append(restricted(whole, train, valid, test, train[torch.isin(keys, forget)]))
    return Split(tuple(made), _notes(by, made))


def _notes(by: str, clients: Sequence[Triples]) -> tuple[str, ...]:
    entities = len({name for client in clients for name in client.entities})
    shared = len(shared_entities(clients))
    sizes = [len(client.train) for client in clients]
    return (
        f"cut by {by} into {len(clients)} clients of {min(sizes):,} to {max(sizes):,} train triples",
        f"{shared:,} of {entities:,} entities are held by two clients or more",
    )


def _check_clients(by: str, clients: int, things: int, what: str, remedy: str) -> None:
    if not 1 <= clients <= things:
        raise ValueError(f"{by}: {clients} clients, and the number of {what} is {things:,}; {remedy}")


@SPLITS.register("relation", SplitParameters)
def by_relation(parameters: SplitParameters, whole: Triples, clients: int, generator: np.random.Generator) -> Split:
    """Relations are dealt to clients at random, as FedE does, and a triple goes with its relation.

    All clients have the same number of relations to within one; numbers of triples differ. Raises ``ValueError`` for
    more clients than relations, or a client without a train triple.
    """
    relations = len(whole.relations)
    _check_clients("relation", clients, relations, "relations", f"ask for 1 to {relations:,}")
    owner = np.empty(relations, dtype=np.int64)
    owner[generator.permutation(relations)] = np.arange(relations) % clients
    owners = {piece: owner[getattr(whole, piece)[:, 1].numpy()] for piece in PIECES}
    return _cut("relation", parameters, whole, owners, clients, generator)


@SPLITS.register("uniform", SplitParameters)
def uniform(parameters: SplitParameters, whole: Triples, clients: int, generator: np.random.Generator) -> Split:
    """Every triple goes to a client drawn at random, and all have the same number of each part to within one.

    Raises ``ValueError`` for more clients than train triples.
    """
    _check_clients("uniform", clients, len(whole.train), "train triples", "ask for fewer clients, or at least 1")
    owners = {}
    for piece in PIECES:
        triples = len(getattr(whole, piece))
        owners[piece] = np.empty(triples, dtype=np.int64)
        owners[piece][generator.permutation(triples)] = np.arange(triples) % clients
    return _cut("uniform", parameters, whole, owners, clients, generator)


@SPLITS.register("community", CommunitySplitParameters)
def by_community(
    parameters: CommunitySplitParameters, whole: Triples, clients: int, generator: np.random.Generator
) -> Split:
    """Entities are dealt to clients by Louvain communities, and a triple goes with its rarer end.

    Louvain (Blondel, Guillaume, Lambiotte and Lefebvre 2008) runs over all triples, weighted by how many join two
    entities. The largest community goes first, each to the client that has fewest triples so far. Of a triple between
    communities the end that is in fewer triples decides, so clients share what many entities point to. Raises
    ``ValueError`` if there are fewer communities than clients.
    """
    every = torch.cat([getattr(whole, piece) for piece in PIECES]).numpy()
    community = _communities(every, len(whole.entities), parameters.resolution, generator)
    degree = np.bincount(every[:, [0, 2]].ravel(), minlength=len(whole.entities))
    at_home = {piece: _rarer_end(getattr(whole, piece).numpy(), degree) for piece in PIECES}
    sizes = np.bincount(community[np.concatenate(list(at_home.values()))], minlength=community.max() + 1)
    found = int((sizes > 0).sum())
    _check_clients("community", clients, found, "communities", "ask for fewer clients, or raise the resolution")
    client_of = np.zeros(len(sizes), dtype=np.int64)
    load = np.zeros(clients, dtype=np.int64)
    for one in np.argsort(-sizes, kind="stable"):
        client_of[one] = np.argmin(load)
        load[client_of[one]] += sizes[one]
    owners = {piece: client_of[community[ends]] for piece, ends in at_home.items()}
    return _cut("community", parameters, whole, owners, clients, generator)


def _rarer_end(triples: npt.NDArray[np.int64], degree: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return of each triple [N, 3] the entity that is in fewer triples, int64 [N]; the head of two alike."""
    head, tail = triples[:, 0], triples[:, 2]
    return np.where(degree[head] <= degree[tail], head, tail)


def _communities(
    every: npt.NDArray[np.int64], entities: int, resolution: float, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the community of each entity, int64 [entities]."""
    import networkx

    ends = np.sort(every[:, [0, 2]], axis=1)
    joined, weights = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0, return_counts=True)
    graph = networkx.Graph()
    graph.add_nodes_from(range(entities))
    graph.add_weighted_edges_from(zip(*joined.T.tolist(), weights.tolist(), strict=True))
    seed = int(generator.integers(2**31))
    community = np.empty(entities, dtype=np.int64)
    for number, members in enumerate(networkx.community.louvain_communities(graph, resolution=resolution, seed=seed)):
        community[list(members)] = number
    return community


def pooled(clients: Sequence[Triples]) -> Triples:
    """Return the union of the clients' graphs as one: what somebody would have who could collect all data.

    Names are sorted; triples stand client after client, a triple that several have once. A triple that one client
    trains on and another tests is in train and in test.
    """
    entities = sorted({name for client in clients for name in client.entities})
    relations = sorted({name for client in clients for name in client.relations})
    position = [{name: at for at, name in enumerate(names)} for names in (entities, relations)]
    pieces = []
    for piece in (*PIECES, "unlearn"):
        rows = [no_triples()]
        for client in clients:
            triples = getattr(client, piece)
            to_entity = torch.tensor([position[0][name] for name in client.entities])
            to_relation = torch.tensor([position[1][name] for name in client.relations])
            rows.append(
                torch.stack([to_entity[triples[:, 0]], to_relation[triples[:, 1]], to_entity[triples[:, 2]]], 1)
            )
        every = torch.cat(rows)
        pieces.append(every[first_of_each(triple_keys(every, len(entities), len(relations)))])
    return Triples(tuple(entities), tuple(relations), *pieces)


def to_unlearn(client: Triples, share: float, generator: np.random.Generator) -> Triples:
    """Return ``client`` with a ``share`` of its train triples drawn to be forgotten, rounded up, as FedLU's sets are.

    Raises ``ValueError`` for a share that is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share of the train triples above 0 and below 1, not {share}")
    drawn = generator.permutation(len(client.train))[: math.ceil(share * len(client.train))]
    return replace(client, unlearn=client.train[torch.from_numpy(np.sort(drawn))])
