"""``kd_loss`` for rows too long for registers: one program a row, which goes over its columns two to four times.

First the normalisers of each teacher, of the student and, where logits are averaged, of the average; then, where the
gradient needs a sum over the row (reverse, jsd, decoupled), that sum; last loss and gradient. Each group of columns
that a thread holds has its own sums and its own greatest value until after the loop, so that in it no thread waits for
another. The launcher explains the arguments.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .columns import STAGES, grouped, lowest, nothing, stepped
from .kd_parts import LN2, LOG2E, cross_entropy, decoupled_target, label_of, log2_between, multiple, weighted
from .kd_teachers import answer, mixed_logits, normaliser, shares_of


@triton.jit
def kd_columns(
    student,
    teachers,
    labels,
    teacher_weights,
    sample_weights,
    rows,
    out,
    columns,
    student_stride,
    teacher_strides,
    weight_stride,
    out_stride,
    bits,
    per_entropy,
    ce_weight,
    kd_weight,
    temperature,
    jsd_weight,
    target_weight,
    other_weight,
    smoothing,
    ignore_index,
    scale,
    K: tl.constexpr,
    MODE: tl.constexpr,
    AVERAGE: tl.constexpr,
    WEIGHTING: tl.constexpr,
    LABELS: tl.constexpr,
    CE: tl.constexpr,
    SAMPLES: tl.constexpr,
    SMOOTH: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Loss of a row and its gradient. ``out`` may be ``student``: each column is read for the last time before."""
    columns = multiple(columns, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    lanes = grouped(BLOCK)
    z_row = student + row * multiple(student_stride, VECTOR)
    out_row = out + row * multiple(out_stride, VECTOR)

    # The normalisers: of each teacher, of their average, of the student.
    tops = ()
    logs = ()
    entropies = ()
    if AVERAGE != "logits" or WEIGHTING == "entropy":
        for k in tl.static_range(K):
            pointer = teachers[k] + row * multiple(teacher_strides[k], VECTOR)
            t_top, t_log, entropy = normaliser(pointer, columns, bits, WEIGHTING == "entropy", BLOCK)
            tops = tops + (t_top,)
            logs = logs + (t_log,)
            entropies = entropies + (entropy,)
    shares = shares_of(entropies, teacher_weights, weight_stride, row, per_entropy, K, WEIGHTING)
    if AVERAGE == "logits":
        mixed_tops = lowest(BLOCK)
        totals = nothing(BLOCK)
        for start in tl.range(0, columns, BLOCK, num_stages=STAGES):
            at = start + lanes
            mixed = mixed_logits(teachers, teacher_strides, row, at, at < columns, shares, K, VECTOR)
            mixed_tops, fallen = stepped(mixed_tops, mixed)
            powers = tl.exp2((mixed - mixed_tops[:, None]) * bits)
            totals = totals * tl.exp2(fallen * bits) + tl.sum(powers, 1)
        mixed_top = tl.max(mixed_tops, 0)
        tops = (mixed_top,)
        logs = (tl.log2(tl.sum(totals * tl.exp2((mixed_tops - mixed_top) * bits), 0)),)
    group_tops = lowest(BLOCK)
    totals = nothing(BLOCK)
    hard_totals = nothing(BLOCK)  # of exp(z), for the cross entropy
    sums = nothing(BLOCK)
    for start in tl.range(0, columns, BLOCK, num_stages=STAGES):
        at = start + lanes
        z = tl.load(z_row + at, at < columns, float("-inf")).to(tl.float32)
        group_tops, fallen = stepped(group_tops, z)
        apart = z - group_tops[:, None]
        totals = totals * tl.exp2(fallen * bits) + tl.sum(tl.exp2(apart * bits), 1)
        if CE:
            hard_totals = hard_totals * tl.exp2(fallen * LOG2E) + tl.sum(tl.exp2(apart * LOG2E), 1)
            if SMOOTH:
                sums += tl.sum(tl.where(at < columns, z, 0.0), 1)
    top = tl.max(group_tops, 0)
    log_total = tl.log2(tl.sum(totals * tl.exp2((group_tops - top) * bits), 0))

    # What loss and gradient need of the label, before any gradient overwrites it.
    factor = scale
    if SAMPLES:
        sample_weight = tl.load(sample_weights + row).to(tl.float32)
        factor *= sample_weight
    loss = 0.0
    if LABELS:
        label, live = label_of(labels, row, columns, ignore_index)
        at_label = tl.load(z_row + label, label >= 0, 0.0).to(tl.float32) - top
    if CE:
        hard_total = tl.sum(hard_totals * tl.exp2((group_tops - top) * LOG2E), 0)
        sum_apart = 0.0
        if SMOOTH:
            sum_apart = tl.sum(sums, 0) - top * columns
        loss, weight, hard, spread = cross_entropy(
            label, live, at_label, sum_apart, tl.log2(hard_total), ce_weight, smoothing, columns, SMOOTH
        )
        hard *= factor
        spread *= factor
        soft = weight * factor / hard_total

    # Sums over the row that the gradient of these distances needs.
    if MODE == "reverse" or MODE == "jsd":
        sums = nothing(BLOCK)
        for start in tl.range(0, columns, BLOCK, num_stages=STAGES):
            at = start + lanes
            inside = at < columns
            log_q = (tl.load(z_row + at, inside, float("-inf")).to(tl.float32) - top) * bits - log_total
            q = tl.exp2(log_q)
            p, log_p = answer(teachers, teacher_strides, row, at, inside, tops, logs, shares, bits, K, AVERAGE, VECTOR)
            if MODE == "jsd":
                log_p = log2_between(p, q, jsd_weight)
            sums += tl.sum(weighted(q, log_q - log_p), 1)
        from_student = tl.sum(sums, 0)
    if MODE == "decoupled":
        tops_q = lowest(BLOCK)
        tops_p = lowest(BLOCK)
        totals_q = nothing(BLOCK)
        totals_p = nothing(BLOCK)
        for start in tl.range(0, columns, BLOCK, num_stages=STAGES):
            at = start + lanes
            inside = at < columns
            log_q = (tl.load(z_row + at, inside, float("-inf")).to(tl.float32) - top) * bits - log_total
            p, log_p = answer(teachers, teacher_strides, row, at, inside, tops, logs, shares, bits, K, AVERAGE, VECTOR)
            log_q = tl.where(at == label, float("-inf"), log_q)
            log_p = tl.where(at == label, float("-inf"), log_p)
            tops_q, fallen = stepped(tops_q, log_q)
            totals_q = totals_q * tl.exp2(fallen) + tl.sum(tl.exp2(log_q - tops_q[:, None]), 1)
            tops_p, fallen = stepped(tops_p, log_p)
            totals_p = totals_p * tl.exp2(fallen) + tl.sum(tl.exp2(log_p - tops_p[:, None]), 1)
        rest_top_q = tl.max(tops_q, 0)
        rest_top_p = tl.max(tops_p, 0)
        rest_q = rest_top_q + tl.log2(tl.sum(totals_q * tl.exp2(tops_q - rest_top_q), 0))
        rest_p = rest_top_p + tl.log2(tl.sum(totals_p * tl.exp2(tops_p - rest_top_p), 0))
        y_p, log_y_p = answer(
            teachers, teacher_strides, row, label, label >= 0, tops, logs, shares, bits, K, AVERAGE, VECTOR
        )
        target, gap = decoupled_target(at_label * bits - log_total, log_y_p, rest_q, rest_p)

    # Loss and gradient, from the last block to the first: what was read last may still be in the cache.
    sums = nothing(BLOCK)
    last = (columns - 1) // BLOCK * BLOCK
    for start in tl.range(0, columns, BLOCK, num_stages=STAGES):
        at = last - start + lanes
        inside = at < columns
        apart = tl.load(z_row + at, inside, float("-inf")).to(tl.float32) - top
        log_q = apart * bits - log_total
        q = tl.exp2(log_q)
        p, log_p = answer(teachers, teacher_strides, row, at, inside, tops, logs, shares, bits, K, AVERAGE, VECTOR)
        if MODE == "forward":
            sums += tl.sum(weighted(p, log_p - log_q), 1)
            slope = q - p
        elif MODE == "reverse":
            slope = (weighted(q, log_q - log_p) - q * from_student) * LN2
        elif MODE == "jsd":
            log_m = log2_between(p, q, jsd_weight)
            sums += tl.sum(weighted(p, log_p - log_m), 1)
            slope = (weighted(q, log_q - log_m) - q * from_student) * ((1.0 - jsd_weight) * LN2)
        else:
            hit = at == label
            log_others_q = tl.where(hit, float("-inf"), log_q - rest_q)
            log_others_p = tl.where(hit, float("-inf"), log_p - rest_p)
            others_q = tl.exp2(log_others_q)
            others_p = tl.exp2(log_others_p)
            sums += tl.sum(weighted(others_p, log_others_p - log_others_q), 1)
            slope = tl.where(hit, gap, -gap * others_q) * target_weight + (others_q - others_p) * other_weight
        if GRADIENT:
            gradient = slope * (kd_weight * temperature * factor)
            if CE:
                gradient += tl.exp2(apart * LOG2E) * soft - tl.where(at == label, hard, 0.0)
                if SMOOTH:
                    gradient -= spread
            if MODE == "decoupled":  # an ignored row is out altogether, NaN or not
                gradient = tl.where(live, gradient, 0.0)
            tl.store(out_row + at, gradient.to(out.dtype.element_ty), inside)
    distance = tl.sum(sums, 0)
    if MODE == "reverse":
        distance = from_student
    elif MODE == "jsd":
        distance = jsd_weight * distance + (1.0 - jsd_weight) * from_student
    elif MODE == "decoupled":
        distance = tl.where(live, target * target_weight + distance * other_weight, 0.0)
    loss += distance * (LN2 * kd_weight * temperature * temperature)
    if SAMPLES:
        loss *= sample_weight
    tl.store(rows + row, loss)
