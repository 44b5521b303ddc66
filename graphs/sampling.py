"""Parts of a message graph, drawn for a batch: sampled neighbourhoods and what random walks have seen.

A score that is trained must not be read off the graph: the edges of the batch's own triples, and their inverses, are
left out before anything is drawn. All randomness is the generator's, drawn in one thread; the same generator makes the
same part however many threads there are. (DGL's samplers have generators of their own, which answer differently with
another number of threads; what it could do here without drawing takes torch about as long.) Graphs are on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .structure import MessageGraph, ranges


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a message graph: ``graph`` over the entities whose ids in the whole are ``entities`` int64 [n], rising.

    Row i of the part is entity ``entities[i]`` of the whole: ``table[part.entities]`` is what an encoder is given.
    """

    entities: Tensor
    graph: MessageGraph

    def rows_of(self, ids: Tensor) -> Tensor:
        """Return the rows in the part of entities ``ids`` of the whole, of the same shape; they must be in it."""
        rows = torch.searchsorted(self.entities, ids)
        if ids.numel() and not torch.equal(self.entities[rows.clamp(max=len(self.entities) - 1)], ids):
            raise ValueError("an entity is not in this part of the graph; ask for it as a seed")
        return rows


def without(graph: MessageGraph, triples: Tensor) -> MessageGraph:
    """Return ``graph`` without the edges of ``triples`` int64 [N, 3] and their inverses; others may be among them."""
    heads, relations, tails = triples.unbind(1)
    there = graph.keys_of(tails, relations, heads)
    back = graph.keys_of(heads, relations + graph.relation_count, tails)
    left = torch.ones(len(graph), dtype=torch.bool, device=graph.device)
    left[_found(graph.keys, torch.cat([there, back]))] = False
    return graph.select(left)


def neighbourhood(graph: MessageGraph, seeds: Tensor, most: Sequence[int | None], generator: torch.Generator) -> Part:
    """Return the neighbourhood of ``seeds`` int64 [S] that as many layers as ``most`` is long need, sampled.

    In step i each entity that is new hears at most ``most[i]`` of its edges, drawn uniformly without replacement
    (Hamilton et al. 2017, arXiv:1706.02216); None: all of them. With all in every step, the seeds' rows are those of
    the whole graph.
    """
    known = torch.zeros(graph.entity_count, dtype=torch.bool)
    new, edges = seeds.unique(), [torch.empty(0, dtype=torch.int64)]
    for count in most:
        known[new] = True
        edges.append(_drawn(graph, new, count, generator))
        sources = graph.sources[edges[-1]].unique()
        new = sources[~known[sources]]
    known[new] = True
    return _part(graph.select(torch.cat(edges).sort().values), known)


def walked(graph: MessageGraph, starts: Tensor, steps: int, generator: torch.Generator, *, walks: int = 1) -> Part:
    """Return all edges among the entities that ``walks`` random walks of ``steps`` steps from each of ``starts`` visit.

    A walk goes on along an edge drawn uniformly from those of the entity it is at, in either direction of the triple,
    and stays where there is none (as GraphSAINT's sampler does; Zeng et al. 2020, arXiv:1907.04931).
    """
    seen = torch.zeros(graph.entity_count, dtype=torch.bool)
    seen[random_walks(graph, starts.repeat_interleave(walks), steps, generator).flatten()] = True
    visited = seen.nonzero().flatten()
    edges = ranges(graph.pointers[visited], graph.degrees[visited])
    return _part(graph.select(edges[seen[graph.sources[edges]]]), seen)


def random_walks(graph: MessageGraph, starts: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return the entities on a random walk from each of ``starts`` int64 [S]: int64 [S, steps + 1]."""
    visited = [starts]
    for _ in range(steps):
        at, many = visited[-1], graph.degrees[visited[-1]]
        edges = graph.pointers[at] + _below(many, generator)
        moves = many > 0
        visited.append(torch.where(moves, graph.sources[edges.where(moves, 0)] if len(graph) else at, at))
    return torch.stack(visited, 1)


def _below(bounds: Tensor, generator: torch.Generator) -> Tensor:
    """Return a number drawn uniformly from 0 to below each of ``bounds`` int64 (0 where that is 0)."""
    drawn = torch.rand(bounds.shape, dtype=torch.float64, generator=generator)
    return torch.minimum((drawn * bounds).long(), (bounds - 1).clamp(min=0))


def _drawn(graph: MessageGraph, targets: Tensor, most: int | None, generator: torch.Generator) -> Tensor:
    """Return positions of at most ``most`` edges of each of ``targets``.

    Floyd's algorithm (Bentley and Floyd 1987), for all targets at once: of d edges, number j = d - most, d - most + 1,
    ... d - 1 is taken where a draw from 0 to j has been taken before, and the draw itself elsewhere.
    """
    first, degrees = graph.pointers[targets], graph.degrees[targets]
    if most is None:
        return ranges(first, degrees)
    few = degrees <= most
    all_of_few = ranges(first[few], degrees[few])
    first, degrees = first[~few], degrees[~few]
    taken = torch.full((len(first), most), -1, dtype=torch.int64)
    for step in range(most):
        last = degrees - most + step
        drawn = _below(last + 1, generator)
        again = (taken[:, :step] == drawn[:, None]).any(1)
        taken[:, step] = torch.where(again, last, drawn)
    return torch.cat([all_of_few, (taken + first[:, None]).flatten()])


def _found(sorted_keys: Tensor, keys: Tensor) -> Tensor:
    """Return the positions in ``sorted_keys`` of those of ``keys`` that are there."""
    if not len(sorted_keys):
        return keys.new_empty(0)
    at = torch.searchsorted(sorted_keys, keys).clamp(max=len(sorted_keys) - 1)
    return at[sorted_keys[at] == keys]


def _part(graph: MessageGraph, kept: Tensor) -> Part:
    """Return ``graph`` over the entities that are ``kept`` bool [E], all ends of edges among them."""
    entities = kept.nonzero().flatten()
    rows = kept.cumsum(0) - 1
    inside = MessageGraph(
        len(entities), graph.relation_count, rows[graph.sources], graph.relations, rows[graph.targets]
    )
    return Part(entities, inside)
