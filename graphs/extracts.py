"""Knowledge of an embedding: its rows, addressed by the ids of entities and relations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from ..tasks.agent import Agent, Context
from ..tasks.extract import EXTRACTS, OfModel
from ..tasks.knowledge import Rows, aligned
from ..tasks.late import late
from ..tasks.memory import Event
from ..tasks.parameters import Parameters, When, due
from . import masks
from .knowledge_graph import entities_of, relations_of
from .tables import table_of

if TYPE_CHECKING:
    import torch

    from . import world
    from .models import EmbeddingArchitecture
else:
    torch = late("torch")
    world = late("codistill.graphs.world")


class Changed(Parameters):
    """Rows that changed most since they were last told."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(0.4, description="of the rows, those that changed most")
    whole: When = Field(
        default_factory=lambda: When.model_validate({"every": 5}), description="rounds in which all are told"
    )


class ExtractRows(OfModel):
    """Rows of an embedding."""

    reads: ClassVar[str] = "triples"
    table: ClassVar[str] = "entities"

    shared: bool = Field(True, description="only rows of names that another agent holds too; all others stay at home")
    changed: Changed | None = Field(None, description="only rows that changed most since they were told; FedS")
    masked: bool = Field(False, description="under masks that cancel in pairs, so that only a sum can be read; FedR")
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="scale of Laplace noise on each number, in standard deviations of the rows that are told; FKGE"
    )

    def foretell(self, holdings: Any, models: Sequence[EmbeddingArchitecture]) -> list[tuple[int, int, int]]:
        """Return the rows that each learner sends, the rows that all of them send, and how wide they are."""
        held = _held(holdings, self.table)
        counts = np.bincount(np.concatenate(held))
        told = [ids[counts[ids] > 1] if self.shared else ids for ids in held]
        every = len(np.unique(np.concatenate(told)))
        return [(len(ids), every, model.width(self.table)) for ids, model in zip(told, models, strict=True)]


class ExtractEntityRows(ExtractRows):
    """Rows of entities."""


class ExtractRelationRows(ExtractRows):
    """Rows of relations."""

    table: ClassVar[str] = "relations"


def _held(holdings: Any, table: str) -> list[np.ndarray]:
    dealt = holdings.partition
    valid = dealt.valid or (np.empty(0, np.int64),) * dealt.agents
    of = entities_of if table == "entities" else relations_of
    return [of(holdings.data, *parts) for parts in zip(dealt.train, valid, dealt.test, strict=True)]


@EXTRACTS.register("embeddings", ExtractEntityRows)
def embeddings(agent: Agent, said: ExtractEntityRows, context: Context) -> Rows:
    """The rows of entities, by entity id."""
    return rows_of(agent, "embeddings", said, context)


@EXTRACTS.register("relation_embeddings", ExtractRelationRows)
def relation_embeddings(agent: Agent, said: ExtractRelationRows, context: Context) -> Rows:
    """The rows of relations, by relation id."""
    return rows_of(agent, "relation_embeddings", said, context)


def rows_of(agent: Agent, form: str, said: ExtractRows, context: Context) -> Rows:
    """Return the rows that an agent tells of one table of its model."""
    here, name = world.graph_of(context), said.table
    ids = getattr(here.share(agent), name)
    values = table_of(agent.models[said.of], form).detach()
    if said.shared:
        told = here.owner_counts[name][ids] > 1
        ids, values = ids[told], values[told]
    weights = torch.full((len(ids),), float(max(agent.samples, 1)), dtype=torch.float64)
    rows = Rows(form, ids.clone(), values.clone(), weights, float(agent.samples))
    if said.changed is not None:
        rows = _most_changed(agent, rows, said.changed, context)
    if said.noise:
        rows = _noisy(agent, rows, said.noise, context)
    return _masked(agent, rows, said, context) if said.masked else rows


def _most_changed(agent: Agent, rows: Rows, said: Changed, context: Context) -> Rows:
    """Return the rows that turned most from what was told last (1 - cosine), and keep in mind what is told now."""
    key = f"told {context.place}"
    before = agent.memory.recall("semantic", key)
    told = rows
    if isinstance(before, Rows) and not due(said.whole, context.round):
        turned = 1 - torch.cosine_similarity(rows.values, before.values[aligned(before, rows.ids)], dim=1)
        count = max(1, round(said.share * rows.items)) if rows.items else 0
        told = rows.part(torch.argsort(turned, descending=True, stable=True)[:count].sort().values)
        values = before.values.clone()
        values[aligned(before, told.ids)] = told.values
        agent.memory.hold("semantic", key, replace(before, values=values), context.round)
    else:
        agent.memory.hold("semantic", key, rows, context.round)
    return told


def _noisy(agent: Agent, rows: Rows, scale: float, context: Context) -> Rows:
    """Return the rows with Laplace noise on every number."""
    uniform = torch.rand(rows.values.shape, generator=agent.stream(context, "noise"), dtype=torch.float64) - 0.5
    noise = -uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-12))
    spread = rows.values.double().std() if rows.values.numel() > 1 else 1.0
    return replace(rows, values=(rows.values.double() + noise * (scale * spread)).float())


def _masked(agent: Agent, rows: Rows, said: ExtractRows, context: Context) -> Rows:
    """Return the rows as whole numbers under the masks of all pairs; rows that are not finite stay at home."""
    here, width = world.graph_of(context), rows.values.shape[1]
    sound = rows.values.isfinite().all(1)
    agent.memory.note(Event(context.place, "filtered", "finite", int((~sound).sum()), "rows are not finite"))
    rows = rows.part(sound)
    cut = int((rows.values.abs() > masks.LIMIT).any(1).sum())
    agent.memory.note(Event(context.place, "filtered", "limit", cut, f"numbers beyond {masks.LIMIT} were cut"))
    total = masks.whole(rows.values, len(here.holders))
    for other, holds in here.owners[said.table].items():
        if other != agent.name:
            both = holds[rows.ids]
            drawn = masks.mask(agent.name, other, len(holds), width, context, rows.form)
            total[both] += drawn[rows.ids[both]]
    return replace(rows, values=(total % masks.MODULUS).float())
