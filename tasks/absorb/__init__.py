"""The operation ``absorb``: knowledge that was received changes a model. Each way has a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..agent import Agent, Context
from ..choice import tagged, when_asked
from . import adversarial, bridge, distil, mutual, replace
from .registry import ABSORBS

__all__ = ["ABSORBS", "Absorb", "absorb", "adversarial", "bridge", "distil", "mutual", "replace"]

if TYPE_CHECKING:
    Absorb: Any
else:
    __getattr__ = when_asked(Absorb=lambda: tagged("Absorb", ABSORBS, "by"))


def absorb(agent: Agent, parameters: Any, context: Context) -> None:
    """An agent's model changes by what the agent received."""
    received = agent.memory.recall("working", "received")
    if received is not None:
        ABSORBS[parameters.by].function(agent, received, parameters, context)
