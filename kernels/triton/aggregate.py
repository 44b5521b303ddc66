"""A step of ``aggregate_logits`` in Triton: one program a row, some clients at once.

The running mean is read and written once a step. Of K bfloat16 clients a step moves 2 K + 8 bytes an element (the first
2 K + 4); above 8,192 classes 4 K + 8, since clients are read twice there, unless their logits are just averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ..aggregate_settings import Aggregation
from .columns import GROUP, STAGES, grouped, lowest, nothing, stepped
from .kd_parts import LN2, multiple

ONE_PASS = 8192
"""Classes up to which a row stays in registers; above, it is read twice."""

BLOCK = 4096
"""Classes that are read at a time above that, sixteen a thread."""

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _bonus(total, heat_sum, inverse_entropy_temperature, BY: tl.constexpr):
    """Return the logarithm of a client's own weight, from sum e and sum e log2 e with e = exp((t - max t) / T)."""
    bonus = 0.0 * total
    if BY == "entropy":
        bonus = (heat_sum / total - tl.log2(total)) * LN2 * inverse_entropy_temperature
    if BY == "confidence":
        bonus = -tl.log2(total) * LN2
    return bonus


@triton.jit
def _share(log_weight, log_total):
    """Return a weight's share of the total; none where there is no weight, whatever the total."""
    return tl.where(log_weight == -INFINITY, 0.0, tl.exp(log_weight - log_total))


@triton.jit
def _part(values, share):
    """Return values * share, and zero where the share is zero, whatever the values."""
    return tl.where(share == 0.0, 0.0, values * share)


