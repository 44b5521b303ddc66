"""The term ``contrastive``: entities stay near what all agents made of them, and leave what one agent made (FedEC)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ...tasks.agent import Agent, Context
from ...tasks.knowledge import Rows, aligned
from ...tasks.late import late
from ...tasks.parameters import Parameters
from ..settings import Fit
from .registry import GRAPH_TERMS, GraphTerm

if TYPE_CHECKING:
    import torch

    from .. import world
    from ..contrast import Batch
else:
    torch = late("torch")
    world = late("codistill.graphs.world")

BEFORE = "rows before they were merged"
"""The key under which an agent keeps in episodic memory what its last training ended with."""


class Contrastive(Parameters):
    """FedEC."""

    contrastive_weight: Annotated[float, Field(ge=0)] = Field(0.1, description="weight of the term")
    temperature: Annotated[float, Field(gt=0)] = Field(0.2, description="of the softmax over the two similarities")


@GRAPH_TERMS.register("contrastive", Contrastive)
def contrastive(agent: Agent, said: Contrastive, training: Fit, context: Context) -> GraphTerm:
    """Pulls each entity toward the row that it began the round with, from the row that the agent had made (FedEC).

    Chen et al. 2022: -log(e^(cos(z, z_merged) / T) / (e^(cos(z, z_merged) / T) + e^(cos(z, z_own) / T))), mean over the
    entities of a batch's true triples. The first training has no rows of before, and the term is 0 then.
    """
    table = agent.models["model"].entities
    assert isinstance(table, torch.nn.Parameter)
    ids = world.graph_of(context).share(agent).entities
    merged = table.detach().clone()
    before = agent.memory.recall("episodic", BEFORE)
    own = None
    if isinstance(before, Rows):
        own = before.values[aligned(before, ids)]

    def loss(batch: Batch) -> torch.Tensor:
        if own is None:
            return torch.zeros(())
        some = torch.unique(batch.triples[:, [0, 2]])
        near, far = (torch.cosine_similarity(table[some], other[some]) / said.temperature for other in (merged, own))
        return torch.nn.functional.softplus(far - near).mean() * said.contrastive_weight

    def keep() -> None:
        rows = Rows("embeddings", ids.clone(), table.detach().clone(), torch.ones(len(ids), dtype=torch.float64))
        agent.memory.hold("episodic", BEFORE, rows, context.round)

    return GraphTerm(loss, afterwards=keep)
