"""CompGCN (Vashishth et al. 2020, arXiv:1911.03082): messages compose an entity with a relation.

h_v = W_O m_O(v) + W_I m_I(v) + W_S phi(x_v, z_S) + b,    z'_r = W_rel z_r     (eq. 2, 3)

m_O is the mean of phi(x_u, z_r) over the edges that v hears through relations and m_I over those through inverses. The
paper sums; its code normalises by both ends of an edge. The mean needs the target's edges alone, so that a sample of
the edges of a target makes an estimate of the same thing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .compositions import Composition
from .encoder import Activation, Layer, glorot
from .propagation import Propagation
from .registry import Widths


class Projection(Layer):
    """Gives relations the width of entities, where a decoder's differ: phi composes rows of one width."""

    def __init__(self, inside: Widths, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = glorot(generator, inside.relations, inside.entities)

    def forward(self, propagation: Propagation, entities: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of entities as they are, and those of relations as wide as them."""
        return entities, relations @ self.weight


class CompGCNLayer(Layer):
    """``sides`` [2 D, D'] are W_O over W_I; ``loop`` [1, D] is z_S and ``loop_weight`` [D, D'] is W_S."""

    def __init__(
        self,
        inside: int,
        outside: Widths,
        composition: Composition,
        activation: Activation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.sides = nn.Parameter(glorot(generator, 2, inside, outside.entities).detach().flatten(0, 1))
        self.loop = glorot(generator, 1, inside)
        self.loop_weight = glorot(generator, inside, outside.entities)
        self.relation_weight = glorot(generator, inside, outside.relations)
        self.bias = nn.Parameter(torch.zeros(outside.entities))
        self.composition, self.activation = composition, activation

    def forward(self, propagation: Propagation, entities: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
        """Return new rows of both."""
        means = self.composition.mean(propagation, entities, relations).view(len(entities), -1)
        own = self.composition.compose(entities, self.loop)
        rows = torch.addmm(self.bias, own, self.loop_weight).addmm(means, self.sides)
        return self.activation(rows), relations @ self.relation_weight
