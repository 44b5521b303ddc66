"""Rules that make one of several agents' rows, besides the plain mean: sums that nobody sees the parts of, and FedS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..tasks.agent import Agent, Context
from ..tasks.aggregate.contributors import by_name, dense
from ..tasks.aggregate.door import Merge
from ..tasks.aggregate.registry import AGGREGATES
from ..tasks.knowledge import Rows, together
from ..tasks.late import late
from ..tasks.memory import Event
from ..tasks.parameters import When, due
from . import masks
from .tables import TABLES

if TYPE_CHECKING:
    import torch

    from . import world
else:
    torch = late("torch")
    world = late("codistill.graphs.world")


class OfRows(Merge):
    """Rows of embeddings."""

    takes: ClassVar[tuple[str, ...]] = tuple(TABLES)
    one_out: ClassVar[bool] = False
    exclude_self: Literal[False] = Field(False, description="one agent's share cannot be taken out again")
    weight: Literal["agents"] = Field("agents", description="each agent's rows count once")


class SecureMean(OfRows):
    """FedR."""

    central: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("masked",)


class OthersMean(OfRows):
    """FedS."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="of an agent's rows, those that most others told"
    )
    whole: When = Field(
        default_factory=lambda: When.model_validate({"every": 5}), description="rounds in which all rows go out"
    )


class SideBySide(OfRows):
    """FKGE."""

    side_by_side: ClassVar[bool] = True


@AGGREGATES.register("side_by_side", SideBySide)
def side_by_side(agent: Agent, packets: Sequence[Rows], said: SideBySide, context: Context) -> Rows:
    """Everybody's rows as they are, each with whose it is; who receives them makes of them what it can (FKGE)."""
    return by_name(packets)


@AGGREGATES.register("secure_mean", SecureMean)
def secure_mean(agent: Agent, packets: Sequence[Rows], said: SecureMean, context: Context) -> Rows:
    """The mean over those who hold a name, of rows whose masks cancel in the sum (Bonawitz et al. 2017; FedR).

    Masks that an absent agent would have taken away are made again. A row that only one agent told is refused: its mean
    would show it. Below the top of a tree rows stay side by side. Exact to half a step of the fixed-point numbers.
    """
    rows = by_name(packets)
    if not context.final:
        return rows
    here, table = world.graph_of(context), TABLES[rows.form]
    ids, values, there = dense(rows)
    total, width = (values.double() * there[:, :, None]).sum(0).long(), values.shape[2]
    for place, present in enumerate(rows.contributors):
        for other, holds in here.owners[table].items():
            if other == present:
                continue
            told = there[rows.contributors.index(other)] if other in rows.contributors else torch.zeros_like(there[0])
            missing = there[place] & holds[ids] & ~told
            if missing.any():
                drawn = masks.mask(present, other, len(holds), width, context, rows.form)
                total[missing] -= drawn[ids[missing]]
    count = there.sum(0)
    alone = count < 2
    sentence = "only one agent told these rows, and their mean would show them"
    agent.memory.note(Event(context.place, "refused", rows.form, int(alone.sum()), sentence))
    mean = masks.read(total, len(here.holders)) / count[:, None]
    merged = Rows(rows.form, ids, mean.float(), count.double(), rows.samples)
    return merged.part(~alone)


@AGGREGATES.register("others_mean", OthersMean)
def others_mean(agent: Agent, packets: Sequence[Rows], said: OthersMean, context: Context) -> Rows:
    """For each agent the mean of what others told of its names, of those that most others told of (FedS).

    The weight of a row is how many others it is made of: ``absorb: {by: blend_rows}`` makes one of it and the agent's
    own. Of equally many the smaller ids go. Below the top of a tree rows stay side by side.
    """
    rows = by_name(packets)
    if not context.final:
        return rows
    here, table = world.graph_of(context), TABLES[rows.form]
    ids, values, there = dense(rows)
    sums, counts = values.double().sum(0), there.sum(0)
    answers: list[Rows] = []
    for place, name in enumerate(rows.contributors):
        holds = here.owners[table][name][ids]
        others = (counts - there[place].long()) * holds
        wanted = int((here.owners[table][name] & (here.owner_counts[table] > 1)).sum())
        most = len(ids) if due(said.whole, context.round) else max(1, round(said.share * wanted))
        chosen = torch.argsort(others, descending=True, stable=True)[:most]
        chosen = chosen[others[chosen] > 0].sort().values
        rest = sums[chosen] - values[place, chosen].double()
        mean = (rest / others[chosen, None]).float()
        owner = torch.zeros_like(chosen)
        answers.append(Rows(rows.form, ids[chosen], mean, others[chosen].double(), rows.samples, None, (name,), owner))
    return replace(together(answers), addressed=True)
