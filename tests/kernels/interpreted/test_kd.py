"""``kd_loss`` as Triton kernels, against float64 formulas that share no line with them."""

import os

import pytest
import torch
from codistill.kernels import kd_loss, watch
from codistill.kernels.settings import Kd
from codistill.kernels.triton.kd import kd
from codistill.tests.kernels.formula_kd import exact, made_up, relative

MODES = ("forward", "reverse", "jsd", "decoupled")
ROWS = 4
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 6e-3}
"""Relative error of the gradient by the dtype it is rounded to."""


def found(guard, student, teachers, labels, **settings):
    """The loss, a value a row, and its gradient by the student, from the kernels, amid canaries."""
    leaf = guard(student).requires_grad_()
    settings = {name: guard(one) if isinstance(one, torch.Tensor) else one for name, one in settings.items()}
    labels = None if labels is None else guard(labels)
    with watch() as ran:
        rows = kd_loss(leaf, [guard(one) for one in teachers], labels, reduction="none", backend="triton", **settings)
    assert [one.backend for one in ran] == ["triton"]
    rows.sum().backward()
    return rows.detach(), leaf.grad


def agrees(guard, student, teachers, labels, **settings):
    rows, gradient = found(guard, student, teachers, labels, **settings)
    expected, expected_gradient = exact(student, teachers, labels, reduction="none", **settings)
    assert relative(rows, expected) < 1e-5
    assert gradient.dtype == student.dtype
    assert relative(gradient, expected_gradient) < GRADIENT[student.dtype]


def weights(kind, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    if kind == "by teacher":
        return torch.rand(count, generator=generator) + 0.1
    if kind == "by row":
        return torch.rand(ROWS, count, generator=generator) + 0.1
    return None if kind == "uniform" else kind


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("classes", "count", "average", "weighting", "dtype"),
    [
        (10, 1, "probabilities", "uniform", torch.float32),
        (10, 5, "logits", "by row", torch.bfloat16),
        (257, 3, "probabilities", "entropy", torch.float32),
        (257, 5, "logits", "entropy", torch.float32),
        (1000, 1, "probabilities", "entropy", torch.bfloat16),
        (1000, 3, "probabilities", "uniform", torch.float32),
        (1000, 3, "logits", "uniform", torch.bfloat16),
        (1003, 3, "probabilities", "by teacher", torch.bfloat16),
        (1003, 3, "logits", "by teacher", torch.float32),
        (1003, 5, "probabilities", "by row", torch.float32),
        (9001, 3, "probabilities", "entropy", torch.bfloat16),
        (9001, 3, "logits", "entropy", torch.float32),
        (9001, 1, "probabilities", "uniform", torch.float32),
        (9001, 5, "probabilities", "by row", torch.float32),
    ],
)
def test_the_loss_and_its_gradient(guard, mode, classes, count, average, weighting, dtype):
    student, teachers, labels = made_up(ROWS, classes, count, dtype=dtype)
    agrees(
        guard,
        student,
        teachers,
        labels,
        mode=mode,
        average=average,
        teacher_weights=weights(weighting, count),
        temperature=2.5,
        ce_weight=0.7,
        kd_weight=0.4,
        entropy_temperature=0.6,
        jsd_weight=0.3,
        target_weight=0.8,
        other_weight=2.0,
    )


LONG = pytest.mark.parametrize("classes", [257, 9001], ids=["in registers", "several passes"])


@LONG
@pytest.mark.parametrize("mode", ["forward", "decoupled"])
def test_smoothing_sample_weights_and_another_ignored_label(guard, classes, mode):
    student, teachers, labels = made_up(ROWS, classes, 3, ignored=False)
    labels[1] = 7
    agrees(
        guard,
        student,
        teachers,
        labels,
        mode=mode,
        temperature=0.7,
        label_smoothing=0.2,
        sample_weights=torch.tensor([0.5, 2.0, 0.0, 1.0]),
        ignore_index=7,
    )


