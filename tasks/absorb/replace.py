"""The absorption ``replace``: received parameters take the place of the own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import Knowledge, Models
from ..parameters import Step
from .registry import ABSORBS


class Replace(Step):
    """Parameters take the place of the model's own."""

    of: Literal["model", "companion"] = Field("model", description="the agent's own model, or its companion")


@ABSORBS.register("replace", Replace)
def replace(agent: Agent, received: Knowledge, said: Replace, context: Context) -> None:
    """The received parameters of the agent's architecture take the place of its own."""
    assert isinstance(received, Models)
    identity = agent.architectures[said.of].name
    if identity in received.tensors:
        agent.models[said.of].load_state_dict(received.tensors[identity])
