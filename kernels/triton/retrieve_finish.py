"""From the best groups to the answer: exact scores of their members, the k best, softmax and the mean of values."""

from __future__ import annotations

import triton
import triton.language as tl

NOBODY = tl.constexpr(0x7FFFFFFF)
"""The index of a memory that is none."""


@triton.jit
def pack(scores, at):
    """Return int64 that order as the float32 ``scores`` do, and equal scores by falling index."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)  # -0.0 equals 0.0
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - at).to(tl.int64)


@triton.jit
def unpack(packed):
    """Return the scores and indices that :func:`pack` was given."""
    ordered = (packed >> 32).to(tl.int32)
    bits = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.to(tl.float32, bitcast=True), (0x7FFFFFFF - (packed & 0x7FFFFFFF)).to(tl.int32)


@triton.jit
def merged(
    best,
    group,
    queries,
    keys,
    factor,
    key_scales,
    bias,
    kept,
    key_owner,
    key_class,
    row,
    mine,
    wanted,
    by_query,
    key_count,
    dim,
    key_stride,
    query_stride,
    K: tl.constexpr,
    STEP: tl.constexpr,
    GROUP: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    QUANTISED: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    HAS_OWNER: tl.constexpr,
    HAS_CLASS: tl.constexpr,
    L2: tl.constexpr,
):
    """Return ``best`` [K], packed, with the members of the groups ``group`` [STEP] that are better; -1 is no group."""
    d = tl.arange(0, BLOCK_D)
    if tl.max(group, 0) >= 0:
        first = (group // WIDE) * (WIDE * GROUP) + group % WIDE
        members = first[:, None] + tl.arange(0, GROUP)[None, :] * WIDE
        at = tl.reshape(tl.where(group[:, None] >= 0, members, NOBODY), (STEP * GROUP,))
        live = at < key_count
        products = tl.zeros((STEP * GROUP,), tl.float32)
        scales = tl.full((STEP * GROUP,), 1.0, tl.float32)
        if QUANTISED:
            scales = tl.load(key_scales + at, live, 0.0).to(tl.float32)
        for start in range(0, dim, BLOCK_D):
            here = start + d
            own_part = tl.load(queries + row * query_stride + here, here < dim, 0.0).to(tl.float32)
            key_part = tl.load(
                keys + at.to(tl.int64)[:, None] * key_stride + here[None, :],
                live[:, None] & (here[None, :] < dim),
                0,
            ).to(tl.float32)
            if L2:
                apart = key_part * scales[:, None] - own_part[None, :]
                products -= tl.sum(apart * apart, 1)
            else:
                products += tl.sum(key_part * own_part[None, :], 1)
        scores = products * by_query
        if HAS_FACTOR:
            scores = scores * tl.load(factor + at, live, 0.0).to(tl.float32)
        if HAS_BIAS:
            scores = scores + tl.load(bias + at, live, 0.0).to(tl.float32)
        if HAS_KEPT:
            live = live & (tl.load(kept + at, live, 0) != 0)
        if HAS_OWNER:
            live = live & (tl.load(key_owner + at, live, 0) != mine)
        if HAS_CLASS:
            live = live & (tl.load(key_class + at, live, 0) == wanted)
        live = live & (scores == scores)
        packed = pack(tl.where(live, scores, float("-inf")), tl.where(live, at, NOBODY))
        if STEP * GROUP > K:
            packed = tl.topk(packed, K)
        best = tl.topk(tl.reshape(tl.join(best, packed), (2 * K,)), K)
    return best


@triton.jit
def finish(
    queries,
    keys,
    values,
    factor,
    key_scales,
    value_scales,
    bias,
    kept,
    query_owner,
    key_owner,
    query_class,
    key_class,
    maxima,
    highest,
    chosen,
    largest,
    found_values,
    found_indices,
    found_weights,
    found_scores,
    found_sums,
    key_count,
    dim,
    width,
    query_stride,
    key_stride,
    value_stride,
    groups,
    chosen_count,
    k,
    scale,
    temperature,
    rounding,
    smallest_norm,
    K: tl.constexpr,
    STEP: tl.constexpr,
    GROUP: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    ALL_CHOSEN: tl.constexpr,
    QUANTISED: tl.constexpr,
    VALUES_QUANTISED: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    HAS_OWNER: tl.constexpr,
    HAS_CLASS: tl.constexpr,
    COSINE: tl.constexpr,
    L2: tl.constexpr,
    VEC: tl.constexpr,
    VALUE_VEC: tl.constexpr,
):
    """One program answers one query; ``chosen`` [Q, chosen_count] are its best groups, ``highest`` their maxima.

    First the members of the chosen groups are scored, STEP groups at a time. If the last chosen maximum is so near to
    the k-th best score that rounding might have hidden a better memory (or one as good, of a lower index) in another
    group, all groups whose maximum is near enough are scored instead.

    That is a second loop and not a second turn of one: the compilers of Triton 3.6 and 3.7 lose a number that an
    ``if`` inside a loop leaves to its next turn, here how many steps that has, without a word.
    """
    dim = (dim // VEC) * VEC
    query_stride = (query_stride // VEC) * VEC
    key_stride = (key_stride // VEC) * VEC
    width = (width // VALUE_VEC) * VALUE_VEC
    value_stride = (value_stride // VALUE_VEC) * VALUE_VEC
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    j = tl.arange(0, K)
    squares = 0.0
    for start in range(0, dim, BLOCK_D):
        some = tl.load(queries + row * query_stride + start + d, start + d < dim, 0.0).to(tl.float32)
        squares += tl.sum(some * some, 0)
    length = tl.sqrt(squares)
    longest = tl.load(largest)
    size = length * longest
    by_query = scale
    own = 0.0
    if COSINE:
        by_query = scale / tl.maximum(length, smallest_norm)
        size = 2.0
    if L2:
        size = (length + longest) * (length + longest)
        own = scale * squares
    error = rounding * (tl.abs(scale) * size + tl.load(largest + 1))
    error = tl.where(error == error, error, float("inf"))
    mine = 0
    wanted = 0
    if HAS_OWNER:
        mine = tl.load(query_owner + row)
    if HAS_CLASS:
        wanted = tl.load(query_class + row)

    best = pack(tl.full((K,), float("-inf"), tl.float32), tl.full((K,), NOBODY, tl.int32))
    nobody = best
    for step in range(tl.cdiv(chosen_count, STEP)):
        nth = step * STEP + tl.arange(0, STEP)
        group = tl.load(chosen + row * chosen_count + nth, nth < chosen_count, -1).to(tl.int32)
        best = merged(
            best,
            group,
            queries,
            keys,
            factor,
            key_scales,
            bias,
            kept,
            key_owner,
            key_class,
            row,
            mine,
            wanted,
            by_query,
            key_count,
            dim,
            key_stride,
            query_stride,
            K,
            STEP,
            GROUP,
            WIDE,
            BLOCK_D,
            QUANTISED,
            HAS_FACTOR,
            HAS_BIAS,
            HAS_KEPT,
            HAS_OWNER,
            HAS_CLASS,
            L2,
        )
    if not ALL_CHOSEN:
        so_far, _ = unpack(best)
        worst = tl.max(tl.where(j == k - 1, so_far, float("-inf")), 0)
        bound = tl.load(highest + row * chosen_count + chosen_count - 1) - own
        again = (bound > float("-inf")) & (bound >= worst - error)
        near_enough = worst - error + own
        best = tl.where(again, nobody, best)
        for step in range(tl.where(again, tl.cdiv(groups, STEP), 0)):
            nth = step * STEP + tl.arange(0, STEP)
            best_of = tl.load(maxima + row * groups + nth, nth < groups, float("-inf"))
            group = tl.where((nth < groups) & (best_of >= near_enough), nth, -1)
            best = merged(
                best,
                group,
                queries,
                keys,
                factor,
                key_scales,
                bias,
                kept,
                key_owner,
                key_class,
                row,
                mine,
                wanted,
                by_query,
                key_count,
                dim,
                key_stride,
                query_stride,
                K,
                STEP,
                GROUP,
                WIDE,
                BLOCK_D,
                QUANTISED,
                HAS_FACTOR,
                HAS_BIAS,
                HAS_KEPT,
                HAS_OWNER,
                HAS_CLASS,
                L2,
            )

    scores, at = unpack(best)
    broken = squares != squares
    found = (scores > float("-inf")) & (j < k) & (not broken)
    top = tl.max(tl.where(found, scores, float("-inf")), 0)
    some_found = top > float("-inf")
    powers = tl.where(found, tl.exp((scores - tl.where(some_found, top, 0.0)) / temperature), 0.0)
    total = tl.sum(powers, 0)
    weights = powers / tl.where(some_found, total, 1.0)
    sums = tl.where(some_found, top / temperature + tl.log(tl.where(some_found, total, 1.0)), float("-inf"))
    nan = float("nan")
    here = j < k
    tl.store(found_indices + row * k + j, tl.where(found, at, -1).to(tl.int64), here)
    tl.store(found_weights + row * k + j, tl.where(broken, nan, weights), here)
    tl.store(found_scores + row * k + j, tl.where(broken, nan, tl.where(found, scores, float("-inf"))), here)
    tl.store(found_sums + row, tl.where(broken, nan, sums))
    rows = values + tl.where(found, at, 0).to(tl.int64)[:, None] * value_stride
    shares = weights
    if VALUES_QUANTISED:
        shares = shares * tl.load(value_scales + tl.where(found, at, 0), found, 0.0).to(tl.float32)
    for start in range(0, width, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        some = tl.load(rows + e[None, :], found[:, None] & (e[None, :] < width), 0).to(tl.float32)
        mean = tl.where(broken, nan, tl.sum(some * shares[:, None], 0))
        tl.store(found_values + row * width + e, mean.to(found_values.dtype.element_ty), e < width)
