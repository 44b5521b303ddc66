"""Maxima of groups of scores: a matrix product of which only the best of every few memories is written."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def group_maxima(
    queries,
    keys,
    factor,
    offset,
    query_owner,
    key_owner,
    query_class,
    key_class,
    maxima,
    query_count,
    key_count,
    dim,
    query_stride,
    key_stride,
    groups,
    tiles,
    scale,
    smallest_norm,
    TILES: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WHOLE: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    HAS_OWNER: tl.constexpr,
    HAS_CLASS: tl.constexpr,
    COSINE: tl.constexpr,
    PRECISION: tl.constexpr,
    VEC: tl.constexpr,
):
    """Write ``maxima`` [Q, groups], float32: the best score of each group, but for |q|^2 in the case of L2.

    One program: BLOCK_Q queries and TILES tiles of BLOCK_M memories. A tile has BLOCK_M / GROUP groups, and group j of
    it the memories j, j + BLOCK_M / GROUP, ... of the tile: a thread holds them all, so that no data moves. WHOLE says
    that BLOCK_D covers all dimensions: then the queries are read once.
    """
    dim = (dim // VEC) * VEC
    query_stride = (query_stride // VEC) * VEC
    key_stride = (key_stride // VEC) * VEC
    WIDE: tl.constexpr = BLOCK_M // GROUP
    q = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    there = q < query_count
    d = tl.arange(0, BLOCK_D)
    query_rows = queries + q.to(tl.int64)[:, None] * query_stride
    by_query = tl.full((BLOCK_Q,), scale, tl.float32)
    if COSINE:
        squares = tl.zeros((BLOCK_Q,), tl.float32)
        for start in range(0, dim, BLOCK_D):
            at = start + d
            some = tl.load(query_rows + at[None, :], there[:, None] & (at[None, :] < dim), 0.0).to(tl.float32)
            squares += tl.sum(some * some, 1)
        by_query = scale / tl.maximum(tl.sqrt(squares), smallest_norm)
    if WHOLE:
        asked = tl.load(query_rows + d[None, :], there[:, None] & (d[None, :] < dim), 0.0)
    if HAS_OWNER:
        mine = tl.load(query_owner + q, there, 0)
    if HAS_CLASS:
        wanted = tl.load(query_class + q, there, 0)
    first = tl.program_id(1) * TILES
    for tile in range(first, tl.minimum(first + TILES, tiles)):
        m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = m < key_count
        key_rows = keys + m.to(tl.int64)[None, :] * key_stride
        if WHOLE:
            some_keys = tl.load(key_rows + d[:, None], inside[None, :] & (d[:, None] < dim), 0)
            scores = tl.dot(asked, some_keys.to(asked.dtype), input_precision=PRECISION)
        else:
            scores = tl.zeros((BLOCK_Q, BLOCK_M), tl.float32)
            for start in range(0, dim, BLOCK_D):
                at = start + d
                some = tl.load(query_rows + at[None, :], there[:, None] & (at[None, :] < dim), 0.0)
                some_keys = tl.load(key_rows + at[:, None], inside[None, :] & (at[:, None] < dim), 0)
                scores = tl.dot(some, some_keys.to(some.dtype), scores, input_precision=PRECISION)
        scores = scores * by_query[:, None]
        if HAS_FACTOR:
            scores = scores * tl.load(factor + m, inside, 0.0).to(tl.float32)[None, :]
        # What is beyond the bank is taken out by the same addition that a bias needs.
        added = tl.where(inside, 0.0, float("-inf"))
        if HAS_OFFSET:
            added = tl.load(offset + m, inside, float("-inf"))
        scores = scores + added[None, :]
        if HAS_OWNER:
            owner = tl.load(key_owner + m, inside, 0)
            scores = tl.where(mine[:, None] != owner[None, :], scores, float("-inf"))
        if HAS_CLASS:
            class_ = tl.load(key_class + m, inside, 0)
            scores = tl.where(wanted[:, None] == class_[None, :], scores, float("-inf"))
        # A GPU's maximum drops NaN, unless all are.
        best = tl.max(tl.reshape(scores, (BLOCK_Q, GROUP, WIDE)), 1)
        best = tl.where(best == best, best, float("-inf"))
        into = tile * WIDE + tl.arange(0, WIDE)
        tl.store(maxima + q.to(tl.int64)[:, None] * groups + into[None, :], best, there[:, None])
