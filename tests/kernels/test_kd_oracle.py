"""kd_loss against the papers' formulas in float64 (formula_kd.py): values and gradients."""

import itertools

import pytest
import torch
from codistill.kernels import kd_loss
from codistill.tests.kernels.formula_kd import exact, made_up, relative

MODES = ["forward", "reverse", "jsd", "decoupled"]
WEIGHTINGS = ["uniform", "by teacher", "by row", "entropy"]
CASES = [
    case
    for case in itertools.product(MODES, ["probabilities", "logits"], WEIGHTINGS, [True, False])
    if case[3] or case[0] != "decoupled"
]


def weights_for(weighting, rows, count):
    generator = torch.Generator().manual_seed(9)
    if weighting == "by teacher":
        return torch.rand(count, generator=generator) + 0.1
    if weighting == "by row":
        return torch.rand(rows, count, generator=generator) + 0.1
    return "entropy" if weighting == "entropy" else None


def compare(student, teachers, labels, loss_within, slope_within, backend=None, reduction="mean", by=None, **settings):
    leaf = student.clone().requires_grad_()
    loss = kd_loss(leaf, teachers, labels, reduction=reduction, backend=backend, **settings)
    loss.backward(None if by is None else by.to(loss.dtype))
    expected, slope = exact(student, teachers, labels, reduction=reduction, by=by, **settings)
    assert loss.shape == expected.shape
    assert loss.dtype == (torch.float64 if student.dtype == torch.float64 else torch.float32)
    assert leaf.grad.dtype == student.dtype
    assert relative(loss.detach(), expected) < loss_within
    assert relative(leaf.grad, slope) < slope_within


@pytest.mark.parametrize(("mode", "average", "weighting", "labelled"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_mode_average_and_weighting(mode, average, weighting, labelled, dtype):
    student, teachers, labels = made_up(7, 257, 3, dtype=dtype)
    within = 1e-12 if dtype == torch.float64 else 1e-5
    settings = {
        "temperature": 2.5,
        "ce_weight": 0.7,
        "kd_weight": 1.3,
        "mode": mode,
        "average": average,
        "teacher_weights": weights_for(weighting, 7, 3),
        "entropy_temperature": 0.6,
        "jsd_weight": 0.3,
        "target_weight": 0.8,
        "other_weight": 2.0,
        "label_smoothing": 0.1,
    }
    compare(student, teachers, labels if labelled else None, within, within, **settings)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [True, False])
def test_reductions(backend, mode, reduction, weighted):
    if reduction == "weighted_mean" and not weighted:
        pytest.skip("it is a mean by weights")
    student, teachers, labels = made_up(6, 10, 3)
    generator = torch.Generator().manual_seed(3)
    sample_weights = torch.rand(6, generator=generator) if weighted else None
    by = torch.randn(6, generator=generator) if reduction == "none" else torch.tensor(0.25)
    settings = {"mode": mode, "temperature": 4.0, "sample_weights": sample_weights}
    compare(student, teachers, labels, 1e-5, 1e-5, backend=backend, reduction=reduction, by=by, **settings)


@pytest.mark.parametrize("classes", [2, 10, 257, 1000, 1003, 9001])
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_odd_sizes(classes, count, mode):
    student, teachers, labels = made_up(4, classes, count, seed=classes)
    compare(student, teachers, labels, 1e-5, 1e-5, mode=mode, temperature=2.0, teacher_weights="entropy")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_sums_in_float32_and_rounds_the_gradient_once(dtype, mode):
    student, teachers, labels = made_up(8, 257, 3, dtype=dtype)
    compare(student, teachers, labels, 1e-5, 4e-3, mode=mode, temperature=2.0)


@pytest.mark.parametrize("mode", MODES)
def test_no_temperature_and_no_cross_entropy(mode):
    student, teachers, labels = made_up(5, 10, 3)
    compare(student, teachers, labels, 1e-5, 1e-5, mode=mode, ce_weight=0.0)
    compare(student, teachers, labels, 1e-5, 1e-5, mode=mode, kd_weight=0.0, label_smoothing=0.2)


def test_mixed_dtypes_follow_the_student():
    student, teachers, labels = made_up(6, 10, 2)
    given = [teachers[0].double(), teachers[1].bfloat16()]
    settings = {
        "sample_weights": torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        "teacher_weights": torch.tensor([0.2, 0.8], dtype=torch.float64),
    }
    compare(student, given, labels, 1e-5, 1e-5, **settings)
    compare(student.bfloat16(), teachers, labels, 1e-5, 4e-3)
    compare(student.double(), teachers, labels, 1e-12, 1e-12)


def test_given_weights_need_not_sum_to_one_nor_be_integers():
    student, teachers, labels = made_up(5, 10, 3)
    whole = kd_loss(student, teachers, labels, teacher_weights=torch.tensor([1, 3, 0]))
    torch.testing.assert_close(
        whole, kd_loss(student, teachers, labels, teacher_weights=torch.tensor([0.25, 0.75, 0.0]))
    )
    torch.testing.assert_close(
        whole,
        kd_loss(student, teachers[:2], labels, teacher_weights=torch.tensor([2.0, 6.0])),
    )
