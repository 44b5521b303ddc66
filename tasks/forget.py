"""The operation ``forget``: what is old goes, or what one agent contributed is unlearned."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .agent import Agent, Context
from .knowledge import Rows
from .memory import KINDS, Event
from .parameters import Name, Step
from .remember import Memory, _kind


class Forget(Step):
    """What is remembered goes."""

    memory: Memory | None = Field(None, description="the memory to forget from; only `contributor` may do without: all")
    older_than: Annotated[int, Field(ge=0)] | None = Field(
        None, description="rounds; what was stored within them stays. Nothing said: all goes"
    )
    contributor: Name | None = Field(
        None,
        description="an agent: what it contributed goes, from aggregates too where sums by contributor are kept",
    )

    @model_validator(mode="after")
    def _something(self) -> Forget:
        if self.memory is None and self.contributor is None:
            raise PydanticCustomError("missing", "expected `memory`, or `contributor` to unlearn an agent from all")
        return self


def forget(agent: Agent, parameters: Forget, context: Context) -> None:
    """An agent empties a memory, of all, of what is older than some rounds, or of what one agent contributed."""
    oldest = None if parameters.older_than is None else context.round - parameters.older_than
    declared = agent.memory.declared
    if parameters.contributor is not None:
        names = declared if parameters.memory is None else [parameters.memory] if parameters.memory in declared else []
        for name in names:
            if name in agent.memory.stores:
                _unlearn_entries(agent, parameters.contributor, name, oldest, context)
        if parameters.memory not in declared:
            _unlearn_pieces(agent, parameters.contributor, parameters.memory, context)
    elif parameters.memory in declared:
        gone = agent.memory.store(str(parameters.memory)).forget(older_than=oldest)
        agent.memory.note(Event(context.place, "forgotten", str(parameters.memory), gone))
    else:
        agent.memory.drop(_kind(str(parameters.memory)), oldest)


def _unlearn_entries(agent: Agent, contributor: str, name: str, oldest: int | None, context: Context) -> None:
    """Take a contributor's entries out of a store; tell of those that may be made of several agents' knowledge."""
    held = agent.memory.store(name)
    gone = held.forget(contributor=contributor, older_than=oldest)
    agent.memory.note(Event(context.place, "forgotten", name, gone))
    mixers = {agent.above or agent.name, agent.name if agent.role != "learner" else ""} - {""}
    for mixed in sorted(mixers):
        sentence = f"{name} holds what {mixed} made of what several agents said; {contributor} may stay in it"
        agent.memory.note(Event(context.place, "kept", name, held.count(mixed), sentence))


def _unlearn_pieces(agent: Agent, contributor: str, memory: str | None, context: Context) -> None:
    """Take a contributor's rows out of what an agent holds as pieces; tell of what it is mixed into.

    The owners of rows that are addressed are those whom they are for, not those who said them.
    """
    kinds = [kind for kind in KINDS if kind != "working"] if memory is None else [_kind(memory)]
    for kind in kinds:
        for key, item in agent.memory.items(kind).items():
            held = item.knowledge
            if isinstance(held, Rows) and held.owners is not None and not held.addressed:
                if contributor in held.contributors:
                    rest = held.part(held.owners != held.contributors.index(contributor))
                    agent.memory.hold(kind, key, rest, item.round, item.contributor)
                    agent.memory.note(Event(context.place, "forgotten", kind, held.items - rest.items))
            else:
                sentence = f"{kind} memory holds {key!r} as one with what others said; {contributor} stays in it"
                agent.memory.note(Event(context.place, "kept", kind, held.items, sentence))
    if memory is None and agent.models and agent.name != contributor:
        sentence = f"the weights of {agent.name} may have learned from {contributor}; train it anew to be sure"
        agent.memory.note(Event(context.place, "kept", "procedural", len(agent.models), sentence))
