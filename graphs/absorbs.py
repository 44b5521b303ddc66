"""Ways in which rows of embeddings that were received change an agent's embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ..tasks.absorb.registry import ABSORBS
from ..tasks.agent import Agent, Context
from ..tasks.knowledge import Knowledge, Rows, aligned
from ..tasks.late import late
from ..tasks.memory import Event
from ..tasks.parameters import Step
from .tables import TABLES, table_of

if TYPE_CHECKING:
    import torch

    from . import world
else:
    torch = late("torch")
    world = late("codistill.graphs.world")


class ReplaceRows(Step):
    """Rows take the place of the embedding's own."""

    reads: ClassVar[str] = "triples"
    takes: ClassVar[tuple[str, ...]] = tuple(TABLES)

    of: Literal["model", "companion"] = Field("model", description="the agent's own model, or its companion")


class BlendRows(ReplaceRows):
    """Rows and the embedding's own become their mean."""


@ABSORBS.register("replace_rows", ReplaceRows)
def replace_rows(agent: Agent, received: Knowledge, said: ReplaceRows, context: Context) -> None:
    """Received rows take the place of the agent's own rows of the same names; rows of other names stay."""
    found = fitting(agent, received, said.of, context)
    if found is not None:
        table, at, rows = found
        with torch.no_grad():
            table[at] = rows.values


@ABSORBS.register("blend_rows", BlendRows)
def blend_rows(agent: Agent, received: Knowledge, said: BlendRows, context: Context) -> None:
    """Each received row and the agent's own become their mean, the own counting once, the other its weight (FedS)."""
    found = fitting(agent, received, said.of, context)
    if found is not None:
        table, at, rows = found
        weights = rows.weights[:, None]
        with torch.no_grad():
            table[at] = ((table[at].double() + rows.values.double() * weights) / (1 + weights)).float()


def fitting(
    agent: Agent, received: Knowledge, of: str, context: Context
) -> tuple[torch.Tensor, torch.Tensor, Rows] | None:
    """Return an agent's own table, the places in it that rows were received of, and these rows; None for none.

    Rows that are not finite, or not as wide as the table, are refused and counted.
    """
    assert isinstance(received, Rows)
    table = table_of(agent.models[of], received.form)
    if received.values.shape[1] != table.shape[1]:
        sentence = f"rows of {received.values.shape[1]} numbers were received, and {agent.name}'s have {table.shape[1]}"
        agent.memory.note(Event(context.place, "refused", received.form, received.items, sentence))
        return None
    sound = received.values.isfinite().all(1)
    agent.memory.note(Event(context.place, "refused", received.form, int((~sound).sum()), "rows are not finite"))
    mine = getattr(world.graph_of(context).share(agent), TABLES[received.form])
    rows = received.part(sound)
    at = aligned(rows, mine)
    there = (at >= 0).nonzero().flatten()
    return table, there, rows.part(at[there])
