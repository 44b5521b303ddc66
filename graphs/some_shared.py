"""A few entities that clients share: what a report draws of their embeddings."""

from __future__ import annotations

import torch

from ..tasks.agent import Agent, Context
from ..tasks.streams import torch_stream
from . import world
from .tables import table_of

CLIENTS = 8
"""Clients that are drawn: as many as a picture has colours for."""
ENTITIES, ROWS = 48, 192
"""Entities that are drawn, and rows of them in all: as many as a reader can follow from one panel to the next."""


def chosen(here: world.GraphWorld, seed: int) -> tuple[list[str], torch.Tensor]:
    """Return the first clients and some entities that at least two of them hold, int64 [n] rising, the same always."""
    clients = list(here.holders)[:CLIENTS]
    if len(clients) < 2:
        return clients, torch.empty(0, dtype=torch.int64)
    held = torch.stack([here.owners["entities"][name] for name in clients]).sum(0)
    shared = (held > 1).nonzero().flatten()
    order = torch.randperm(len(shared), generator=torch_stream(seed, "drawn", "entities"))
    return clients, shared[order[: min(ENTITIES, ROWS // len(clients))]].sort().values


def rows(agent: Agent, context: Context) -> dict[str, torch.Tensor]:
    """Return the agent's rows of the chosen entities that it holds, float32 [width] each, by the entity's name."""
    here = world.graph_of(context)
    clients, entities = chosen(here, context.seed)
    if agent.name not in clients:
        return {}
    mine = here.share(agent).entities
    entities = entities[torch.isin(entities, mine)]
    values = table_of(agent.models["model"], "embeddings").detach()[torch.searchsorted(mine, entities)]
    names = [here.entities[entity] for entity in entities.tolist()]
    return dict(zip(names, values, strict=True))
