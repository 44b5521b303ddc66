"""The operations ``store``, ``retrieve`` and ``forget``: between working memory and the long-term ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .agent import Agent, Context
from .parameters import Step

LongTerm = Literal["semantic", "episodic", "procedural"]


class Store(Step):
    """What was received goes to a long-term memory."""

    memory: LongTerm = Field(description="the kind of memory; a newer piece of the same form takes the older's place")


class Retrieve(Step):
    """What is remembered comes back to mind."""

    memory: LongTerm = Field(description="the kind of memory to look in")
    knowledge: Literal["parameters", "logits", "class_logits", "prototypes"] = Field(description="the form to look for")


class Forget(Step):
    """What is remembered goes."""

    memory: LongTerm = Field(description="the kind of memory to forget from")
    older_than: Annotated[int, Field(ge=0)] | None = Field(
        None, description="rounds; what was stored within them stays. Nothing said: all goes"
    )


def store(agent: Agent, parameters: Store, context: Context) -> None:
    """What an agent received goes to one of its long-term memories."""
    received = agent.memory.recall("working", "received")
    if received is not None:
        agent.memory.hold(parameters.memory, received.form, received, context.round)


def retrieve(agent: Agent, parameters: Retrieve, context: Context) -> None:
    """What an agent remembers comes to its working memory, for the steps that follow."""
    remembered = agent.memory.recall(parameters.memory, parameters.knowledge)
    if remembered is not None:
        agent.memory.hold("working", parameters.knowledge, remembered, context.round)


def forget(agent: Agent, parameters: Forget, context: Context) -> None:
    """An agent empties a memory, wholly or of what is older than some rounds."""
    oldest = None if parameters.older_than is None else context.round - parameters.older_than
    agent.memory.drop(parameters.memory, oldest)
