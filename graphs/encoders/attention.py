"""Attention over what an entity hears, after KBGAT (Nathani et al. 2019, arXiv:1906.01195, eq. 5 to 8).

m_e = B x_u + C z_r,   a_e = softmax over v's edges of LeakyReLU(q x_v + a m_e),   h_v = sum of a_e m_e + W_S x_v + b

for each head, heads side by side; z'_r = W_rel z_r. A message is a sum, and so is its share of a score: nothing of an
edge is wider than a number for each head. The target's own part of the paper's message is W_S here, which entities that
hear nobody have too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Activation, Layer, glorot
from .propagation import Propagation
from .registry import Widths

SLOPE = 0.2
"""What LeakyReLU multiplies negative scores by."""


class AttentionLayer(Layer):
    """``source_weight`` is B, ``relation_part`` C, ``target_scores`` q, ``message_scores`` a [H, D' / H], ``loop`` W_S.

    Raises ``ValueError`` where the heads cannot share the width D' evenly.
    """

    def __init__(
        self, inside: Widths, outside: Widths, heads: int, activation: Activation, generator: torch.Generator
    ) -> None:
        super().__init__()
        if outside.entities % heads:
            raise ValueError(f"attention: rows of {outside.entities} numbers cannot be shared by {heads} heads evenly")
        self.source_weight = glorot(generator, inside.entities, outside.entities)
        self.relation_part = glorot(generator, inside.relations, outside.entities)
        self.target_scores = glorot(generator, inside.entities, heads)
        self.message_scores = glorot(generator, heads, outside.entities // heads)
        self.relation_weight = glorot(generator, inside.relations, outside.relations)
        self.loop = glorot(generator, inside.entities, outside.entities)
        self.bias = nn.Parameter(torch.zeros(outside.entities))
        self.activation = activation

    def forward(self, propagation: Propagation, entities: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
        """Return new rows of both."""
        heads = self.message_scores.shape
        sources = (entities @ self.source_weight).unflatten(1, heads)
        heard = (relations @ self.relation_part).unflatten(1, heads)
        heeded = attended(propagation, sources, heard, entities @ self.target_scores, self.message_scores)
        rows = torch.addmm(self.bias, entities, self.loop) + heeded.flatten(1)
        return self.activation(rows), relations @ self.relation_weight


def attended(propagation: Propagation, sources: Tensor, heard: Tensor, of_targets: Tensor, by: Tensor) -> Tensor:
    """Return the sums [E, H, F] of messages by attention.

    The message of an edge is its source's part of ``sources`` [E, H, F] plus its relation's of ``heard`` [2 R, H, F];
    its score is its inner product with ``by`` [H, F] plus ``of_targets`` [E, H] of its target.
    """
    of_sources, of_relations = (sources * by).sum(2), (heard * by).sum(2)
    of_pairs = propagation.pair_relations.add(of_targets, of_relations)
    scores = F.leaky_relu(propagation.pair_edges.add(of_pairs, of_sources), SLOPE)
    shares = propagation.edges.softmax(scores)
    of_pairs = propagation.pair_edges.sum_of_entries(shares)
    return propagation.edges.weighted_sum(sources, shares) + propagation.pair_relations.weighted_sum(heard, of_pairs)
