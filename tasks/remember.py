"""The operations between working memory and the long-term ones: ``store``, ``retrieve``, ``consolidate``, ``decay``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
from pydantic import Field

from .agent import Agent, Context
from .filters import FilterChoice, apply_filters
from .held import completed, entries_of
from .knowledge import Knowledge, Rows, addressed_to, marked
from .late import late
from .memory import Event, Kind
from .parameters import Name, Step
from .retrievals import RETRIEVALS, RetrievalChoice
from .streams import numpy_stream, uniform_of_ids

if TYPE_CHECKING:
    import torch

    from . import stores
else:
    torch = late("torch")
    stores = late("codistill.tasks.stores")

PIECES: tuple[Kind, ...] = ("semantic", "episodic", "procedural", "emotional")
"""Memories that need no declaration: each holds one piece of each form, and a newer one takes the older's place."""

Memory = Annotated[Name, Field(description=f"one of the recipe's `memories`, or {', '.join(PIECES)}")]


class Store(Step):
    """What was received goes to a long-term memory."""

    memory: Memory
    what: Literal["received", "made"] = Field("received", description="what was received, or what was made to share")
    filters: list[FilterChoice] = Field(default_factory=list, description="which rows may go in; others are counted")


class Retrieve(Step):
    """What is remembered comes back to mind."""

    memory: Memory
    knowledge: Literal["parameters", "logits", "class_logits", "prototypes"] = Field(description="the form to look for")
    by: RetrievalChoice = Field(
        default_factory=lambda: RetrievalChoice.model_validate("all"),
        description="how it is found; memories that are not declared know `all` alone",
    )
    asking: Literal["received", "private"] = Field(
        "private", alias="for", description="what is asked for: the rows that were received, or the agent's own samples"
    )


class Consolidate(Step):
    """Episodes become facts."""

    memory: Memory
    into: Memory


class Decay(Step):
    """What is not used fades."""

    memory: Memory
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="what is left of an entry's strength, at first 1"
    )
    floor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="entries weaker than this are forgotten")


def store(agent: Agent, parameters: Store, context: Context) -> None:
    """What an agent received, or made, goes to one of its long-term memories."""
    hand = agent.memory.items("working").get("received" if parameters.what == "received" else "to share")
    if hand is None:
        return
    given = hand.knowledge
    if isinstance(given, Rows) and parameters.filters:
        given = _filtered(agent, given, parameters, context)
    if parameters.memory in agent.memory.declared:
        assert isinstance(given, Rows)  # the check refuses others
        _put(agent, parameters.memory, given, hand.contributor or agent.name, context)
    else:
        agent.memory.hold(_kind(parameters.memory), given.form, given, context.round, hand.contributor)


def retrieve(agent: Agent, parameters: Retrieve, context: Context) -> None:
    """What an agent remembers comes to its working memory, for the steps that follow.

    At the top it becomes what is sent back, to each what is for it.
    """
    remembered: Knowledge | None
    maker = ""
    if parameters.memory in agent.memory.declared:
        hand = agent.memory.recall("working", "received") if parameters.asking == "received" else None
        asked = cast(Rows, marked(hand, agent.name)) if isinstance(hand, Rows) else None
        if parameters.asking == "received" and asked is None:
            return
        how, held = parameters.by, agent.memory.store(parameters.memory)
        remembered = RETRIEVALS[how.name].function(agent, held, how.parameters, asked, parameters.knowledge, context)
        if agent.role == "learner" and remembered is not None:
            remembered = addressed_to(remembered, agent.name)
    else:
        piece = agent.memory.items(_kind(parameters.memory)).get(parameters.knowledge)
        remembered, maker = (None, "") if piece is None else (piece.knowledge, piece.contributor)
    if parameters.who == "top":
        agent.memory.let_go("working", "received")
    if remembered is not None:
        agent.memory.hold("working", parameters.knowledge, remembered, context.round, maker)
        if parameters.who == "top":
            agent.memory.hold("working", "received", remembered, context.round, maker)


def consolidate(agent: Agent, parameters: Consolidate, context: Context) -> None:
    """Episodes become facts: the mean of each class, kept by contributor so that one can be taken out exactly."""
    sums = agent.memory.store(parameters.memory).class_means(by_contributor=True)
    there = (sums.weights > 0) & _kept(agent, parameters.into, sums.classes, context)
    facts = stores.entries(
        sums.classes[there],
        (sums.values[there] / sums.weights[there, None]),
        sums.contributors,
        context.round,
        owners=sums.owners[there],
        classes=sums.classes[there],
        weights=sums.weights[there],
    )
    _put_entries(agent, parameters.into, facts, context)


def decay(agent: Agent, parameters: Decay, context: Context) -> None:
    """What an agent holds fades a little; what is too weak is forgotten."""
    gone = agent.memory.store(parameters.memory).decay(parameters.factor, parameters.floor)
    agent.memory.note(Event(context.place, "forgotten", parameters.memory, gone))


def _kind(name: str) -> Kind:
    if name not in PIECES:
        raise ValueError(f"there is no memory {name!r}; declare it under `memories`, or take {', '.join(PIECES)}")
    return name


def _filtered(agent: Agent, given: Rows, said: Store, context: Context) -> Rows:
    found = apply_filters(agent, given, said.filters, context)
    for name, count in found.dropped.items():
        agent.memory.note(Event(context.place, "filtered", name, count))
    return found.rows


def _put(agent: Agent, name: str, given: Rows, maker: str, context: Context) -> None:
    """Put rows into a store; those that say of none whose they are become ``maker``'s."""
    held = agent.memory.store(name)
    known = marked(given, maker)
    assert isinstance(known, Rows)
    if held.declaration.keep < 1:
        known = known.part(torch.from_numpy(_kept(agent, name, known.ids.numpy(), context)))
    whole = completed(known, held)
    agent.memory.note(Event(context.place, "refused", name, known.items - whole.items))
    _put_entries(agent, name, entries_of(whole, agent.name, context.round), context)


def _kept(agent: Agent, name: str, ids: np.ndarray, context: Context) -> np.ndarray:
    """Return which of ``ids`` int64 [N] the memory's ``keep`` lets stay, bool [N]; the others are counted."""
    share = agent.memory.declared[name].keep
    kept: np.ndarray = uniform_of_ids(context.seed, ids, "agent", agent.name, "keep", name) < share
    agent.memory.note(Event(context.place, "filtered", f"keep of {name}", int((~kept).sum())))
    return kept


def _put_entries(agent: Agent, name: str, given: stores.Entries, context: Context) -> None:
    stream = numpy_stream(context.seed, "agent", agent.name, context.round, context.place, "store")
    done = agent.memory.store(name).put(given, context.round, stream)
    agent.memory.note(Event(context.place, "refused", name, done.refused))
    agent.memory.note(Event(context.place, "evicted", name, done.evicted))
