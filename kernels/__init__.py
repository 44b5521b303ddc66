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
    from .aggregate import LogitAggregate, aggregate_logits
    from .dispatch import Ran, watch
    from .graph_scoring import graph_scores, negative_sampling_loss, score_kd_loss
    from .kd import kd_loss
    from .linear import linear_kd_loss
    from .pack import Packed, pack_knowledge
    from .relations import relation_angle_loss, relation_distance_loss
    from .retrieval import Retrieved, retrieve
    from .sparse import sparse_kd_loss

_HOME = {
    "LogitAggregate": "aggregate",
    "Packed": "pack",
    "Ran": "dispatch",
    "Retrieved": "retrieval",
    "aggregate_logits": "aggregate",
    "graph_scores": "graph_scoring",
    "kd_loss": "kd",
    "linear_kd_loss": "linear",
    "negative_sampling_loss": "graph_scoring",
    "pack_knowledge": "pack",
    "relation_angle_loss": "relations",
    "relation_distance_loss": "relations",
    "retrieve": "retrieval",
    "score_kd_loss": "graph_scoring",
    "sparse_kd_loss": "sparse",
    "watch": "dispatch",
}

__all__ = [
    "LogitAggregate",
    "Packed",
    "Ran",
    "Retrieved",
    "aggregate_logits",
    "graph_scores",
    "kd_loss",
    "linear_kd_loss",
    "negative_sampling_loss",
    "pack_knowledge",
    "relation_angle_loss",
    "relation_distance_loss",
    "retrieve",
    "score_kd_loss",
    "sparse_kd_loss",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
