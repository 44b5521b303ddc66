"""The message graph of a client: who hears what from whom through which relation, as plain tensors.

Every triple (h, r, t) is two edges: t hears h through r, and h hears t through the inverse of r, which is relation
r + R. Plain tensors, and not a DGLGraph, are what may cross the borders of processes; a back end makes what it needs
of them where it works (:mod:`codistill.graphs.encoders`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LARGEST_KEY = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Pairs:
    """The distinct (target, relation) pairs of a message graph, sorted by target and then relation.

    The edges of pair p are ``pointers[p]`` to ``pointers[p + 1]`` of the graph's: the neighbours that its target hears
    through its relation. ``targets`` and ``relations`` are int64 [P], ``pointers`` int64 [P + 1].
    """

    targets: Tensor
    relations: Tensor
    pointers: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def degrees(self) -> Tensor:
        """How many edges each pair has, int64 [P]; at least 1."""
        return self.pointers.diff()


@dataclass(frozen=True, eq=False)
class MessageGraph:
    """Edges from ``sources`` to ``targets`` through ``relations``, int64 [M] each, made by :func:`message_graph`.

    They are sorted by target, then relation, then source, and no edge stands twice. There are ``entity_count`` E
    entities and ``relation_count`` R relations; an edge's relation is below R, or it is the inverse of relation - R.
    """

    entity_count: int
    relation_count: int
    sources: Tensor
    relations: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.sources.device

    def to(self, device: torch.device | str) -> MessageGraph:
        """Return the same graph with its tensors on ``device``."""
        tensors = (one.to(device) for one in (self.sources, self.relations, self.targets))
        return MessageGraph(self.entity_count, self.relation_count, *tensors)

    @cached_property
    def pointers(self) -> Tensor:
        """Where the edges of each target begin, int64 [E + 1]: v's are ``pointers[v]`` to ``pointers[v + 1]``."""
        return pointers_of(self.targets, self.entity_count)

    @cached_property
    def degrees(self) -> Tensor:
        """How many edges point to each entity, int64 [E]: as many as point away from it."""
        return self.pointers.diff()

    @cached_property
    def keys(self) -> Tensor:
        """One number for each edge, int64 [M], ascending; see :meth:`keys_of`."""
        return self.keys_of(self.targets, self.relations, self.sources)

    def keys_of(self, targets: Tensor, relations: Tensor, sources: Tensor) -> Tensor:
        """Return a number for each edge of the same graph, int64 [N]; two are equal where the edges are."""
        return (targets * (2 * self.relation_count) + relations) * self.entity_count + sources

    @cached_property
    def pairs(self) -> Pairs:
        """The distinct (target, relation) pairs."""
        kinds = 2 * self.relation_count
        pairs, counts = torch.unique_consecutive(self.targets * kinds + self.relations, return_counts=True)
        return Pairs(pairs // max(kinds, 1), pairs % max(kinds, 1), pointers_from(counts))

    def select(self, edges: Tensor) -> MessageGraph:
        """Return the graph that has only the edges at ``edges``: bool [M], or int64 positions that ascend."""
        return MessageGraph(
            self.entity_count, self.relation_count, self.sources[edges], self.relations[edges], self.targets[edges]
        )


def message_graph(triples: Tensor, entity_count: int, relation_count: int) -> MessageGraph:
    """Return the message graph of ``triples`` int64 [N, 3] (head, relation, tail).

    A triple that stands twice counts once, as the methods that use the graph are about sets. A self-loop (h, r, h) is
    two edges, one through r and one through its inverse. Raises ``ValueError`` for ids outside of the counts, a wrong
    shape or dtype, and for so many entities and relations that 63 bits cannot number their edges.
    """
    if triples.dtype != torch.int64 or triples.dim() != 2 or triples.shape[1] != 3:
        raise ValueError(f"message_graph: triples are {triples.dtype} {list(triples.shape)}; expected int64 [N, 3]")
    if entity_count**2 * 2 * relation_count > LARGEST_KEY:
        raise ValueError(
            f"message_graph: {entity_count:,} entities and {relation_count:,} relations make more edges than 63 bits "
            "can number; cut the graph into clients"
        )
    for column, what, count in ((0, "head", entity_count), (1, "relation", relation_count), (2, "tail", entity_count)):
        ids = triples[:, column]
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= count):
            raise ValueError(f"message_graph: a {what} is outside of 0 to {count - 1}")
    heads, relations, tails = triples.unbind(1)
    kinds = 2 * relation_count
    there = (tails * kinds + relations) * entity_count + heads
    back = (heads * kinds + relations + relation_count) * entity_count + tails
    keys = torch.cat([there, back]).unique()
    return MessageGraph(
        entity_count,
        relation_count,
        sources=keys % max(entity_count, 1),
        relations=keys // max(entity_count, 1) % max(kinds, 1),
        targets=keys // max(entity_count * kinds, 1),
    )


def pointers_of(ids: Tensor, count: int) -> Tensor:
    """Return where each of ``count`` ids begins in ``ids``, which ascend: int64 [count + 1]."""
    return torch.searchsorted(ids, torch.arange(count + 1, device=ids.device))


def pointers_from(counts: Tensor) -> Tensor:
    """Return the sums of ``counts`` int64 [N] before each position, and of all: int64 [N + 1]."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """Return start, start + 1, ... from each of ``starts`` int64 [N], ``counts`` [N] of each, one after the other."""
    before = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) + (starts - before).repeat_interleave(counts)
