"""The operation ``absorb``: knowledge that was received changes a model. Each way has a module of its own."""

from __future__ import annotations

from typing import Any

from ..agent import Agent, Context
from ..choice import tagged
from . import adversarial, bridge, distil, mutual, replace
from .registry import ABSORBS

__all__ = ["ABSORBS", "Absorb", "absorb", "adversarial", "bridge", "distil", "mutual", "replace"]

Absorb: Any = tagged("Absorb", ABSORBS, "by")


def absorb(agent: Agent, parameters: Any, context: Context) -> None:
    """An agent's model changes by what the agent received."""
    received = agent.memory.recall("working", "received")
    if received is not None:
        ABSORBS[parameters.by].function(agent, received, parameters, context)
