"""The derivatives of distances to candidate entities, gathered anew, so that no [B, n, D] is ever stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .graph_scores import KINDS, config, prepared


@triton.jit
def _slope(apart, other, KIND: tl.constexpr):
    """The derivative of a length by ``apart``; ``other`` is the other part of a complex number. Zero where it ends."""
    if KIND == 0:
        made = tl.where(apart > 0, 1.0, tl.where(apart < 0, -1.0, apart))
    elif KIND == 1:
        made = apart
    else:
        made = tl.where(apart == 0, 0.0, apart / tl.sqrt(apart * apart + other * other))
    return made


@triton.jit
def _by_query(
    query,
    entities,
    candidates,
    made,
    by_distances,
    by_query,
    by_entities,
    query_stride,
    entity_stride,
    candidate_stride,
    entity_count,
    count,
    width,
    total_width,
    KIND: tl.constexpr,
    QUERY: tl.constexpr,
    ENTITIES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    VEC: tl.constexpr,
):
    """One program: BLOCK_D numbers of one row, all its candidates.

    QUERY: store the gradient by the query. ENTITIES: add to the gradient by the entities, float32 [E, D], atomically.
    """
    width = (width // VEC) * VEC
    query_stride = (query_stride // VEC) * VEC
    entity_stride = (entity_stride // VEC) * VEC
    total_width = (total_width // VEC) * VEC
    blocks = tl.cdiv(width, BLOCK_D)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    d = (tl.program_id(0) % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = d < width
    own = tl.load(query + row * query_stride + d, inside, 0.0).to(tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    own_imaginary = own
    total_imaginary = total
    if KIND == 2:
        own_imaginary = tl.load(query + row * query_stride + width + d, inside, 0.0).to(tl.float32)
    for start in range(0, count, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        live = column < count
        entity = tl.load(candidates + row * candidate_stride + column, live, 0)
        there = live & (entity >= 0) & (entity < entity_count)
        share = tl.load(by_distances + row * count + column, live, 0.0).to(tl.float32)
        if KIND == 1:
            length = tl.load(made + row * count + column, live, 0.0)
            share = tl.where(length == 0, 0.0, share / length)
        mask = there[:, None] & inside[None, :]
        share = share[:, None]
        at = entity[:, None] * entity_stride + d[None, :]
        into = by_entities + entity[:, None] * total_width + d[None, :]
        theirs = tl.load(entities + at, mask, 0.0).to(tl.float32)
        apart = own[None, :] - theirs
        other = apart
        if KIND == 2:
            other = own_imaginary[None, :] - tl.load(entities + at + width, mask, 0.0).to(tl.float32)
            slope = tl.where(mask, share * _slope(other, apart, KIND), 0.0)
            total_imaginary += tl.sum(slope, 0)
            if ENTITIES:
                tl.atomic_add(into + width, -slope, mask, sem="relaxed")
        if KIND == 3:
            total -= tl.sum(tl.where(mask, share * theirs, 0.0), 0)
            if ENTITIES:
                tl.atomic_add(into, -share * own[None, :], mask, sem="relaxed")
        else:
            slope = tl.where(mask, share * _slope(apart, other, KIND), 0.0)
            total += tl.sum(slope, 0)
            if ENTITIES:
                tl.atomic_add(into, -slope, mask, sem="relaxed")
    if QUERY:
        out = by_query + row * total_width + d
        tl.store(out, total, inside)
        if KIND == 2:
            tl.store(out + width, total_imaginary, inside)


@triton.jit
def _by_candidate(
    query,
    entities,
    candidates,
    made,
    by_distances,
    by_rows,
    query_stride,
    entity_stride,
    entity_count,
    batch,
    count,
    width,
    total_width,
    KIND: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    VEC: tl.constexpr,
):
    """One program: BLOCK_D numbers of BLOCK_N candidates that all rows share, over all rows; ``by_rows`` is [n, D]."""
    width = (width // VEC) * VEC
    query_stride = (query_stride // VEC) * VEC
    entity_stride = (entity_stride // VEC) * VEC
    total_width = (total_width // VEC) * VEC
    blocks = tl.cdiv(width, BLOCK_D)
    column = (tl.program_id(0) // blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = (tl.program_id(0) % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = d < width
    live = column < count
    entity = tl.load(candidates + column, live, 0)
    there = live & (entity >= 0) & (entity < entity_count)
    mask = there[:, None] & inside[None, :]
    at = entities + entity[:, None] * entity_stride + d[None, :]
    theirs = tl.load(at, mask, 0.0).to(tl.float32)
    total = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    theirs_imaginary = theirs
    total_imaginary = total
    if KIND == 2:
        theirs_imaginary = tl.load(at + width, mask, 0.0).to(tl.float32)
    point = query + d
    at = by_distances + column
    at_length = made + column
    for _ in range(batch):
        share = tl.load(at, live, 0.0).to(tl.float32)
        if KIND == 1:
            length = tl.load(at_length, live, 0.0)
            share = tl.where(length == 0, 0.0, share / length)
        share = share[:, None]
        own = tl.load(point, inside, 0.0).to(tl.float32)[None, :]
        apart = own - theirs
        other = apart
        if KIND == 2:
            other = tl.load(point + width, inside, 0.0).to(tl.float32)[None, :] - theirs_imaginary
            total_imaginary -= share * _slope(other, apart, KIND)
        if KIND == 3:
            total -= share * own
        else:
            total -= share * _slope(apart, other, KIND)
        point += query_stride
        at += count
        at_length += count
    into = by_rows + column[:, None].to(tl.int64) * total_width + d[None, :]
    tl.store(into, total, mask)
    if KIND == 2:
        tl.store(into + width, total_imaginary, mask)


def distances_backward(
    by_distances: torch.Tensor,
    query: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    made: torch.Tensor,
    kind: str,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances_backward` does.

    Candidates of a row's own are added to the table's gradient atomically, in no fixed order. Shared candidates are
    summed over the rows in order, and their sums added to the table's gradient by torch.
    """
    query, entities, candidates, width, vec = prepared(query, entities, candidates, kind)
    by_distances, made = by_distances.contiguous(), made.contiguous()
    batch, count, whole = query.shape[0], candidates.shape[-1], query.shape[1]
    shared = candidates.dim() == 1
    by_query = query.new_zeros(batch if wanted[0] else 0, whole)
    by_entities = query.new_zeros(entities.shape[0] if wanted[1] else 0, whole)
    sizes = config(width, count, kind)
    across = triton.cdiv(width, sizes["BLOCK_D"])
    if batch * count * whole == 0:
        return by_query, by_entities.to(entities.dtype)
    if wanted[0] or (wanted[1] and not shared):
        _by_query[(batch * across,)](
            query,
            entities,
            candidates,
            made,
            by_distances,
            by_query,
            by_entities,
            query.stride(0),
            entities.stride(0),
            0 if shared else count,
            entities.shape[0],
            count,
            width,
            whole,
            KIND=KINDS[kind],
            QUERY=wanted[0],
            ENTITIES=wanted[1] and not shared,
            VEC=vec,
            **sizes,
        )
    if wanted[1] and shared:
        by_rows = query.new_zeros(count, whole)
        _by_candidate[(triton.cdiv(count, sizes["BLOCK_N"]) * across,)](
            query,
            entities,
            candidates,
            made,
            by_distances,
            by_rows,
            query.stride(0),
            entities.stride(0),
            entities.shape[0],
            batch,
            count,
            width,
            whole,
            KIND=KINDS[kind],
            VEC=vec,
            **sizes,
        )
        # A candidate outside of the table has a row of zeros; it goes where it does no harm.
        by_entities.index_add_(0, candidates.clamp(0, entities.shape[0] - 1), by_rows)
    return by_query, by_entities.to(entities.dtype)