@triton.jit
def _aggregate_row(
    clients,
    weights,
    means,
    log_sums,
    strides,
    weight_stride,
    classes,
    heat,
    inverse_entropy_temperature,
    K: tl.constexpr,
    BY: tl.constexpr,
    OF_LOGITS: tl.constexpr,
    FIRST: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row in registers, one client after the other. ``heat`` is log2(e) / T."""
    classes = multiple(classes, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, BLOCK)
    there = o < classes
    mean = tl.zeros((BLOCK,), tl.float32)
    log_total = tl.full((), -INFINITY, tl.float32)
    if not FIRST:
        mean = tl.load(means + row * classes + o, there, 0.0)
        log_total = tl.load(log_sums + row)
    for k in tl.static_range(K):
        t = tl.load(clients[k] + row * multiple(strides[k], VECTOR) + o, there, -INFINITY).to(tl.float32)
        log_weight = tl.log(tl.load(weights + row * weight_stride + k))
        value = t
        if not OF_LOGITS or BY != "mean":
            top = tl.max(t, 0)
            warm = (t - top) * heat
            e = tl.exp2(warm)
            total = tl.sum(e, 0)
            heat_sum = 0.0
            if BY == "entropy":
                heat_sum = tl.sum(tl.where(e == 0.0, 0.0, e * warm), 0)
            bonus = _bonus(total, heat_sum, inverse_entropy_temperature, BY)
            log_weight = tl.where(log_weight == -INFINITY, -INFINITY, log_weight + bonus)
            if not OF_LOGITS:
                value = e * (1.0 / total)
                if BY == "votes":
                    chosen = tl.min(tl.where(t == top, o, BLOCK), 0)
                    value = tl.where(o == chosen, 1.0, 0.0) + 0.0 * total
        higher = tl.maximum(log_total, log_weight)
        base = tl.where(higher == -INFINITY, 0.0, higher)
        after = base + tl.log(tl.exp(log_total - base) + tl.exp(log_weight - base))
        mean = _part(mean, _share(log_total, after)) + _part(value, _share(log_weight, after))
        log_total = after
    tl.store(means + row * classes + o, mean, there)
    tl.store(log_sums + row, log_total)


@triton.jit
def _aggregate_columns(
    clients,
    weights,
    means,
    log_sums,
    strides,
    weight_stride,
    classes,
    heat,
    inverse_entropy_temperature,
    K: tl.constexpr,
    BY: tl.constexpr,
    OF_LOGITS: tl.constexpr,
    FIRST: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
):
    """First what each client's row adds up to, then the mean, block by block. Lanes are clients."""
    classes = multiple(classes, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    log_weights = tl.log(tl.load(weights + row * weight_stride + lane, lane < K, 0.0))
    tops = tl.zeros((LANES,), tl.float32)
    totals = tl.full((LANES,), 1.0, tl.float32)
    choices = tl.zeros((LANES,), tl.int32)
    if not OF_LOGITS or BY != "mean":
        heat_sums = tl.zeros((LANES,), tl.float32)
        for k in tl.static_range(K):
            start = clients[k] + row * multiple(strides[k], VECTOR)
            # Each group of columns that a thread holds on its own, so that in the loop no thread waits for another.
            group_tops = lowest(BLOCK)
            group_totals = nothing(BLOCK)
            group_sums = nothing(BLOCK)
            group_choices = tl.zeros((BLOCK // GROUP,), tl.int32)
            for first in tl.range(0, classes, BLOCK, num_stages=STAGES):
                o = first + grouped(BLOCK)
                t = tl.load(start + o, o < classes, -INFINITY).to(tl.float32)
                if BY == "votes":
                    highest = tl.max(t, 1)
                    place = tl.min(tl.where(t == highest[:, None], o, classes), 1)
                    group_choices = tl.where(highest > group_tops, place, group_choices)
                group_tops, fallen = stepped(group_tops, t)
                cooler = fallen * heat
                warm = (t - group_tops[:, None]) * heat
                e = tl.exp2(warm)
                if BY == "entropy":
                    group_sums = (group_sums + cooler * group_totals) * tl.exp2(cooler)
                    group_sums += tl.sum(tl.where(e == 0.0, 0.0, e * warm), 1)
                group_totals = group_totals * tl.exp2(cooler) + tl.sum(e, 1)
            top = tl.max(group_tops, 0)
            cooler = (group_tops - top) * heat
            total = tl.sum(group_totals * tl.exp2(cooler), 0)
            heat_sum = 0.0
            if BY == "entropy":
                # A group of which nothing counts is as far below as can be, and adds nothing.
                group_sums = tl.where(group_totals == 0.0, 0.0, (group_sums + cooler * group_totals) * tl.exp2(cooler))
                heat_sum = tl.sum(group_sums, 0)
            chosen = tl.min(tl.where(group_tops == top, group_choices, classes), 0)
            tops = tl.where(lane == k, top, tops)
            totals = tl.where(lane == k, total, totals)
            heat_sums = tl.where(lane == k, heat_sum, heat_sums)
            choices = tl.where(lane == k, chosen, choices)
        bonus = _bonus(totals, heat_sums, inverse_entropy_temperature, BY)
        log_weights = tl.where(log_weights == -INFINITY, -INFINITY, log_weights + bonus)
    log_total = tl.full((), -INFINITY, tl.float32)
    if not FIRST:
        log_total = tl.load(log_sums + row)
    higher = tl.maximum(log_total, tl.max(log_weights, 0))
    base = tl.where(higher == -INFINITY, 0.0, higher)
    after = base + tl.log(tl.exp(log_total - base) + tl.sum(tl.exp(log_weights - base), 0))
    shares = _share(log_weights, after)
    kept = _share(log_total, after)
    if not OF_LOGITS and BY != "votes":
        shares = tl.where(shares == 0.0, 0.0, shares / totals)
    if BY == "votes":
        shares = shares + tl.where(shares == 0.0, 0.0, 0.0 * totals)  # NaN for who says NaN
    # From the last block to the first: what was read last may still be in the cache.
    last = (classes - 1) // BLOCK * BLOCK
    for first in tl.range(0, classes, BLOCK, num_stages=STAGES):
        o = last - first + grouped(BLOCK)
        mean = tl.zeros((BLOCK // GROUP, GROUP), tl.float32)
        if not FIRST:
            mean = _part(tl.load(means + row * classes + o, o < classes, 0.0), kept)
        for k in tl.static_range(K):
            share = tl.sum(tl.where(lane == k, shares, 0.0), 0)
            if BY == "votes":
                hit = o == tl.sum(tl.where(lane == k, choices, 0), 0)
                mean += tl.where(hit, 1.0, 0.0) * share
            else:
                start = clients[k] + row * multiple(strides[k], VECTOR)
                value = tl.load(start + o, o < classes, -INFINITY).to(tl.float32)
                if not OF_LOGITS:
                    value = tl.exp2((value - tl.sum(tl.where(lane == k, tops, 0.0), 0)) * heat)
                mean += _part(value, share)
        tl.store(means + row * classes + o, mean, o < classes)
    tl.store(log_sums + row, after)


def aggregate_step(
    mean: torch.Tensor,
    log_weights: torch.Tensor,
    clients: Sequence[torch.Tensor],
    weights: torch.Tensor,
    settings: Aggregation,
    first: bool,
) -> None:
    """Do what :func:`codistill.kernels.reference.aggregate.aggregate_step` does; sums are float32."""
    count, classes = mean.shape
    if not count:
        return
    rows = [client if client.stride(1) == 1 else client.contiguous() for client in clients]
    strides = tuple(row.stride(0) for row in rows)
    weights = weights.float().contiguous()
    constants: dict[str, Any] = {
        "K": len(rows),
        "BY": "mean" if settings.by == "sharpened" else settings.by,
        "OF_LOGITS": settings.space == "logits",
        "FIRST": first,
        "VECTOR": math.gcd(8, classes, *strides),
    }
    arguments = (
        tuple(rows),
        weights,
        mean,
        log_weights,
        strides,
        weights.stride(0) if weights.dim() == 2 else 0,
        classes,
        math.log2(math.e) / settings.temperature,
        1 / settings.entropy_temperature,
    )
    block = triton.next_power_of_2(classes)
    with torch.cuda.device_of(mean):
        if block <= ONE_PASS:
            _aggregate_row[(count,)](*arguments, **constants, BLOCK=block, num_warps=max(1, block // 512))
        else:
            lanes = max(2, triton.next_power_of_2(len(rows)))
            _aggregate_columns[(count,)](*arguments, **constants, BLOCK=BLOCK, LANES=lanes, num_warps=8)
