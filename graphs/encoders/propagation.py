"""A message graph made ready for messages to pass, by one back end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import torch
from torch import Tensor

from ..structure import MessageGraph, pointers_from, pointers_of, ranges
from .incidence import Incidence
from .products import Product, product_of


@dataclass(frozen=True, eq=False)
class Bundles:
    """The different bundles of messages: a relation, and the sources whose rows are summed before it acts on the sum.

    Each (target, relation) pair hears one bundle. Pairs that hear the same single source through the same relation
    share it, so there are fewer bundles than pairs. ``relations`` int64 [Q] ascend; ``sources`` is [Q, entities], and
    ``of_pairs`` int64 [P] says which bundle each pair of the graph hears.
    """

    relations: Tensor
    sources: Incidence
    of_pairs: Tensor


def bundles_of(graph: MessageGraph) -> Bundles:
    """Return the bundles of ``graph``."""
    pairs = graph.pairs
    single = pairs.degrees == 1
    first = graph.sources[pairs.pointers[:-1]]
    span = graph.entity_count + len(pairs)
    own = graph.entity_count + torch.arange(len(pairs), device=graph.device)
    keys, of_pairs = (pairs.relations * span + torch.where(single, first, own)).unique(return_inverse=True)
    speaks_for = torch.empty_like(keys)
    speaks_for[of_pairs] = torch.arange(len(pairs), device=graph.device)
    counts = pairs.degrees[speaks_for]
    columns = graph.sources[ranges(pairs.pointers[speaks_for], counts)]
    sources = Incidence(pointers_from(counts), columns, graph.entity_count)
    return Bundles(pairs.relations[speaks_for], sources, of_pairs)


def mean(incidence: Incidence) -> Incidence:
    """Return ``incidence`` [rows, columns] with each row's sum divided by its entries; a row without any stays 0."""
    scale = 1 / incidence.counts().clamp(min=1).double()
    return Incidence(incidence.pointers, incidence.columns, incidence.column_count, scale)


class Propagation:
    """What ``backend`` has made of ``graph``, each part when an encoder first asks for it.

    It is made in the process that uses it, and refuses to be pickled: what crosses borders is the graph.
    """

    def __init__(self, graph: MessageGraph, backend: str = "torch") -> None:
        self.graph, self.backend = graph, backend
        self._product = product_of(backend)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Propagation stays in the process that made it; send its MessageGraph and make it anew there")

    @cached_property
    def bundles(self) -> Bundles:
        """The different bundles of messages."""
        return bundles_of(self.graph)

    @cached_property
    def bundle_counts(self) -> tuple[int, ...]:
        """How many bundles each of the 2 R relations has."""
        return tuple(torch.bincount(self.bundles.relations, minlength=2 * self.graph.relation_count).tolist())

    @cached_property
    def bundle_sums(self) -> Product:
        """[bundles, entities]: the sums of the sources of each bundle."""
        return self._product(self.bundles.sources)

    @cached_property
    def bundle_means(self) -> Product:
        """[bundles, entities]: the means of the sources of each bundle."""
        return self._product(mean(self.bundles.sources))

    @cached_property
    def heard(self) -> Product:
        """[entities, bundles]: the sum of the bundles that an entity hears."""
        pointers = pointers_of(self.graph.pairs.targets, self.graph.entity_count)
        return self._product(Incidence(pointers, self.bundles.of_pairs, len(self.bundles.sources)))

    @cached_property
    def _side_scale(self) -> Tensor:
        """One over the edges of each (entity, side), float64 [2 E]."""
        return 1 / self._side_pointers(self._edge_sides).diff().clamp(min=1).double()

    @property
    def _edge_sides(self) -> Tensor:
        return self.graph.targets * 2 + (self.graph.relations >= self.graph.relation_count)

    def _side_pointers(self, sides: Tensor) -> Tensor:
        return pointers_of(sides, 2 * self.graph.entity_count)

    def _by_side(self, sides: Tensor, columns: Tensor, column_count: int) -> Product:
        return self._product(Incidence(self._side_pointers(sides), columns, column_count, self._side_scale))

    @cached_property
    def side_bundles(self) -> Product:
        """[2 entities, bundles]: those heard through relations, then those through inverses; over the edges there."""
        pairs = self.graph.pairs
        sides = pairs.targets * 2 + (pairs.relations >= self.graph.relation_count)
        return self._by_side(sides, self.bundles.of_pairs, len(self.bundles.sources))

    @cached_property
    def side_sources(self) -> Product:
        """[2 entities, entities]: means of the sources heard through relations, then of those through inverses."""
        return self._by_side(self._edge_sides, self.graph.sources, self.graph.entity_count)

    @cached_property
    def side_relations(self) -> Product:
        """[2 entities, 2 relations]: means of the relations of the same edges."""
        return self._by_side(self._edge_sides, self.graph.relations, 2 * self.graph.relation_count)

    @cached_property
    def edges(self) -> Product:
        """[entities, entities], an entry for each edge: what each hears."""
        return self._product(Incidence(self.graph.pointers, self.graph.sources, self.graph.entity_count))

    @cached_property
    def pair_edges(self) -> Product:
        """[pairs, entities], an entry for each edge: what each (target, relation) pair hears."""
        return self._product(Incidence(self.graph.pairs.pointers, self.graph.sources, self.graph.entity_count))

    @cached_property
    def pair_relations(self) -> Product:
        """[entities, 2 relations], an entry for each pair: through which relations each hears anything."""
        pairs = self.graph.pairs
        pointers = pointers_of(pairs.targets, self.graph.entity_count)
        return self._product(Incidence(pointers, pairs.relations, 2 * self.graph.relation_count))
