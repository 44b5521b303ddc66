"""What a term of training on triples is, and where terms are entered: built once a round, called once a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...tasks.registry import Registry

if TYPE_CHECKING:
    import torch

    from ..contrast import Batch
    from ..embedding import Embedding


@dataclass(frozen=True)
class GraphTerm:
    """A loss over a batch of scored triples, and what besides the model it trains.

    ``embeddings`` and ``parameters`` take the same steps as the model. ``afterwards`` is called once, when the last
    batch is done.
    """

    loss: Callable[[Batch], torch.Tensor]
    embeddings: Sequence[Embedding] = ()
    parameters: Sequence[torch.nn.Parameter] = ()
    afterwards: Callable[[], None] | None = None


GRAPH_TERMS: Registry[Callable[..., GraphTerm | None]] = Registry("graph_terms")
"""``function(agent, said, training, context)``. A term's parameters say in ``needs_companion`` whether it trains the
companion too; a spec is checked by this before anything runs."""