@LONG
def test_no_labels_no_cross_entropy_and_all_labels_ignored(guard, classes):
    student, teachers, labels = made_up(ROWS, classes, 1)
    agrees(guard, student, teachers, None, temperature=3.0)
    agrees(guard, student, teachers, labels, ce_weight=0.0, mode="decoupled")
    agrees(guard, student, teachers, torch.full((ROWS,), -100))
    student[0, 0] = float("nan")
    rows, gradient = found(guard, student, teachers, torch.full((ROWS,), -100), mode="decoupled")
    assert not rows.any()
    assert not gradient.any()


@LONG
@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_in_place_of_the_logits(guard, classes, mode):
    student, teachers, labels = made_up(ROWS, classes, 3)
    logits = guard(student)
    settings = Kd(mode, "probabilities", "uniform", 2.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0, -100)
    rows, made = kd(logits, [guard(one) for one in teachers], guard(labels), None, None, settings, 0.5, True, logits)
    expected, expected_gradient = exact(student, teachers, labels, reduction="none", mode=mode, temperature=2.0)
    assert made is logits
    assert relative(rows, expected) < 1e-5
    assert relative(logits, 0.5 * expected_gradient) < 1e-5


@LONG
def test_no_gradient_is_made_where_nobody_wants_it(guard, classes):
    student, teachers, labels = made_up(ROWS, classes, 3)
    settings = Kd("jsd", "probabilities", "uniform", 2.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0, -100)
    rows, made = kd(guard(student), [guard(one) for one in teachers], guard(labels), None, None, settings, 1.0, False)
    expected, _ = exact(student, teachers, labels, reduction="none", mode="jsd", temperature=2.0)
    assert relative(rows, expected) < 1e-5
    assert made.shape == (0, classes)


def test_no_rows_and_one_class(guard):
    student, teachers, labels = made_up(0, 10, 3)
    rows, gradient = found(guard, student, teachers, labels)
    assert rows.shape == (0,)
    assert gradient.shape == (0, 10)
    for mode in MODES:
        rows, gradient = found(
            guard, torch.ones(2, 1), [torch.zeros(2, 1)], torch.zeros(2, dtype=torch.int64), mode=mode
        )
        assert rows.tolist() == [0, 0]
        assert gradient.tolist() == [[0], [0]]


