"""A payload and its loss as their documentation writes them, in float64: the tests' oracle."""

import torch
import torch.nn.functional as F


def meaning(packed):
    """The probabilities of the kept classes [N, k] and of all others together [N]."""
    values = packed.values.double()
    if packed.encoding == "int8":
        ratios = torch.exp(packed.scales.double()[:, None] * (values - 127))
        ratios[packed.values == -128] = 0
    else:
        ratios = values
    kept = torch.sigmoid(-packed.tails.double())
    return kept[:, None] * ratios / ratios.sum(1, keepdim=True), torch.sigmoid(packed.tails.double())


def others(values, indices):
    """The columns of ``values`` [N, V] that are not in ``indices`` [N, k]: [N, V - k]."""
    left = torch.ones_like(values, dtype=torch.bool).scatter(1, indices.long(), False)
    return values[left].view(values.shape[0], -1)


def exact_rows(student, packed, labels=None, *, ce_weight=1.0, kd_weight=1.0, sample_weights=None, ignore_index=-100):
    """The loss of each row [N]; differentiable by a float64 student [N, V]."""
    z, temperature = student.double(), packed.temperature
    p, p_tail = meaning(packed)
    q = F.softmax(z / temperature, 1)
    kept, tail = q.gather(1, packed.indices.long()), others(q, packed.indices).sum(1)
    distance = (torch.special.xlogy(p, p) - torch.special.xlogy(p, kept)).sum(1)
    distance = distance + torch.special.xlogy(p_tail, p_tail) - torch.special.xlogy(p_tail, tail)
    loss = kd_weight * temperature**2 * distance
    if labels is not None:
        loss = loss + ce_weight * F.cross_entropy(z, labels, reduction="none", ignore_index=ignore_index)
    return loss if sample_weights is None else loss * sample_weights.double()


def exact(student, packed, labels=None, *, reduction="mean", **settings):
    """The loss and its gradient by the student."""
    leaf = student.detach().double().requires_grad_()
    rows = exact_rows(leaf, packed, labels, **settings)
    if reduction == "mean":
        loss = rows.sum() / max(len(rows), 1)
    elif reduction == "weighted_mean":
        loss = rows.sum() / settings["sample_weights"].double().sum()
    else:
        loss = rows.sum() if reduction == "sum" else rows
    loss.sum().backward()
    return loss.detach(), leaf.grad
