"""Where ways to absorb are entered: ``function(agent, received, said, context)`` changes a model of the agent."""

from __future__ import annotations

from collections.abc import Callable

from ..registry import Registry

ABSORBS: Registry[Callable[..., None]] = Registry("absorbs")
