"""``sparse_kd_loss`` in Triton: one program a row, the payload decoded in registers, loss and gradient in one launch.

The tail needs a sum over the classes that were not kept. Which those are is told by bits made in registers, a word for
32 classes: no marks go through memory, and nothing is subtracted from a sum over all. The gradient is written as if no
class had been kept, and then the k kept ones over it.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..sparse_settings import SparseKd
from .columns import STAGES, stepped
from .kd_parts import LN2, LOG2E, multiple

ONE_PASS = 8192
"""Classes up to which a row stays in registers; above, it is read twice."""

BLOCK = 2048
"""Classes that are read at a time above that."""

MOST_KEPT = 8192
"""Kept classes that a program can hold."""

ENCODINGS = {torch.int8: "int8", torch.float16: "float16", torch.float8_e4m3fn: "float8"}

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _of_others(indices, row, first, z, columns, k, WORDS: tl.constexpr, CHUNK: tl.constexpr):
    """Return ``z`` [WORDS, 32], classes ``first`` and on, with -inf where the class was kept."""
    word = first // 32 + tl.arange(0, WORDS)
    bits = tl.zeros((WORDS,), tl.int32)
    for start in range(0, k, CHUNK):
        lane = start + tl.arange(0, CHUNK)
        at = tl.load(indices + row * k + lane, lane < k, -1)  # -1 is in no word
        hit = (at >> 5)[None, :] == word[:, None]
        bits |= tl.sum(tl.where(hit, (1 << (at & 31))[None, :], 0), 1)
    was_kept = ((bits[:, None] >> (columns & 31)) & 1) != 0
    return tl.where(was_kept, -INFINITY, z)


@triton.jit
def float8_value(code):
    """Return what the bits of a float8 (e4m3) without a sign say; 0 to 126 in int32, 127 would be NaN."""
    normal = ((code << 20) + (120 << 23)).to(tl.float32, bitcast=True)
    return tl.where(code < 8, code.to(tl.float32) * 0.001953125, normal)


@triton.jit
def _decoded(values, scales, tails, row, lane, k, ENCODING: tl.constexpr):
    """Return log p and p of the kept classes, and log p and p of the tail; codistill.kernels.Packed says how."""
    value = tl.load(values + row * k + lane, lane < k, 0)
    tail = tl.load(tails + row).to(tl.float32)
    if ENCODING == "int8":
        step = tl.load(scales + row).to(tl.float32)
        ratio = tl.where(value == -128, -INFINITY, (value.to(tl.float32) - 127.0) * step)
    elif ENCODING == "float8":
        ratio = tl.log(float8_value(value.to(tl.int32)))
    else:
        ratio = tl.log(value.to(tl.float32))
    ratio = tl.where(lane < k, ratio, -INFINITY)
    ratio -= tl.max(ratio, 0)
    spread = tl.log(1.0 + tl.exp(-tl.abs(tail)))
    log_p = ratio - tl.log(tl.sum(tl.exp(ratio), 0)) - tl.maximum(tail, 0.0) - spread
    log_tail = tl.minimum(tail, 0.0) - spread
    return log_p, tl.exp(log_p), log_tail, tl.exp(log_tail)


@triton.jit
def _sparse_kd(
    student,
    indices,
    values,
    scales,
    tails,
    labels,
    weights,
    losses,
    slopes,
    row_stride,
    classes,
    k,
    heat,
    ce_weight,
    kd_slope,
    kd_weight,
    scale,
    WORDS: tl.constexpr,
    KEPT: tl.constexpr,
    CHUNK: tl.constexpr,
    VECTOR: tl.constexpr,
    LOOPED: tl.constexpr,
    ENCODING: tl.constexpr,
    HAS_LABELS: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    IGNORED: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    """``heat`` is log2(e) / T, ``kd_slope`` kd_weight T, ``kd_weight`` has T^2 in it, ``scale`` is the reduction's."""
    classes = multiple(classes, VECTOR)
    row_stride = multiple(row_stride, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WORDS)[:, None] * 32 + tl.arange(0, 32)[None, :]
    start = student + row * row_stride

    if LOOPED:
        # Each word of 32 classes on its own, so that no step waits for all threads to have their say.
        tops = tl.full((WORDS,), -1e30, tl.float32)
        tops_others = tl.full((WORDS,), -1e30, tl.float32)
        totals = tl.zeros((WORDS,), tl.float32)
        totals_cold = tl.zeros((WORDS,), tl.float32)
        totals_others = tl.zeros((WORDS,), tl.float32)
        for first in tl.range(0, classes, WORDS * 32, num_stages=STAGES):
            o = first + columns
            z = tl.load(start + o, o < classes, -INFINITY).to(tl.float32)
            tops, fallen = stepped(tops, z)
            apart = z - tops[:, None]
            totals = totals * tl.exp2(fallen * heat) + tl.sum(tl.exp2(apart * heat), 1)
            if HAS_LABELS:
                totals_cold = totals_cold * tl.exp2(fallen * LOG2E) + tl.sum(tl.exp2(apart * LOG2E), 1)
            z = _of_others(indices, row, first, z, o, k, WORDS, CHUNK)
            tops_others, fallen = stepped(tops_others, z)
            totals_others = totals_others * tl.exp2(fallen * heat)
            totals_others += tl.sum(tl.exp2((z - tops_others[:, None]) * heat), 1)
        top = tl.max(tops, 0)
        total = tl.sum(totals * tl.exp2((tops - top) * heat), 0)
        total_cold = tl.sum(totals_cold * tl.exp2((tops - top) * LOG2E), 0)
        base_others = tl.max(tops_others, 0)
        total_others = tl.sum(totals_others * tl.exp2((tops_others - base_others) * heat), 0)
    else:
        z = tl.load(start + columns, columns < classes, -INFINITY).to(tl.float32)
        top = tl.max(z)
        hot = tl.exp2((z - top) * heat)
        total = tl.sum(hot)
        total_cold = 0.0
        if HAS_LABELS:
            cold = tl.exp2((z - top) * LOG2E)
            total_cold = tl.sum(cold)
        others = _of_others(indices, row, 0, z, columns, k, WORDS, CHUNK)
        top_others = tl.max(others)
        base_others = tl.where(top_others == -INFINITY, 0.0, top_others)
        rest = tl.exp2((others - base_others) * heat)
        total_others = tl.sum(rest)

    lane = tl.arange(0, KEPT)
    at = tl.load(indices + row * k + lane, lane < k, -1)
    there = (at >= 0) & (at < classes)
    # A class that is not there makes the row NaN: nobody's memory is read, and nobody is told a wrong number.
    zk = tl.load(start + at, there, float("nan")).to(tl.float32)
    zk = tl.where(lane < k, zk, -INFINITY)
    log_p, p, log_tail, p_tail = _decoded(values, scales, tails, row, lane, k, ENCODING)
    log_q = ((zk - top) * heat - tl.log2(total)) * LN2
    log_q_tail = ((base_others - top) * heat + tl.log2(total_others) - tl.log2(total)) * LN2
    distance = tl.sum(tl.where(p == 0.0, 0.0, p * (log_p - log_q)), 0)
    distance += tl.where(p_tail == 0.0, 0.0, p_tail * (log_tail - log_q_tail))
    loss = kd_weight * distance
    label = -1
    ce = 0.0
    if HAS_LABELS:
        label = tl.load(labels + row)
        live = label != IGNORED
        zy = tl.load(start + label, live & (label >= 0) & (label < classes), float("nan")).to(tl.float32)
        loss += tl.where(live, ce_weight * (top - zy + tl.log(total_cold)), 0.0)
        ce = tl.where(live, ce_weight, 0.0)
    if HAS_WEIGHTS:
        weight = tl.load(weights + row).to(tl.float32)
        loss *= weight
        scale *= weight
    tl.store(losses + row, loss)

    if GRADIENT:
        by_all = scale * kd_slope / total
        by_others = tl.where(total_others > 0.0, scale * kd_slope * p_tail / total_others, 0.0)
        by_cold = 0.0
        ce = scale * ce
        if HAS_LABELS:
            by_cold = ce / total_cold
        out = slopes + row * classes
        if LOOPED:
            # From the last block to the first: what was read last may still be in the cache.
            last = (classes - 1) // (WORDS * 32) * (WORDS * 32)
            for first in tl.range(0, classes, WORDS * 32, num_stages=STAGES):
                o = last - first + columns
                z = tl.load(start + o, o < classes, -INFINITY).to(tl.float32)
                slope = by_all * tl.exp2((z - top) * heat)
                # Kept classes may lie far above the others; what is written for them here is replaced below.
                slope -= by_others * tl.exp2(tl.minimum((z - base_others) * heat, 0.0))
                if HAS_LABELS:
                    slope += by_cold * tl.exp2((z - top) * LOG2E) - tl.where(o == label, ce, 0.0)
                tl.store(out + o, slope.to(slopes.dtype.element_ty), o < classes)
        else:
            slope = by_all * hot - by_others * rest
            if HAS_LABELS:
                slope += by_cold * cold - tl.where(columns == label, ce, 0.0)
            tl.store(out + columns, slope.to(slopes.dtype.element_ty), columns < classes)
        kept = by_all * tl.exp2((zk - top) * heat) - scale * kd_slope * p
        if HAS_LABELS:
            kept += by_cold * tl.exp2((zk - top) * LOG2E) - tl.where(at == label, ce, 0.0)
        tl.debug_barrier()  # the kept classes' own values must come after the row's
        tl.store(out + at, kept.to(slopes.dtype.element_ty), there)


