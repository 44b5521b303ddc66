"""``kd_loss`` for rows that fit into registers: one program a row, everything read once and written once."""

from __future__ import annotations

import triton
import triton.language as tl

from .kd_parts import (
    LN2,
    LOG2E,
    cross_entropy,
    decoupled_target,
    label_of,
    log2_add,
    log2_between,
    log2_of,
    multiple,
    weighted,
)


@triton.jit
def _softmax(values, scale):
    """Return log2 softmax(values) in parts, for values whose base e exponent is ``scale`` / LOG2E times them.

    The parts are (c, e, s): log2 softmax = c - log2 s, softmax = e / s, s a scalar.
    """
    centred = (values - tl.max(values, 0)) * scale
    powers = tl.exp2(centred)
    return centred, powers, tl.sum(powers, 0)


@triton.jit
def _ensemble(
    loaded,
    teachers,
    teacher_strides,
    teacher_weights,
    weight_stride,
    row,
    at,
    inside,
    bits,
    per_entropy,
    K: tl.constexpr,
    AVERAGE: tl.constexpr,
    WEIGHTING: tl.constexpr,
    AHEAD: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Return p [BLOCK], what the teachers say together, and its log2. Each teacher is read once."""
    for k in tl.static_range(K):
        if AHEAD:
            said = loaded[k].to(tl.float32)
        else:
            pointer = teachers[k] + row * multiple(teacher_strides[k], VECTOR)
            said = tl.load(pointer + at, inside, float("-inf")).to(tl.float32)
        centred, powers, total = _softmax(said, bits)
        # How much this teacher counts: ``share`` times, of which ``log_share`` is the log2.
        share = 1.0
        log_share = 0.0
        if WEIGHTING == "given":
            share = tl.load(teacher_weights + row * weight_stride + k).to(tl.float32)
            log_share = tl.log2(share)
        if WEIGHTING == "entropy":
            entropy = tl.log2(total) - tl.sum(weighted(powers, centred), 0) / total
            log_share = -entropy * per_entropy
            # Relative to the greatest share so far, so that sharp weights cannot all underflow.
            if k == 0:
                greatest = log_share
            else:
                greater = tl.maximum(greatest, log_share)
                share = tl.exp2(log_share - greater)
                shrink = tl.exp2(greatest - greater)
                greatest = greater
        if AVERAGE == "log probabilities":
            part = centred - tl.log2(total) + log_share
        elif AVERAGE == "logits":
            part = tl.where(share == 0, 0.0, said * share)
        else:
            part = powers * (share / total)
        if k == 0:
            mixed = part
            shares = share
            log_shares = log_share
        elif AVERAGE == "log probabilities":
            mixed = log2_add(mixed, part)
            log_shares = log2_add(log_shares, log_share)
        elif WEIGHTING == "entropy":
            mixed = tl.where(shrink == 0, 0.0, mixed * shrink) + part
            shares = shares * shrink + share
        else:
            mixed += part
            shares += share
    if AVERAGE == "log probabilities":
        log_p = mixed - log_shares
        p = tl.exp2(log_p)
    elif AVERAGE == "probabilities":
        p = mixed * (1.0 / shares)
        log_p = log2_of(p)
    else:
        if AVERAGE == "logits":
            centred, powers, total = _softmax(mixed / shares, bits)
        p = powers * (1.0 / total)
        log_p = centred - tl.log2(total)
    return p, log_p


@triton.jit
def _without_label(log_p, hit):
    """Return for the classes beside the label: log2 of their probability together, their shares of it, log2 of those.

    Those shares are zero where the others have no mass at all (one class).
    """
    others = tl.where(hit, float("-inf"), log_p)
    top = tl.maximum(tl.max(others, 0), -1e30)
    powers = tl.exp2(others - top)
    total = tl.sum(powers, 0)
    log_total = top + tl.log2(total)
    return log_total, tl.where(total == 0, 0.0, powers / total), others - log_total


@triton.jit
def kd_row(
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
    AHEAD: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Loss of a row and its gradient; the launcher explains the arguments. ``out`` may be ``student``."""
    columns = multiple(columns, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    # Beyond the last column lie classes of probability zero, for student and teachers alike.
    z = tl.load(student + row * multiple(student_stride, VECTOR) + at, inside, float("-inf"))
    loaded = ()
    if AHEAD:  # all reads under way before the first reduction waits for one of them
        for k in tl.static_range(K):
            pointer = teachers[k] + row * multiple(teacher_strides[k], VECTOR)
            loaded = loaded + (tl.load(pointer + at, inside, float("-inf")),)
    p, log_p = _ensemble(
        loaded,
        teachers,
        teacher_strides,
        teacher_weights,
        weight_stride,
        row,
        at,
        inside,
        bits,
        per_entropy,
        K,
        AVERAGE,
        WEIGHTING,
        AHEAD,
        VECTOR,
    )
    z = z.to(tl.float32)
    centred, powers, total = _softmax(z, bits)
    log_q = centred - tl.log2(total)
    q = powers * (1.0 / total)

    if LABELS:
        label, live = label_of(labels, row, columns, ignore_index)
        hit = at == label
    if MODE == "forward":
        distance = tl.sum(weighted(p, log_p - log_q), 0) * LN2
        slope = q - p
    elif MODE == "reverse":
        terms = weighted(q, log_q - log_p)
        bits_apart = tl.sum(terms, 0)
        distance = bits_apart * LN2
        slope = (terms - q * bits_apart) * LN2
    elif MODE == "jsd":
        log_m = log2_between(p, q, jsd_weight)
        terms = weighted(q, log_q - log_m)
        from_student = tl.sum(terms, 0)
        from_teachers = tl.sum(weighted(p, log_p - log_m), 0)
        distance = (jsd_weight * from_teachers + (1.0 - jsd_weight) * from_student) * LN2
        slope = (terms - q * from_student) * ((1.0 - jsd_weight) * LN2)
    else:
        rest_q, others_q, log_others_q = _without_label(log_q, hit)
        rest_p, others_p, log_others_p = _without_label(log_p, hit)
        y_q = tl.sum(tl.where(hit, log_q, 0.0), 0)
        y_p = tl.sum(tl.where(hit, log_p, 0.0), 0)
        target, gap = decoupled_target(y_q, y_p, rest_q, rest_p)
        other = tl.sum(weighted(others_p, log_others_p - log_others_q), 0)
        distance = tl.where(live, (target * target_weight + other * other_weight) * LN2, 0.0)
        slope = tl.where(hit, gap, -gap * others_q) * target_weight + (others_q - others_p) * other_weight

    factor = scale
    loss = distance * (kd_weight * temperature * temperature)
    if SAMPLES:
        sample_weight = tl.load(sample_weights + row).to(tl.float32)
        factor *= sample_weight
    gradient = slope * (kd_weight * temperature * factor)
    if CE:
        apart = z - tl.max(z, 0)
        powers = tl.exp2(apart * LOG2E)
        total = tl.sum(powers, 0)
        at_label = tl.sum(tl.where(hit, apart, 0.0), 0)
        sum_apart = 0.0
        if SMOOTH:
            sum_apart = tl.sum(tl.where(inside, apart, 0.0), 0)
        ce, weight, hard, spread = cross_entropy(
            label, live, at_label, sum_apart, tl.log2(total), ce_weight, smoothing, columns, SMOOTH
        )
        loss += ce
        gradient += powers * (weight * factor / total) - tl.where(hit, hard * factor, 0.0)
        if SMOOTH:
            gradient -= spread * factor
    if MODE == "decoupled":  # an ignored row is out altogether, NaN or not
        gradient = tl.where(live, gradient, 0.0)
    if SAMPLES:
        loss *= sample_weight
    tl.store(rows + row, loss)
    if GRADIENT:
        tl.store(out + row * multiple(out_stride, VECTOR) + at, gradient.to(out.dtype.element_ty), inside)
