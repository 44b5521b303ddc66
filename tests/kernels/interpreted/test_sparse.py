"""The kernel of sparse_kd_loss against its formula in float64."""

import math
import os
from dataclasses import replace

import pytest
import torch
from codistill.kernels.pack import pack_knowledge
from codistill.kernels.sparse import sparse_kd_loss
from codistill.tests.kernels.formula_kd import made_up, relative
from codistill.tests.kernels.formula_packed import exact

ENCODINGS = ["int8", "float16", "float8"]


def given(guard, rows, classes, k, encoding="int8", dtype=torch.float32):
    student, (teacher,), labels = made_up(rows, classes, 1)
    packed = pack_knowledge(teacher, k=k, temperature=2.0, encoding=encoding, backend="reference")
    values = packed.values.view(torch.uint8) if encoding == "float8" else packed.values
    packed = replace(
        packed,
        indices=guard(packed.indices),
        values=guard(values).view(packed.values.dtype),
        scales=None if packed.scales is None else guard(packed.scales),
        tails=guard(packed.tails),
    )
    return student.to(dtype), packed, guard(labels)


def check(guard, student, packed, labels=None, tolerance=1e-5, **settings):
    leaf = guard(student.requires_grad_())
    loss = sparse_kd_loss(leaf, packed, labels, backend="triton", **settings)
    loss.sum().backward()
    expected, slope = exact(student, packed, labels, **settings)
    assert relative(loss.detach(), expected) < 1e-5
    assert relative(leaf.grad, slope) < tolerance
    return leaf.grad


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("classes", "k"), [(1, 1), (10, 3), (10, 10), (10, 1), (257, 16), (1000, 70), (1003, 64), (9001, 20)]
)
def test_loss_and_gradient_are_those_of_the_formula(guard, encoding, classes, k):
    student, packed, labels = given(guard, 4, classes, k, encoding)
    check(guard, student, packed, labels, ce_weight=0.7, kd_weight=0.3)


@pytest.mark.parametrize("classes", [100, 9001])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 4e-3), (torch.float16, 1e-3)])
def test_half_precision_students(guard, classes, dtype, tolerance):
    check(guard, *given(guard, 3, classes, 9, dtype=dtype), tolerance)


@pytest.mark.parametrize("classes", [64, 9001])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
def test_reductions_and_weights(guard, classes, labelled, reduction):
    student, packed, labels = given(guard, 3, classes, 9)
    weights = guard(torch.rand(3))
    check(guard, student, packed, labels if labelled else None, sample_weights=weights, reduction=reduction)


@pytest.mark.parametrize("classes", [12, 9001])
def test_labels_of_every_kind(guard, classes):
    student, packed, _ = given(guard, 5, classes, 3)
    at = packed.indices[:, 0].long()  # a label that is kept, and written twice
    check(guard, student, packed, at, ignore_index=int(at[1]))
    check(guard, student, packed, torch.full((5,), -100))
    at[2] = classes
    rows = sparse_kd_loss(student, packed, at, reduction="none", backend="triton")
    assert rows.isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("classes", [12, 9001])
def test_broken_rows_stay_alone(guard, classes):
    student, packed, labels = given(guard, 6, classes, 3)
    whole, slope = exact(student, packed, labels, reduction="none")
    student[1, 5], student[2, 7] = math.nan, math.inf
    packed.tails[3] = math.nan
    packed.indices[4, 1] = classes  # no class, and nobody's memory
    packed.indices[5, 2] = -1
    leaf = guard(student.requires_grad_())
    loss = sparse_kd_loss(leaf, packed, labels, reduction="none", backend="triton")
    loss.sum().backward()
    assert loss.isnan().tolist() == [False, True, True, True, True, True]
    assert relative(loss[:1].detach(), whole[:1]) < 1e-5
    assert relative(leaf.grad[:1], slope[:1]) < 1e-5
    assert all(leaf.grad[row].isnan().any() for row in (1, 2, 3))


@pytest.mark.parametrize("classes", [12, 9001])
def test_excluded_classes(guard, classes):
    student, packed, _ = given(guard, 4, classes, 3)
    far = [c for c in range(classes) if c not in packed.indices[0]][:5]
    student[0, far] = -math.inf
    student[1, packed.indices[1, 1]] = -math.inf
    student[2] = torch.full((classes,), -math.inf).index_fill(0, packed.indices[2].long(), 1.0)
    leaf = guard(student.requires_grad_())
    loss = sparse_kd_loss(leaf, packed, reduction="none", backend="triton")
    loss.sum().backward()
    assert loss.isinf().tolist() == [False, True, True, False]
    assert leaf.grad.isfinite().all()
    expected, slope = exact(student.detach(), packed, reduction="none")
    assert relative(loss[[0, 3]].detach(), expected[[0, 3]]) < 1e-5
    assert relative(leaf.grad[[3]], slope[[3]]) < 1e-5
    assert not leaf.grad[0, far].any()


@pytest.mark.parametrize("classes", [12, 9001])
def test_a_student_that_is_sure_still_has_a_tail(guard, classes):
    student, packed, labels = given(guard, 3, classes, 3)
    for height in (50.0, 300.0):
        sure = student.scatter_add(1, packed.indices.long(), torch.full((3, 3), height))
        check(guard, sure, packed, labels)


def test_no_rows_strides_and_no_gradient(guard):
    student, packed, labels = given(guard, 0, 10, 3)
    assert sparse_kd_loss(student, packed, labels, backend="triton") == 0
    student, packed, labels = given(guard, 4, 10, 3)
    plain = sparse_kd_loss(guard(student), packed, labels, backend="triton")
    assert not plain.requires_grad
    expected, slope = exact(student, packed, labels)
    assert relative(plain, expected) < 1e-5
    turned = student.t().contiguous().t().requires_grad_()
    sparse_kd_loss(turned, packed, labels, backend="triton").backward()
    assert relative(turned.grad, slope) < 1e-5


def test_too_many_kept_classes_are_refused():
    packed = pack_knowledge(torch.randn(1, 9001), k=8193, backend="reference")
    with pytest.raises(ValueError, match="sparse_kd_loss: packed keeps 8193 classes a row; .* 8192"):
        sparse_kd_loss(torch.randn(1, 9001), packed, backend="triton")


def far_apart(path, classes):
    """Three rows of which the last starts beyond what 32 bits can say; the file between them takes no room."""
    apart = 1_500_000_000
    size = 2 * apart + classes
    path.touch()
    os.truncate(path, 2 * size)
    rows = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).as_strided((3, classes), (apart, 1))
    rows.copy_(made_up(3, classes, 1, seed=1)[0])
    return rows


@pytest.mark.parametrize("classes", [40, 9001])
def test_rows_beyond_32_bit_offsets(guard, tmp_path, classes):
    rows = far_apart(tmp_path / "rows", classes)
    _, packed, labels = given(guard, 3, classes, 5)
    leaf = rows.requires_grad_()
    loss = sparse_kd_loss(leaf, packed, labels, backend="triton")
    (found,) = torch.autograd.grad(loss, leaf)
    expected, slope = exact(rows.detach().clone(), packed, labels)
    assert relative(loss.detach(), expected) < 1e-5
    assert relative(found, slope) < 4e-3
