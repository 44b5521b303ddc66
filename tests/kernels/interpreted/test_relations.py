"""The kernels of the relational distance loss against the formula over all pairs, in float64."""

import pytest
import torch
from codistill.kernels.relations import relation_distance_loss
from codistill.kernels.triton import relations as launcher
from codistill.tests.kernels.formula_kd import relative


def formula(student, teacher, reduction):
    """Park et al. 2019, eq. 3 to 5; rows must differ."""
    off = ~torch.eye(len(student), dtype=torch.bool)
    first, second = off.nonzero(as_tuple=True)
    ours, theirs = ((one[first] - one[second]).norm(dim=1) for one in (student, teacher))
    losses = torch.nn.functional.huber_loss(ours / ours.mean(), theirs / theirs.mean(), reduction="none")
    return losses.mean() if reduction == "mean" else losses.sum()


def check(guard, rows, student_width, teacher_width, dtype=torch.float32, reduction="mean", gradients=2e-5):
    generator = torch.Generator().manual_seed(rows)
    student = torch.randn(rows, student_width, generator=generator) + 3
    student[0] *= 5  # far away, so that Huber's function is met on both sides
    student, teacher = student.to(dtype), torch.randn(rows, teacher_width, generator=generator).to(dtype)
    leaf, exact = guard(student.requires_grad_()), student.detach().double().requires_grad_()
    ours = relation_distance_loss(leaf, guard(teacher), reduction=reduction, backend="triton")
    best = formula(exact, teacher.double(), reduction)
    ours.backward()
    best.backward()
    assert relative(ours.detach(), best.detach()) < 1e-5
    assert relative(leaf.grad, exact.grad) < gradients


@pytest.mark.parametrize("rows", [2, 9, 64, 70])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_gradient_are_those_of_the_formula(guard, rows, reduction):
    check(guard, rows, 5, 1, reduction=reduction)


def test_bfloat16_rows_are_related_in_float32(guard):
    check(guard, 20, 17, 8, torch.bfloat16, gradients=4e-3)


@pytest.mark.parametrize("elements", [1, 70 * 65])
def test_blocks_of_rows_make_the_whole(guard, monkeypatch, elements):
    monkeypatch.setattr(launcher, "ELEMENTS", elements)
    check(guard, 70, 3, 4)
    check(guard, 130, 2, 2)


def test_few_rows_coinciding_rows_nan_and_no_gradient(guard):
    for rows in (0, 1):
        student = guard(torch.randn(rows, 3).requires_grad_())
        made = relation_distance_loss(student, guard(torch.randn(rows, 2)), backend="triton")
        made.backward()
        assert made == 0 and (student.grad == 0).all()
    same = guard(torch.ones(5, 3).requires_grad_())
    made = relation_distance_loss(same, guard(torch.randn(5, 2)), backend="triton")
    made.backward()
    assert made.isfinite() and (same.grad == 0).all()
    student, teacher = torch.randn(7, 3), torch.randn(7, 2)
    plain = relation_distance_loss(guard(student), guard(teacher), backend="triton")
    assert not plain.requires_grad
    assert relative(plain, formula(student.double(), teacher.double(), "mean")) < 1e-5
    student[4] = float("nan")
    assert relation_distance_loss(guard(student), guard(teacher), backend="triton").isnan()
