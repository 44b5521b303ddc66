"""Where filters are entered: ``function(agent, rows, said, context)`` returns which rows pass, bool [N]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..registry import Registry

if TYPE_CHECKING:
    import torch

FILTERS: Registry[Callable[..., torch.Tensor]] = Registry("filters")
"""A filter's parameters say in ``needs_samples`` whether it looks at the agent's own samples. Aggregators have none."""
