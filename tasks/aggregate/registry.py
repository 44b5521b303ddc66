"""Where rules of aggregation are entered: ``function(agent, packets, said, context)`` makes one of several pieces."""

from __future__ import annotations

from collections.abc import Callable

from ..knowledge import Knowledge
from ..registry import Registry

AGGREGATES: Registry[Callable[..., Knowledge]] = Registry("aggregates")
