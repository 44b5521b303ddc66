"""Tensor functions for distillation between many agents and for retrieval from memory.

A library of its own: it knows nothing of agents or specs. Each operation is one function here, one
``torch.library.custom_op`` below it, and three back ends: ``reference`` (readable torch, any device and dtype), ``cpu``
and ``triton``. The device decides which one runs, the argument ``backend`` or the environment variable
``CODISTILL_KERNELS`` overrides, and :func:`watch` tells which one ran and why.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dispatch import Ran, watch
    from .kd import kd_loss

_HOME = {"Ran": "dispatch", "watch": "dispatch", "kd_loss": "kd"}

__all__ = ["Ran", "kd_loss", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
