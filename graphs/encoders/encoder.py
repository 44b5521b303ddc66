"""What every structure encoder is: layers between the rows of an embedding and the decoder that scores them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .propagation import Propagation
from .registry import Sizes

Activation = Callable[[Tensor], Tensor]


def glorot(generator: torch.Generator, *shape: int) -> nn.Parameter:
    """Return a float32 parameter drawn uniformly within sqrt(6 / (rows + columns)) (Glorot and Bengio 2010)."""
    most = math.sqrt(6 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.rand(*shape, generator=generator).mul_(2 * most).sub_(most))


def unchanged(rows: Tensor) -> Tensor:
    """Return ``rows``: the activation of a last layer, so that what a decoder is given may have any sign and size."""
    return rows


class Layer(nn.Module):
    """One step of messages: rows of entities [E, width] and of relations, to new rows of both."""

    def forward(self, propagation: Propagation, entities: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new rows."""
        raise NotImplementedError


class Encoder(nn.Module):
    """Layers that turn rows of entities and relations into rows that know their neighbourhood.

    It stands between an embedding and any decoder: it is given [E, inside] and [R, inside'] and returns [E, outside]
    and [R, outside']. Encoders that use the rows of relations hold a row of their own for the inverse of each
    (``inverses``, [R, inside']). Nothing is drawn at random once it is made.
    """

    def __init__(self, sizes: Sizes, layers: Sequence[Layer], inverses: nn.Parameter | None) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(layers)
        self.inverses = inverses

    def forward(self, propagation: Propagation, entities: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of all E entities and R relations of the propagation's graph.

        Raises ``ValueError`` where the tables do not fit the graph or what the encoder was made for.
        """
        self._check(propagation, entities, relations)
        if self.inverses is not None:
            relations = torch.cat([relations, self.inverses])
        for layer in self.layers:
            entities, relations = cast(Layer, layer)(propagation, entities, relations)
        return entities, relations[: self.sizes.relation_count]

    def _check(self, propagation: Propagation, entities: Tensor, relations: Tensor) -> None:
        graph = propagation.graph
        if graph.relation_count != self.sizes.relation_count:
            raise ValueError(
                f"the encoder was made for {self.sizes.relation_count} relations and the graph has "
                f"{graph.relation_count}; make one encoder for each client"
            )
        for what, rows, expected in (
            ("entities", entities, (graph.entity_count, self.sizes.inside.entities)),
            ("relations", relations, (graph.relation_count, self.sizes.inside.relations)),
        ):
            if rows.shape != expected:
                raise ValueError(f"the rows of {what} are {list(rows.shape)}; the encoder expects {list(expected)}")
