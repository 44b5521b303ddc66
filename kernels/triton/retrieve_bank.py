"""One pass over a memory bank before a retrieval: what scores are multiplied by and what is added, by memory."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _largest(values):
    """The largest finite magnitude."""
    size = tl.abs(values)
    return tl.max(tl.where(size < float("inf"), size, 0.0), 0)


@triton.jit
def prepare_bank(
    keys,
    key_scales,
    bias,
    kept,
    factor,
    offset,
    largest,
    key_count,
    dim,
    key_stride,
    scale,
    smallest_norm,
    QUANTISED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    COSINE: tl.constexpr,
    L2: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    VEC: tl.constexpr,
):
    """Write ``factor`` [M] and ``offset`` [M], by which the group maxima are made of products, and ``largest`` [2].

    A product of a query with a raw key, times ``factor``, times what belongs to the query, plus ``offset`` is the
    score. ``largest`` are the longest key and the largest bias; it starts as zero. One program does BLOCK_M memories.
    """
    dim = (dim // VEC) * VEC
    key_stride = (key_stride // VEC) * VEC
    at = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = at < key_count
    rows = keys + at.to(tl.int64)[:, None] * key_stride
    squares = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, dim, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        some = tl.load(rows + d[None, :], inside[:, None] & (d[None, :] < dim), 0).to(tl.float32)
        squares += tl.sum(some * some, 1)
    scales = tl.full((BLOCK_M,), 1.0, tl.float32)
    if QUANTISED:
        scales = tl.load(key_scales + at, inside, 0.0).to(tl.float32)
    lengths = tl.sqrt(squares) * tl.abs(scales)
    tl.atomic_max(largest, _largest(lengths))
    if COSINE:
        tl.store(factor + at, scales / tl.maximum(lengths, smallest_norm), inside)
    added = tl.zeros((BLOCK_M,), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + at, inside, 0.0).to(tl.float32)
        tl.atomic_max(largest + 1, _largest(added))
    if L2:
        added -= scale * lengths * lengths
    if HAS_KEPT:
        added = tl.where(tl.load(kept + at, inside, 0) != 0, added, float("-inf"))
    if HAS_OFFSET:
        tl.store(offset + at, added, inside)
