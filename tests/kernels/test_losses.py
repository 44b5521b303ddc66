"""Every loss against an independent float64 formula in NumPy: its reduction and its T squared."""

import numpy as np
import pytest
import torch
from codistill.kernels.ensembles import sharpened, weighted_mean
from codistill.kernels.losses import (
    feature_distance,
    kl_divergence,
    logit_distance,
    not_true_divergence,
    soft_cross_entropy,
)

SHAPES = [(1, 2), (7, 10), (33, 257)]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def arrays(rows, classes, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 3, (rows, classes)) for _ in range(count)]


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum() / len(p)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_divergence_is_the_mean_over_rows_times_temperature_squared(shape, temperature):
    student, teacher = arrays(*shape)
    expected = temperature**2 * kl(softmax(teacher / temperature), softmax(student / temperature))
    found = kl_divergence(torch.tensor(student), torch.tensor(teacher), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    single = kl_divergence(torch.tensor(student).float(), torch.tensor(teacher).float(), temperature)
    assert single.item() == pytest.approx(expected, rel=1e-4)


def test_temperature_squared_keeps_the_gradient_near_the_high_temperature_limit():
    # For large T the gradient tends to (z - mean z - v + mean v) / (N C), whatever T is (Hinton et al. 2015, eq. 4).
    student, teacher = (torch.tensor(a) / 10 for a in arrays(5, 10))
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    for temperature in (50.0, 500.0):
        leaf = student.clone().requires_grad_()
        kl_divergence(leaf, teacher, temperature).backward()
        torch.testing.assert_close(leaf.grad, centred / 50, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_cross_entropy(shape):
    student, teacher = arrays(*shape)
    target = softmax(teacher)
    expected = -(target * np.log(softmax(student))).sum() / len(target)
    assert soft_cross_entropy(torch.tensor(student), torch.tensor(target)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(7, 3), (33, 257)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_not_true_divergence_leaves_the_label_out(shape, temperature):
    student, teacher = arrays(*shape)
    labels = np.random.default_rng(1).integers(0, shape[1], shape[0])
    rest = np.arange(shape[1]) != labels[:, None]
    s, t = (a[rest].reshape(shape[0], -1) / temperature for a in (student, teacher))
    expected = temperature**2 * kl(softmax(t), softmax(s))
    found = not_true_divergence(torch.tensor(student), torch.tensor(teacher), torch.tensor(labels), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_not_true_divergence_gives_the_label_no_gradient():
    student, teacher = (torch.tensor(a) for a in arrays(6, 5))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    leaf = student.clone().requires_grad_()
    not_true_divergence(leaf, teacher, labels).backward()
    assert leaf.grad.gather(1, labels[:, None]).abs().max() == 0
    assert leaf.grad.abs().max() > 0


def test_distances():
    student, teacher = arrays(4, 6)
    s, t = torch.tensor(student), torch.tensor(teacher)
    assert logit_distance(s, t).item() == pytest.approx(((student - teacher) ** 2).mean(), rel=1e-12)
    assert logit_distance(s, t, power=1).item() == pytest.approx(np.abs(student - teacher).mean(), rel=1e-12)
    assert feature_distance(s, t).item() == pytest.approx(((student - teacher) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("loss", [kl_divergence, soft_cross_entropy, logit_distance])
def test_gradients(loss):
    student, teacher = (torch.tensor(a[:3, :4]) for a in arrays(3, 4))
    target = torch.softmax(teacher, 1)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), student.clone().requires_grad_())


def test_sharpened_is_the_softmax_of_probabilities():
    (logits,) = arrays(5, 10, count=1)
    p = softmax(logits)
    expected = np.exp(p / 0.1) / np.exp(p / 0.1).sum(1, keepdims=True)
    torch.testing.assert_close(sharpened(torch.tensor(p), 0.1), torch.tensor(expected))
    entropy = lambda q: -(q * np.log(q)).sum()  # noqa: E731
    assert entropy(sharpened(torch.tensor(p), 0.1).numpy()) < entropy(softmax(p))


def test_weighted_mean():
    values = [torch.tensor(a) for a in arrays(3, 4, count=3)]
    expected = (2 * values[0] + 5 * values[1] + 1 * values[2]) / 8
    torch.testing.assert_close(weighted_mean(values, [2, 5, 1]), expected)
    with pytest.raises(ValueError, match="more than zero"):
        weighted_mean(values, [0, 0, 0])
