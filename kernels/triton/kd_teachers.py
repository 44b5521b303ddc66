"""What the teachers of ``kd_loss`` say about some columns of a row that does not fit into registers."""

from __future__ import annotations

import triton
import triton.language as tl

from .columns import STAGES, grouped, lowest, nothing, stepped
from .kd_parts import log2_add, log2_of, multiple, weighted


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
