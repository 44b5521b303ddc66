"""The gradients of a retrieval, from its indices and weights: nothing but what was found is read again."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..dispatch import detail
from ..reference.retrieve import retrieve_backward as plainly
from ..retrieve_settings import SMALLEST_NORM, Bank, Settings
from .retrieve_shapes import MOST, block, dense, power_of_two, vector


@triton.jit
def _backward(
    by_values,
    by_weights,
    by_scores,
    queries,
    keys,
    values,
    key_scales,
    value_scales,
    indices,
    weights,
    by_queries,
    by_keys,
    by_memories,
    by_bias,
    dim,
    width,
    query_stride,
    key_stride,
    value_stride,
    k,
    scale,
    temperature,
    smallest_norm,
    K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    QUANTISED: tl.constexpr,
    VALUES_QUANTISED: tl.constexpr,
    OF_QUERIES: tl.constexpr,
    OF_KEYS: tl.constexpr,
    OF_VALUES: tl.constexpr,
    OF_BIAS: tl.constexpr,
    COSINE: tl.constexpr,
    L2: tl.constexpr,
    VEC: tl.constexpr,
    VALUE_VEC: tl.constexpr,
):
    """One program: one query and its k memories. ``by_keys``, ``by_memories`` and ``by_bias`` are added to."""
    dim = (dim // VEC) * VEC
    query_stride = (query_stride // VEC) * VEC
    key_stride = (key_stride // VEC) * VEC
    width = (width // VALUE_VEC) * VALUE_VEC
    value_stride = (value_stride // VALUE_VEC) * VALUE_VEC
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, K)
    at = tl.load(indices + row * k + j, j < k, -1)
    found = at >= 0
    at = tl.where(found, at, 0)
    saved = tl.load(weights + row * k + j, j < k, 0.0).to(tl.float32)
    broken = tl.sum((saved != saved).to(tl.int32), 0) > 0
    share = tl.where(found, saved, 0.0)
    by_share = tl.load(by_weights + row * k + j, j < k, 0.0).to(tl.float32)
    if HAS_VALUES:
        value_scale = tl.full((K,), 1.0, tl.float32)
        if VALUES_QUANTISED:
            value_scale = tl.load(value_scales + at, found, 0.0).to(tl.float32)
        for start in range(0, width, BLOCK_E):
            e = start + tl.arange(0, BLOCK_E)
            inside = found[:, None] & (e[None, :] < width)
            by_mean = tl.load(by_values + row * width + e, e < width, 0.0).to(tl.float32)
            some = tl.load(values + at[:, None] * value_stride + e[None, :], inside, 0).to(tl.float32)
            by_share += tl.sum(some * by_mean[None, :], 1) * value_scale
            if OF_VALUES:
                tl.atomic_add(by_memories + at[:, None] * width + e[None, :], share[:, None] * by_mean[None, :], inside)
    by_share = tl.where(found, by_share, 0.0)
    by_score = share * (by_share - tl.sum(share * by_share, 0)) / temperature
    by_score += tl.load(by_scores + row * k + j, j < k, 0.0).to(tl.float32)
    by_score = tl.where(found, by_score, 0.0)
    if OF_BIAS:
        tl.atomic_add(by_bias + at, by_score, found)
    if OF_QUERIES or OF_KEYS:
        by_score = by_score * scale
        key_scale = tl.full((K,), 1.0, tl.float32)
        if QUANTISED:
            key_scale = tl.load(key_scales + at, found, 0.0).to(tl.float32)
        query_row = queries + row * query_stride
        key_rows = keys + at[:, None] * key_stride
        per_query = 1.0
        per_key = key_scale
        cosine = tl.zeros((K,), tl.float32)
        if COSINE:
            products = tl.zeros((K,), tl.float32)
            key_squares = tl.zeros((K,), tl.float32)
            query_square = 0.0
            for start in range(0, dim, BLOCK_D):
                d = start + tl.arange(0, BLOCK_D)
                q = tl.load(query_row + d, d < dim, 0.0).to(tl.float32)
                key = tl.load(key_rows + d[None, :], found[:, None] & (d[None, :] < dim), 0).to(tl.float32)
                key = key * key_scale[:, None]
                products += tl.sum(key * q[None, :], 1)
                key_squares += tl.sum(key * key, 1)
                query_square += tl.sum(q * q, 0)
            per_query = 1.0 / tl.maximum(tl.sqrt(query_square), smallest_norm)
            by_length = 1.0 / tl.maximum(tl.sqrt(key_squares), smallest_norm)
            per_key = key_scale * by_length
            cosine = products * per_query * by_length
        for start in range(0, dim, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            inside = found[:, None] & (d[None, :] < dim)
            # Both are unit vectors for the cosine.
            q = tl.load(query_row + d, d < dim, 0.0).to(tl.float32) * per_query
            key = tl.load(key_rows + d[None, :], inside, 0).to(tl.float32) * per_key[:, None]
            if L2:
                by_key = 2.0 * by_score[:, None] * (q[None, :] - key)
                by_query = -tl.sum(by_key, 0)
            elif COSINE:
                by_query = tl.sum(by_score[:, None] * (key - cosine[:, None] * q[None, :]), 0) * per_query
                by_key = (by_score * by_length)[:, None] * (q[None, :] - cosine[:, None] * key)
            else:
                by_query = tl.sum(by_score[:, None] * key, 0)
                by_key = by_score[:, None] * q[None, :]
            if OF_QUERIES:
                made = tl.where(broken, float("nan"), by_query).to(by_queries.dtype.element_ty)
                tl.store(by_queries + row * dim + d, made, d < dim)
            if OF_KEYS:
                tl.atomic_add(by_keys + at[:, None] * dim + d[None, :], by_key, inside)


def retrieve_backward(
    by_values: torch.Tensor | None,
    by_weights: torch.Tensor,
    by_scores: torch.Tensor,
    queries: torch.Tensor,
    bank: Bank,
    indices: torch.Tensor,
    weights: torch.Tensor,
    settings: Settings,
    wanted: tuple[bool, bool, bool, bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.retrieve.retrieve_backward` does.

    Gradients of the bank are float32 sums by atomic additions, in any order; where
    ``torch.use_deterministic_algorithms`` is on, the reference makes them.
    """
    rows, count = queries.shape[0], bank.keys.shape[0]
    given = (by_values, by_weights, by_scores, queries, bank, indices, weights, settings, wanted)
    if not rows or not count or settings.k > MOST:
        detail("reference: nothing to do, or more neighbours than a program holds")
        return plainly(*given)
    if any(wanted[1:]) and torch.are_deterministic_algorithms_enabled():
        detail("reference: atomic additions are not deterministic")
        return plainly(*given)
    bank = bank.dense()
    queries, keys = dense(queries), dense(bank.keys)
    values = None if bank.values is None or by_values is None else dense(bank.values)
    width = 0 if values is None else values.shape[1]
    by_queries = torch.empty_like(queries) if wanted[0] else queries.new_empty(0, dtype=torch.float32)

    def zeros(shape: tuple[int, ...], needed: bool) -> torch.Tensor:
        return torch.zeros(shape if needed else (0,), device=queries.device, dtype=torch.float32)

    of_values = wanted[2] and bank.values is not None
    by_keys = zeros(tuple(keys.shape), wanted[1])
    by_memories = zeros((count, width), of_values)
    by_bias = zeros((count,), wanted[3])
    K = power_of_two(settings.k)  # noqa: N806
    _backward[(rows,)](
        queries if by_values is None else by_values.contiguous(),
        by_weights.contiguous(),
        by_scores.contiguous(),
        queries,
        keys,
        queries if values is None else values,
        bank.key_scales,
        bank.value_scales,
        indices.contiguous(),
        weights.contiguous(),
        by_queries,
        by_keys,
        by_memories,
        by_bias,
        keys.shape[1],
        width,
        queries.stride(0),
        keys.stride(0),
        0 if values is None else values.stride(0),
        settings.k,
        settings.scale,
        settings.temperature,
        SMALLEST_NORM,
        K=K,
        BLOCK_D=block(keys.shape[1], K),
        BLOCK_E=block(width, K),
        HAS_VALUES=values is not None,
        QUANTISED=bank.key_scales is not None,
        VALUES_QUANTISED=bank.value_scales is not None,
        OF_QUERIES=wanted[0],
        OF_KEYS=wanted[1],
        OF_VALUES=of_values,
        OF_BIAS=wanted[3],
        COSINE=settings.similarity == "cosine",
        L2=settings.similarity == "l2",
        VEC=vector(keys.shape[1], queries.stride(0), keys.stride(0)),
        VALUE_VEC=vector(width, 0 if values is None else values.stride(0)),
        num_warps=4,
    )
    return (
        by_queries,
        by_keys.to(keys.dtype) if wanted[1] else by_keys,
        by_memories.to(bank.values.dtype) if of_values and bank.values is not None else by_memories,
        by_bias,
    )
