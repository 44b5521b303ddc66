"""A structure encoder at work in an agent's model: over the graph of its own triples, between embedding and score."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from .encoders import ENCODERS, Sizes, Widths
from .encoders.propagation import Propagation
from .sampling import without

if TYPE_CHECKING:
    from ..tasks.choice import Choice
    from .encoders.encoder import Encoder
    from .structure import MessageGraph


class GraphEncoder(torch.nn.Module):
    """``encoder`` over ``graph`` by ``backend``.

    The graph is plain tensors and no part of the state: it is made again of the agent's triples. What a back end makes
    of it, a DGLGraph among other things, lives as long as one call.
    """

    def __init__(self, encoder: Encoder, graph: MessageGraph, backend: str) -> None:
        super().__init__()
        self.encoder, self.graph, self.backend = encoder, graph, backend

    def forward(
        self, entities: torch.Tensor, relations: torch.Tensor, left_out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of all entities and relations that the score is given.

        No message goes along an edge of a triple ``left_out`` int64 [N, 3], nor along its inverse.
        """
        graph = self.graph if left_out is None else without(self.graph, left_out)
        made = self.encoder(Propagation(graph, self.backend), entities, relations)
        return cast("tuple[torch.Tensor, torch.Tensor]", made)


def graph_encoder(said: Choice, graph: MessageGraph, widths: Widths, generator: torch.Generator) -> GraphEncoder:
    """Return the encoder that a spec says, for rows of ``widths``; its weights are drawn from ``generator``."""
    sizes = Sizes(graph.relation_count, inside=widths, outside=widths)
    made = ENCODERS[said.name].function(said.parameters, sizes, generator)
    return GraphEncoder(made, graph, said.parameters.backend)
