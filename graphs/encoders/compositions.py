"""How CompGCN composes an entity with a relation, and the sum of compositions over what an entity hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .propagation import Propagation


@dataclass(frozen=True)
class Composition:
    """``compose`` takes rows of entities and relations [N, D]; ``mean`` takes both tables and returns [2 E, D].

    The latter is the mean of compositions over the edges that each entity hears through relations and, in the row
    after, through inverses.
    """

    compose: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Propagation, Tensor, Tensor], Tensor]


def _difference(entities: Tensor, relations: Tensor) -> Tensor:
    return entities - relations


def _mean_of_differences(propagation: Propagation, entities: Tensor, relations: Tensor) -> Tensor:
    """Return A x - C z: entities and relations are summed apart, and no edge has a row of its own."""
    return propagation.side_sources.sum(entities) - propagation.side_relations.sum(relations)


def _product(entities: Tensor, relations: Tensor) -> Tensor:
    return entities * relations


def _correlation(entities: Tensor, relations: Tensor) -> Tensor:
    """Return the circular correlation, c_k = sum over i of x_i z_(k + i) (Nickel et al. 2016, eq. 7)."""
    if not entities.numel():
        return entities * relations  # a Fourier transform of nothing is an error
    spectrum = torch.fft.rfft(entities).conj() * torch.fft.rfft(relations)
    correlation: Tensor = torch.fft.irfft(spectrum, n=entities.shape[-1])
    return correlation


def _by_bundles(compose: Callable[[Tensor, Tensor], Tensor]) -> Composition:
    """Return a composition that is linear in the entity: it is done once for the sum of each bundle."""

    def mean(propagation: Propagation, entities: Tensor, relations: Tensor) -> Tensor:
        sums = propagation.bundle_sums.sum(entities)
        return propagation.side_bundles.sum(compose(sums, relations.index_select(0, propagation.bundles.relations)))

    return Composition(compose, mean)


COMPOSITIONS = {
    "sub": Composition(_difference, _mean_of_differences),
    "mul": _by_bundles(_product),
    "corr": _by_bundles(_correlation),
}
"""Compositions by the names of the paper."""
