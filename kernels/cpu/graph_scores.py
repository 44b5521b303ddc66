"""Distances to candidate entities on a CPU: native code, or some rows at a time, so that they stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..dispatch import detail
from ..reference.graph_scores import distances as all_at_once
from ..reference.graph_scores import slopes
from . import graph_native

BLOCK = 2**18
"""Elements that are gathered at a time: one megabyte in float32."""


def distances(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, kind: str) -> torch.Tensor:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances` does, natively or by blocks of rows."""
    if kind == "product" and candidates.dim() == 1:
        detail("a matrix product")
        return -(query @ entities.index_select(0, candidates).to(query.dtype).t())
    if _natively(query, entities, candidates):
        return graph_native.distances(query, entities, candidates, kind)
    made = query.new_empty(query.shape[0], candidates.shape[-1])
    for rows, columns, theirs in _blocks(query, candidates):
        made[rows, columns] = all_at_once(query[rows], entities, theirs, kind)
    return made


def distances_backward(
    by_distances: torch.Tensor,
    query: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    made: torch.Tensor,
    kind: str,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances_backward` does, the way ``distances`` went."""
    if kind == "product" and candidates.dim() == 1:
        detail("matrix products")
        return _product_backward(by_distances, query, entities, candidates, wanted)
    if _natively(query, entities, candidates):
        return graph_native.distances_backward(by_distances, query, entities, candidates, made, kind, wanted)
    width = query.shape[1]
    by_query = query.new_zeros(query.shape[0] if wanted[0] else 0, width)
    by_entities = query.new_zeros(entities.shape[0] if wanted[1] else 0, width)
    for rows, columns, theirs in _blocks(query, candidates):
        own, others = slopes(by_distances[rows, columns], query[rows], entities, theirs, made[rows, columns], kind)
        if wanted[0]:
            by_query[rows] += own
        if wanted[1]:
            by_entities.index_add_(0, theirs.reshape(-1), others.reshape(-1, width))
    return by_query, by_entities.to(entities.dtype)


def _natively(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor) -> bool:
    why_not = graph_native.why_not(query, entities, candidates)
    detail("native" if not why_not else f"by torch: {why_not}")
    return not why_not


def _product_backward(
    by_distances: torch.Tensor,
    query: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor]:
    width = query.shape[1]
    by_query = query.new_zeros(query.shape[0] if wanted[0] else 0, width)
    by_entities = query.new_zeros(entities.shape[0] if wanted[1] else 0, width)
    if wanted[0]:
        by_query = -(by_distances @ entities.index_select(0, candidates).to(query.dtype))
    if wanted[1]:
        by_entities.index_add_(0, candidates, by_distances.t() @ query, alpha=-1)
    return by_query, by_entities.to(entities.dtype)


def _blocks(query: torch.Tensor, candidates: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Cut [B, n] into pieces whose differences are at most ``BLOCK`` elements; give rows, columns and candidates."""
    width, many = max(query.shape[1], 1), candidates.shape[-1]
    across = max(1, min(many, BLOCK // width))
    down = max(1, BLOCK // (width * across))
    for first in range(0, query.shape[0], down):
        rows = slice(first, first + down)
        for left in range(0, many, across):
            columns = slice(left, left + across)
            yield rows, columns, candidates[columns] if candidates.dim() == 1 else candidates[rows, columns]