@LONG
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_spoil_their_row_alone(guard, classes, mode, bad):
    student, teachers, labels = made_up(ROWS, classes, 3, ignored=False)
    expected, expected_gradient = exact(student, teachers, labels, reduction="none", mode=mode)
    student[1, classes // 2] = bad
    teachers[1][2, classes - 1] = bad
    rows, gradient = found(guard, student, teachers, labels, mode=mode)
    assert rows.isnan().tolist() == [False, True, True, False]
    assert gradient[1:3].isnan().any(1).all()
    torch.testing.assert_close(rows[[0, 3]].double(), expected[[0, 3]], rtol=1e-5, atol=0)
    assert relative(gradient[[0, 3]], expected_gradient[[0, 3]]) < 1e-5


@LONG
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_logit_of_minus_infinity_is_a_class_of_probability_zero(guard, classes, mode, average):
    student, teachers, labels = made_up(ROWS, classes, 3, ignored=False)
    labels[:] = 3
    shut = torch.arange(classes) % 5 == 1
    shut[64:] |= torch.arange(64, classes) > classes - 50
    settings = {"mode": mode, "average": average, "temperature": 2.0}
    expected, expected_gradient = exact(
        student[:, ~shut], [one[:, ~shut] for one in teachers], labels - 1, reduction="none", **settings
    )
    for one in (student, *teachers):
        one[:, shut] = float("-inf")
    rows, gradient = found(guard, student, teachers, labels, **settings)
    assert not gradient[:, shut].any()
    assert relative(rows, expected) < 1e-5
    assert relative(gradient[:, ~shut], expected_gradient) < 1e-5


@LONG
def test_what_the_student_rules_out_and_the_teachers_do_not_is_infinitely_far(guard, classes):
    student, teachers, labels = made_up(ROWS, classes, 1, ignored=False)
    student[0, 5] = float("-inf")
    labels[:] = 1
    rows, gradient = found(guard, student, teachers, labels)
    assert rows.isinf().tolist() == [True, False, False, False]
    assert gradient.isfinite().all()


@LONG
@pytest.mark.parametrize("mode", ["reverse", "decoupled"])
def test_probabilities_too_small_for_a_float(guard, classes, mode):
    student, teachers, labels = made_up(ROWS, classes, 3, ignored=False)
    teachers = [one - 400.0 * (torch.arange(classes) % 2) for one in teachers]
    labels[:] = 2
    agrees(guard, student, teachers, labels, mode=mode, ce_weight=0.0)


@LONG
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_entropy_weights_so_sharp_that_each_alone_is_zero(guard, classes, average):
    student, teachers, labels = made_up(ROWS, classes, 3)
    settings = {"teacher_weights": "entropy", "entropy_temperature": 0.03, "average": average}
    agrees(guard, student, [one * 0.3 for one in teachers], labels, **settings)


def test_a_label_that_is_no_class_makes_its_loss_nan(guard):
    for classes in (10, 9001):
        student, teachers, labels = made_up(ROWS, classes, 1, ignored=False)
        labels[1], labels[2] = classes, -1
        rows, _ = found(guard, student, teachers, labels)
        assert rows.isnan().tolist() == [False, True, True, False]


@LONG
def test_rows_and_columns_may_lie_apart(guard, classes):
    student, teachers, labels = made_up(ROWS, classes, 3)
    wide = guard(torch.full((ROWS, classes + 7), float("nan")))
    wide[:, 3 : 3 + classes] = teachers[0]
    across = guard(teachers[1].t()).t()
    same = guard(teachers[2][0]).expand(ROWS, classes)
    leaf = guard(student.t()).t().detach().requires_grad_()
    rows = kd_loss(
        leaf, [wide[:, 3 : 3 + classes], across, same], labels, reduction="none", mode="jsd", backend="triton"
    )
    rows.sum().backward()
    expected, expected_gradient = exact(
        student, [*teachers[:2], teachers[2][:1].expand(ROWS, classes)], labels, reduction="none", mode="jsd"
    )
    assert relative(rows.detach(), expected) < 1e-5
    assert relative(leaf.grad, expected_gradient) < 1e-5


@pytest.mark.parametrize("classes", [1000, 9001])
def test_rows_beyond_two_to_the_31st_element(tmp_path, classes):
    """Row offsets need 64 bits. The files are sparse: 9 GB each that take a few kilobytes of disk.

    The first row lies so far in that an offset that wrapped around is in the file too: a wrong result, no crash.
    """
    apart = 1_500_000_000

    def far(values, name):
        path = tmp_path / name
        size = 3 * apart + classes
        path.touch()
        os.truncate(path, size * 2)
        flat = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16)
        return flat.as_strided((3, classes), (apart, 1), apart).copy_(values), path

    student, teachers, labels = made_up(3, classes, 1, dtype=torch.bfloat16)
    there, path = far(student, "student")
    teacher, _ = far(teachers[0], "teacher")
    settings = Kd("forward", "probabilities", "uniform", 2.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0, -100)
    rows, _ = kd(there, [teacher], labels, None, None, settings, 1.0, True, there)
    expected, expected_gradient = exact(student, teachers, labels, reduction="none", temperature=2.0)
    assert relative(rows, expected) < 1e-5
    assert relative(there, expected_gradient) < 6e-3
    assert path.stat().st_blocks * 512 < 2**20, "the file was to stay sparse"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_factor_on_the_loss_reaches_the_gradient_each_time_that_one_goes_back(guard, dtype):
    student, teachers, labels = made_up(ROWS, 1003, 2, dtype=dtype)
    _, expected = exact(student, teachers, labels, reduction="mean")
    leaf = guard(student).requires_grad_()
    loss = kd_loss(leaf, [guard(one) for one in teachers], guard(labels), backend="triton")
    first = [torch.autograd.grad(loss * factor, leaf, retain_graph=True)[0] for factor in (3.0, 1.0)]
    kept = [one.clone() for one in first]
    again = torch.autograd.grad(loss * -0.5, leaf)[0]
    tolerance = 6e-3 if dtype == torch.bfloat16 else 2e-3 if dtype == torch.float16 else 1e-5
    for found, factor in zip([*first, again], (3.0, 1.0, -0.5), strict=True):
        assert found.dtype == dtype
        assert relative(found, expected * factor) < tolerance
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))
