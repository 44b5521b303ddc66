"""The search alone, by faiss: it selects while it multiplies, which plain torch cannot."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from ..dispatch import installed
from ..reference.retrieve import unit
from ..retrieve_settings import Bank, Queries, Settings

MOST = 1024
"""Neighbours from which faiss's selection is slow."""


def why_not(asked: Queries, bank: Bank, settings: Settings, count: int) -> str:
    """Return why faiss cannot look for the ``count`` best, or "" if it can."""
    if bank.masked or bank.bias is not None:
        return "faiss knows neither masks nor biases"
    if asked.rows.dtype != torch.float32 or bank.keys.dtype != torch.float32:
        return f"faiss wants float32; keys are {bank.keys.dtype}"
    if settings.scale <= 0:
        return "faiss looks for the highest alone, and the scale is not positive"
    if count > MOST:
        return f"faiss is slow from {MOST} neighbours"
    return "" if installed("faiss") else "faiss is not installed; `pip install codistill[retrieval]` brings it"


@functools.cache
def _faiss() -> Any:
    return importlib.import_module("faiss")


def search(
    queries: torch.Tensor, keys: torch.Tensor, settings: Settings, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices int64 [Q, count], -1 where there is none, and scores [Q, count] as faiss rounds them, falling.

    ``queries`` [Q, D] and ``keys`` [M, D] are float32. Nothing is copied but for the cosine, which needs unit keys.
    """
    faiss = _faiss()
    if settings.similarity == "cosine":
        queries, keys = unit(queries), unit(keys)
    metric = faiss.METRIC_L2 if settings.similarity == "l2" else faiss.METRIC_INNER_PRODUCT
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        found, indices = faiss.knn(queries.detach().numpy(), keys.detach().numpy(), count, metric=metric)
    finally:
        faiss.omp_set_num_threads(before)
    sign = -settings.scale if settings.similarity == "l2" else settings.scale
    return torch.from_numpy(indices), torch.from_numpy(found) * sign
