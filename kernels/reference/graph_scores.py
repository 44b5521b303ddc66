"""Distances from query points to candidate entities in readable torch, and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .kd import accumulated

Gradients = tuple[torch.Tensor, torch.Tensor]


def distances(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the distances of ``query`` [B, D] to the rows ``candidates`` [B, n] or [n] of ``entities`` [E, D], [B, n].

    ``kind`` is "absolute" (1-norm), "euclidean" (2-norm), "modulus": the sum of the moduli of D / 2 complex numbers,
    real parts first, or "product": minus the inner product. ``query`` is float32 or float64, and so are the distances.
    """
    rows = gathered(entities, candidates)
    if kind == "product":
        return -(query[:, None] * rows).sum(2)
    return length(query[:, None] - rows, kind)


def distances_backward(
    by_distances: torch.Tensor,
    query: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    made: torch.Tensor,
    kind: str,
    wanted: Sequence[bool],
) -> Gradients:
    """Return the gradients by ``query`` [B, D] and ``entities`` [E, D], in their dtypes.

    ``by_distances`` [B, n] is the loss's derivative by the distances ``made``. Where points meet the gradient is zero.
    ``wanted`` says which of the two to make; the other has no rows.
    """
    by_query, by_rows = slopes(by_distances, query, entities, candidates, made, kind)
    width = query.shape[1]
    by_entities = query.new_zeros(entities.shape[0] if wanted[1] else 0, width)
    if wanted[1]:
        by_entities.index_add_(0, candidates.reshape(-1), by_rows.reshape(-1, width))
    return by_query if wanted[0] else query.new_empty(0, width), by_entities.to(entities.dtype)


def slopes(
    by_distances: torch.Tensor,
    query: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    made: torch.Tensor,
    kind: str,
) -> Gradients:
    """Return the gradients by ``query`` [B, D] and by each candidate's row, [B, n, D] or [n, D]."""
    rows, by = gathered(entities, candidates), by_distances[:, :, None]
    if kind == "product":
        by_query, by_rows = -(by * rows).sum(1), -(by * query[:, None])
    else:
        weighted = slope(query[:, None] - rows, made, kind) * by
        by_query, by_rows = weighted.sum(1), -weighted
    return by_query, by_rows if candidates.dim() == 2 else by_rows.sum(0)


def gathered(entities: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Return the candidates' rows [B, n, D] or [n, D] in the dtype that sums are made in."""
    rows = entities.index_select(0, candidates.reshape(-1)).reshape(*candidates.shape, entities.shape[1])
    return accumulated(rows)


def length(apart: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the lengths of differences [B, n, D], [B, n]."""
    if kind == "absolute":
        return apart.abs().sum(2)
    if kind == "euclidean":
        return apart.square().sum(2).sqrt()
    return _moduli(apart).sum(2)


def slope(apart: torch.Tensor, lengths: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the derivatives of ``lengths`` [B, n] by the differences [B, n, D], zero where there is none."""
    if kind == "absolute":
        return apart.sign()
    if kind == "euclidean":
        return torch.where(apart == 0, 0.0, apart / lengths[:, :, None])
    moduli = _moduli(apart)
    return torch.where(apart == 0, 0.0, apart / torch.cat([moduli, moduli], 2))


def _moduli(apart: torch.Tensor) -> torch.Tensor:
    real, imaginary = apart.chunk(2, 2)
    return (real.square() + imaginary.square()).sqrt()
