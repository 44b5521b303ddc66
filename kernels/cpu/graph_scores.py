"""Distances to candidate entities on a CPU: some rows at a time, so that what is gathered stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..dispatch import detail
from ..reference.graph_scores import distances as all_at_once
from ..reference.graph_scores import slopes

BLOCK = 2**18
"""Elements that are gathered at a time: one megabyte in float32."""


def distances(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, kind: str) -> torch.Tensor:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances` does, by blocks of rows."""
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
    """Do what :func:`codistill.kernels.reference.graph_scores.distances_backward` does, by blocks of rows."""
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


def _blocks(query: torch.Tensor, candidates: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Cut [B, n] into pieces whose differences are at most ``BLOCK`` elements; give rows, columns and candidates."""
    width, many = max(query.shape[1], 1), candidates.shape[-1]
    across = max(1, min(many, BLOCK // width))
    down = max(1, BLOCK // (width * across))
    detail(f"blocks of {down} rows and {across} candidates")
    for first in range(0, query.shape[0], down):
        rows = slice(first, first + down)
        for left in range(0, many, across):
            columns = slice(left, left + across)
            yield rows, columns, candidates[columns] if candidates.dim() == 1 else candidates[rows, columns]
