"""``kd_loss`` as the papers write it, in float64: the tests' oracle. It shares no line with the library."""

import torch
import torch.nn.functional as F


def answer(teachers, temperature, average, teacher_weights, entropy_temperature):
    """The teachers' common answer [N, V]."""
    each = [F.softmax(t.double() / temperature, 1) for t in teachers]
    rows, count = each[0].shape[0], len(each)
    if teacher_weights is None:
        weights = torch.ones(rows, count, dtype=torch.float64)
    elif isinstance(teacher_weights, str):
        entropies = torch.stack([-torch.special.xlogy(p, p).sum(1) for p in each], 1)
        weights = torch.exp(-entropies / entropy_temperature)
    else:
        weights = teacher_weights.double().expand(rows, count)
    weights = weights / weights.sum(1, keepdim=True)
    if average == "probabilities":
        return sum(weights[:, k, None] * each[k] for k in range(count))
    return F.softmax(sum(weights[:, k, None] * teachers[k].double() for k in range(count)) / temperature, 1)


def kl(p, q):
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1)


def decoupled(p, q, labels, target_weight, other_weight):
    """Zhao et al. 2022, eq. 7, with the label's column taken out row by row."""
    rows = []
    for i in range(len(p)):
        y, rest = labels[i], torch.arange(p.shape[1]) != labels[i]
        two_p, two_q = torch.stack([p[i, y], p[i, rest].sum()]), torch.stack([q[i, y], q[i, rest].sum()])
        tckd = kl(two_p[None], two_q[None])[0]
        nckd = kl((p[i, rest] / p[i, rest].sum())[None], (q[i, rest] / q[i, rest].sum())[None])[0]
        rows.append(target_weight * tckd + other_weight * nckd)
    return torch.stack(rows)


def exact_rows(
    student,
    teachers,
    labels=None,
    *,
    temperature=1.0,
    ce_weight=1.0,
    kd_weight=1.0,
    mode="forward",
    average="probabilities",
    teacher_weights=None,
    entropy_temperature=1.0,
    jsd_weight=0.5,
    target_weight=1.0,
    other_weight=1.0,
    sample_weights=None,
    ignore_index=-100,
    label_smoothing=0.0,
):
    """The loss of each row [N]; differentiable by a float64 student [N, V]."""
    z = student.double()
    q = F.softmax(z / temperature, 1)
    p = answer(teachers, temperature, average, teacher_weights, entropy_temperature)
    if mode == "forward":
        distance = kl(p, q)
    elif mode == "reverse":
        distance = kl(q, p)
    elif mode == "jsd":
        m = jsd_weight * p + (1 - jsd_weight) * q
        distance = jsd_weight * kl(p, m) + (1 - jsd_weight) * kl(q, m)
    else:
        live = labels != ignore_index
        distance = torch.zeros(len(z), dtype=torch.float64)
        if live.any():
            distance[live] = decoupled(p[live], q[live], labels[live], target_weight, other_weight)
    loss = kd_weight * temperature**2 * distance
    if labels is not None:
        loss = loss + ce_weight * F.cross_entropy(
            z, labels, reduction="none", ignore_index=ignore_index, label_smoothing=label_smoothing
        )
    return loss if sample_weights is None else loss * sample_weights.double()


def exact(student, teachers, labels=None, *, reduction="mean", by=None, **settings):
    """The loss and its gradient by the student; ``by`` is the derivative of what follows by the loss."""
    leaf = student.detach().double().requires_grad_()
    rows = exact_rows(leaf, teachers, labels, **settings)
    if reduction == "mean":
        loss = rows.sum() / max(len(rows), 1)
    elif reduction == "weighted_mean":
        loss = rows.sum() / settings["sample_weights"].double().sum()
    else:
        loss = rows.sum() if reduction == "sum" else rows
    loss.backward(torch.ones_like(loss) if by is None else by.double())
    return loss.detach(), leaf.grad


def made_up(rows, classes, count, seed=0, ignored=True, dtype=torch.float32):
    """Logits of a student and of ``count`` teachers, and labels of which some are ignored."""
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return (torch.randn(rows, classes, generator=generator) * 3).to(dtype)

    labels = torch.randint(0, classes, (rows,), generator=generator)
    if ignored:
        labels[1::3] = -100
    return draw(), [draw() for _ in range(count)], labels


def relative(found, expected):
    """The norm of the difference over the norm of what is expected."""
    return ((found.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