def sparse_kd(
    student: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None,
    tails: torch.Tensor,
    labels: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: SparseKd,
    scale: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.sparse.sparse_kd` does.

    Raises ``ValueError`` for more than ``MOST_KEPT`` kept classes.
    """
    count, classes = student.shape
    k = indices.shape[1]
    if k > MOST_KEPT:
        raise ValueError(f"sparse_kd_loss: packed keeps {k} classes a row; the triton back end holds {MOST_KEPT}")
    student = student if student.stride(1) == 1 else student.contiguous()
    loss = torch.empty(count, dtype=torch.float32, device=student.device)
    slope = torch.empty(count if gradient else 0, classes, dtype=student.dtype, device=student.device)
    if count == 0:
        return loss, slope
    width = max(32, triton.next_power_of_2(classes))
    looped = width > ONE_PASS
    block = BLOCK if looped else width
    kept = triton.next_power_of_2(k)
    bits = values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values
    with torch.cuda.device_of(student):
        _sparse_kd[(count,)](
            student,
            indices.contiguous(),
            bits.contiguous(),
            tails if scales is None else scales.contiguous(),
            tails.contiguous(),
            tails if labels is None else labels.contiguous(),
            tails if sample_weights is None else sample_weights.contiguous(),
            loss,
            slope,
            student.stride(0),
            classes,
            k,
            math.log2(math.e) / settings.temperature,
            settings.ce_weight,
            settings.kd_weight * settings.temperature,
            settings.kd_weight * settings.temperature**2,
            scale,
            WORDS=block // 32,
            KEPT=max(2, kept),
            CHUNK=min(32, max(2, kept)),
            VECTOR=math.gcd(8, classes, student.stride(0)),
            LOOPED=looped,
            ENCODING=ENCODINGS[values.dtype],
            HAS_LABELS=labels is not None,
            HAS_WEIGHTS=sample_weights is not None,
            IGNORED=settings.ignore_index,
            GRADIENT=gradient,
            num_warps=max(1, block // 512),
        )
    return loss, slope
