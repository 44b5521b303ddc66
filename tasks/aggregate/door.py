"""The door of an aggregation: what may come in, how much each contributor counts, and what may go out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..filters import FilterChoice, apply_filters
from ..knowledge import FORMS, Knowledge, Models, Rows, models_of, together
from ..late import late
from ..memory import Event
from ..parameters import Parameters, When
from ..valence import ValenceChoice, valence, weighted_by_valence

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class Merge(Parameters):
    """What every rule may say, and what a rule takes: the checks read it from here.

    ``takes``: forms of knowledge. ``scale``: of logits, where only one will do. ``side_by_side``: whether rows of one
    id are never merged, so that each agent may tell of samples of its own. ``one_out``: whether one agent's share can
    be taken out again. ``equal_features``: whether agents' models must have features of one width. ``needs``: keys that
    the ``extract`` must say.
    """

    takes: ClassVar[tuple[str, ...]] = tuple(FORMS)
    scale: ClassVar[str | None] = None
    side_by_side: ClassVar[bool] = False
    one_out: ClassVar[bool] = True
    equal_features: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()

    weight: Literal["samples", "agents"] = Field(
        "samples", description="a contribution counts by its training samples, or each agent's counts once"
    )
    exclude_self: bool = Field(False, description="what an agent gets back leaves out what it gave")
    when: When | None = Field(None, description="the rounds in which this is exchanged; nothing said: all")
    filters: list[FilterChoice] = Field(
        default_factory=list, description="which of the rows that came are merged; others are counted"
    )
    valence: ValenceChoice | None = Field(
        None, description="how much each contributor's rows count; kept in emotional memory"
    )
    select: list[FilterChoice] = Field(
        default_factory=list, description="which of the merged rows are passed on; others are counted"
    )

    def brings(self, classes: int, features: int, contributors: int) -> tuple[int, int]:
        """Return how many numbers, in how many tensors, come back beside what was exchanged: a model that helps."""
        return 0, 0


def admitted(agent: Agent, packets: Sequence[Knowledge], said: Merge, context: Context) -> list[Knowledge]:
    """Return what of ``packets`` may be merged. What is not finite never is: rows, or a whole model, and counted.

    Filters and valences look at all rows side by side; below the top of a tree neither does anything.
    """
    alike = _of_one_width(agent, packets, context)
    sound = [one for packet in alike if (one := _finite(agent, packet, context)).items]
    if not context.final or not (said.filters or said.valence) or not sound:
        return sound
    rows = together([packet for packet in sound if isinstance(packet, Rows)])
    rows = _through(agent, rows, said.filters, context)
    if said.valence is not None and rows.items:
        before = agent.memory.recall("emotional", "valence")
        made = valence(agent, rows, said.valence, context, before if isinstance(before, Rows) else None)
        agent.memory.hold("emotional", "valence", made, context.round)
        rows = weighted_by_valence(rows, made)
    return [rows] if rows.items else []


def _of_one_width(agent: Agent, packets: Sequence[Knowledge], context: Context) -> list[Knowledge]:
    """Return the packets without rows of another width than most have; of equally many the first decide."""
    widths = [packet.values.shape[1] for packet in packets if isinstance(packet, Rows)]
    if len(set(widths)) < 2:
        return list(packets)
    usual = max(dict.fromkeys(widths), key=widths.count)
    kept: list[Knowledge] = []
    for packet in packets:
        if isinstance(packet, Rows) and packet.values.shape[1] != usual:
            whose, width = ", ".join(packet.contributors), packet.values.shape[1]
            sentence = f"rows of {whose} have {width} numbers, those of the others {usual}"
            agent.memory.note(Event(context.place, "refused", packet.form, packet.items, sentence))
        else:
            kept.append(packet)
    return kept


def selected(agent: Agent, merged: Knowledge, said: Merge, context: Context) -> Knowledge:
    """Return what of the merged rows is passed on."""
    if not said.select or not context.final or not isinstance(merged, Rows):
        return merged
    return _through(agent, merged, said.select, context)


def _through(agent: Agent, rows: Rows, filters: Sequence[FilterChoice], context: Context) -> Rows:
    found = apply_filters(agent, rows, filters, context)
    for name, count in found.dropped.items():
        agent.memory.note(Event(context.place, "filtered", name, count))
    return found.rows


def _finite(agent: Agent, packet: Knowledge, context: Context) -> Knowledge:
    """Return a packet without the rows, or the models, that have a NaN or an infinity."""
    if isinstance(packet, Models):
        sound = [name for name, group in packet.tensors.items() if all(_sound(value) for value in group.values())]
        broken = len(packet.tensors) - len(sound)
        agent.memory.note(Event(context.place, "filtered", "finite", broken, "a model is not finite"))
        return models_of(packet, sound) if broken else packet
    passes = packet.values.isfinite().all(1)
    if packet.keys is not None:
        passes &= packet.keys.isfinite().all(1)
    if bool(passes.all()):
        return packet
    places = [] if packet.owners is None else packet.owners[~passes].unique().tolist()
    whose = ", ".join(packet.contributors[place] for place in places)
    dropped = int((~passes).sum())
    agent.memory.note(Event(context.place, "filtered", "finite", dropped, f"rows of {whose} are not finite"))
    return packet.part(passes)


def _sound(values: torch.Tensor) -> bool:
    return bool(values.isfinite().all())
