"""What the teachers of ``kd_loss`` say about some columns of a row that does not fit into registers."""

from __future__ import annotations

import triton
import triton.language as tl

from .kd_parts import log2_add, log2_of, multiple, weighted

GROUP = tl.constexpr(8)
"""Columns side by side that a thread holds, so that what is said of them waits for no other thread."""


STAGES = tl.constexpr(3)
"""Blocks that are under way at once: two are read while one is worked on."""


@triton.jit
def grouped(BLOCK: tl.constexpr):
    """Return the columns of a block [BLOCK / GROUP, GROUP], a group in each row."""
    return tl.arange(0, BLOCK // GROUP)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]


@triton.jit
def nothing(BLOCK: tl.constexpr):
    """Return a sum without terms for every group of a block."""
    return tl.zeros((BLOCK // GROUP,), tl.float32)


@triton.jit
def lowest(BLOCK: tl.constexpr):
    """Return what every group's greatest value so far is before there is one: finite, for differences."""
    return tl.full((BLOCK // GROUP,), -1e30, tl.float32)


@triton.jit
def stepped(tops, values):
    """Return for each group the greater of ``tops`` and what is in ``values``, and the difference."""
    higher = tl.maximum(tops, tl.max(values, 1))
    return higher, tops - higher


@triton.jit
def normaliser(pointer, columns, bits, ENTROPY: tl.constexpr, BLOCK: tl.constexpr):
    """Return a row's greatest logit, log2 sum 2^(bits (t - greatest)), and its entropy in bits if asked."""
    lanes = grouped(BLOCK)
    tops = lowest(BLOCK)
    totals = nothing(BLOCK)
    moments = nothing(BLOCK)
    for start in tl.range(0, columns, BLOCK, num_stages=STAGES):
        at = start + lanes
        t = tl.load(pointer + at, at < columns, float("-inf")).to(tl.float32)
        tops, fallen = stepped(tops, t)
        centred = (t - tops[:, None]) * bits
        powers = tl.exp2(centred)
        shrink = tl.exp2(fallen * bits)
        if ENTROPY:
            moments = (moments + totals * (fallen * bits)) * shrink + tl.sum(weighted(powers, centred), 1)
        totals = totals * shrink + tl.sum(powers, 1)
    top = tl.max(tops, 0)
    fallen = (tops - top) * bits
    shrink = tl.exp2(fallen)
    total = tl.sum(totals * shrink, 0)
    entropy = 0.0
    if ENTROPY:
        # A group of which nothing counts is as far below as can be, and adds nothing.
        moments = tl.where(totals == 0, 0.0, (moments + totals * fallen) * shrink)
        entropy = tl.log2(total) - tl.sum(moments, 0) / total
    return top, tl.log2(total), entropy


@triton.jit
def mixed_logits(teachers, teacher_strides, row, at, inside, shares, K: tl.constexpr, VECTOR: tl.constexpr):
    """Return the average of the teachers' logits at the columns ``at``."""
    for k in tl.static_range(K):
        pointer = teachers[k] + row * multiple(teacher_strides[k], VECTOR)
        t = tl.load(pointer + at, inside, float("-inf")).to(tl.float32)
        part = tl.where(shares[k] == 0, 0.0, t * shares[k])
        if k == 0:
            mixed = part
        else:
            mixed += part
    return mixed


@triton.jit
def answer(
    teachers,
    teacher_strides,
    row,
    at,
    inside,
    tops,
    logs,
    shares,
    bits,
    K: tl.constexpr,
    AVERAGE: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Return p, what the teachers say together, and its log2 at the columns ``at``, a block or one."""
    if AVERAGE == "logits":
        mixed = mixed_logits(teachers, teacher_strides, row, at, inside, shares, K, VECTOR)
        log_p = (mixed - tops[0]) * bits - logs[0]
    else:
        for k in tl.static_range(K):
            pointer = teachers[k] + row * multiple(teacher_strides[k], VECTOR)
            t = tl.load(pointer + at, inside, float("-inf")).to(tl.float32)
            log_part = (t - tops[k]) * bits - logs[k]
            if AVERAGE == "log probabilities":
                log_part += tl.log2(shares[k])
                log_p = log_part if k == 0 else log2_add(log_p, log_part)
            elif AVERAGE == "probabilities":
                part = tl.exp2(log_part) * shares[k]
                if k == 0:
                    p = part
                else:
                    p += part
            else:
                log_p = log_part
    if AVERAGE == "probabilities":
        log_p = log2_of(p)
    else:
        p = tl.exp2(log_p)
    return p, log_p


@triton.jit
def shares_of(entropies, teacher_weights, weight_stride, row, per_entropy, K: tl.constexpr, WEIGHTING: tl.constexpr):
    """Return what each teacher counts; the shares add up to one."""
    parts = ()
    if WEIGHTING == "entropy":
        least = entropies[0]
        for k in tl.static_range(1, K):
            least = tl.minimum(least, entropies[k])
    total = 0.0
    for k in tl.static_range(K):
        if WEIGHTING == "given":
            part = tl.load(teacher_weights + row * weight_stride + k).to(tl.float32)
        elif WEIGHTING == "entropy":
            part = tl.exp2((least - entropies[k]) * per_entropy)
        else:
            part = 1.0
        total += part
        parts = parts + (part,)
    shares = ()
    for k in tl.static_range(K):
        shares = shares + (parts[k] / total,)
    return shares
