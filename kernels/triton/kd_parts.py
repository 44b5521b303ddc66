"""What the kernels of ``kd_loss`` share. Logarithms are to base 2 inside: that is what a GPU computes in one step.

NaN must come through, and a GPU's maximum drops it unless told otherwise: no sum here relies on one to carry it.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

SMALL = tl.constexpr(1e-37)
"""Stands for a probability of zero under a logarithm. A smaller literal would be no normal float32, so float64."""


@triton.jit
def weighted(p, values):
    """Return p * values, and zero where p is zero, whatever the value there."""
    return tl.where(p == 0, 0.0, p * values)


@triton.jit
def log2_of(p):
    """Return log2 p, and a finite number where p is zero or NaN: it is always multiplied by p, which tells NaN."""
    return tl.log2(tl.maximum(p, SMALL))


@triton.jit
def log2_between(p, q, share):
    """Return log2 of share p + (1 - share) q; a finite number where both are zero, NaN where one is."""
    between = share * p + (1.0 - share) * q
    return tl.log2(tl.maximum(between, SMALL, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def log2_add(a, b):
    """Return log2(2^a + 2^b)."""
    both = tl.maximum(a, b) + tl.log2(1.0 + tl.exp2(-tl.abs(a - b)))
    return tl.where(a == float("-inf"), b, tl.where(b == float("-inf"), a, both))


@triton.jit
def multiple(value, VECTOR: tl.constexpr):
    """Return ``value``, which is a multiple of VECTOR, in a form from which the compiler sees it."""
    if VECTOR > 1:
        value = value // VECTOR * VECTOR
    return value


@triton.jit
def label_of(labels, row, columns, ignore_index):
    """Return a row's label, -1 if it is none of the columns, and whether it counts."""
    label = tl.load(labels + row)
    known = (label >= 0) & (label < columns)
    return tl.where(known, label, -1).to(tl.int32), label != ignore_index


@triton.jit
def cross_entropy(label, live, at_label, others, log_total, ce_weight, smoothing, columns, SMOOTH: tl.constexpr):
    """Return cross entropy in nats times its weight, and what the gradient needs: weight, hard part, spread part.

    ``at_label`` is the label's logit and ``others`` the sum of all, both less the greatest; ``log_total`` is
    log2 sum exp(z - greatest). A label that is no column makes NaN.
    """
    weight = tl.where(live, ce_weight, 0.0)
    hard = 1.0
    loss = log_total * LN2
    spread = 0.0
    if SMOOTH:
        hard = 1.0 - smoothing
        spread = smoothing / columns
        loss -= spread * others
    loss = (loss - hard * tl.where(label < 0, float("nan"), at_label)) * ce_weight
    return tl.where(live, loss, 0.0), weight, weight * hard, weight * spread


@triton.jit
def decoupled_target(y_q, y_p, rest_q, rest_p):
    """Return TCKD in bits and the difference of the label's probabilities, from four base 2 logarithms."""
    p, rest = tl.exp2(y_p), tl.exp2(rest_p)
    return weighted(p, y_p - y_q) + weighted(rest, rest_p - rest_q), tl.exp2(y_q) - p
