"""Which table of an embedding each form of knowledge holds rows of."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch

TABLES = {"embeddings": "entities", "relation_embeddings": "relations"}


def table_of(model: torch.nn.Module, form: str) -> torch.nn.Parameter:
    """Return the table [N, D] of an embedding that rows of ``form`` are of."""
    return cast("torch.nn.Parameter", getattr(model, TABLES[form]))
