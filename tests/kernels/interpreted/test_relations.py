"""The kernels of the relational losses against the formulas over all pairs and all triples, in float64."""

import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.relations import relation_angle_loss, relation_distance_loss
from codistill.kernels.triton import angle as angle_launcher
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


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_rows_have_one_distance_which_is_its_own_mean(guard, reduction):
    student = guard(torch.tensor([[1.0, 2.0, 0.3], [0.2, -4.0, 1.0]]).requires_grad_())
    made = relation_distance_loss(student, guard(torch.tensor([[3.0], [0.7]])), reduction=reduction, backend="triton")
    made.backward()
    # Nothing but what rounding leaves of one minus one.
    assert made.abs() < 1e-12
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("rows", [3, 9, 64, 70])
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


def cosines(points):
    """[j, i, k] of the angle at j between i and k; zero where j coincides with either."""
    apart = points[None] - points[:, None]
    squares = apart.square().sum(2)
    units = apart * torch.where(squares == 0, 0.0, torch.where(squares == 0, 1.0, squares).rsqrt())[:, :, None]
    return torch.einsum("jid,jkd->jik", units, units)


def angle_formula(student, teacher, reduction):
    """Park et al. 2019, eq. 6 and 7, over ordered triples of different rows."""
    j, i, k = torch.meshgrid(*[torch.arange(len(student))] * 3, indexing="ij")
    counted = (i != j) & (j != k) & (i != k)
    off = (cosines(student) - cosines(teacher))[counted]
    losses = torch.nn.functional.huber_loss(off, torch.zeros_like(off), reduction="none")
    return losses.mean() if reduction == "mean" else losses.sum()


def check_angle(guard, student, teacher, reduction="mean", loss=1e-5, gradients=2e-5):
    leaf, exact = guard(student.requires_grad_()), student.detach().double().requires_grad_()
    with watch() as ran:
        ours = relation_angle_loss(leaf, guard(teacher), reduction=reduction, backend="triton")
    assert ran[0].backend == "triton"
    best = angle_formula(exact, teacher.double(), reduction)
    ours.backward()
    best.backward()
    assert leaf.grad.dtype == student.dtype
    assert relative(ours.detach(), best.detach()) < loss
    assert relative(leaf.grad, exact.grad) < gradients


def angle_rows(rows, student_width=5, teacher_width=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    student = torch.randn(rows, student_width, generator=generator) + 3
    teacher = torch.randn(rows, teacher_width, generator=generator)
    return student.to(dtype), teacher.to(dtype)


@pytest.mark.parametrize(
    ("rows", "widths", "reduction"),
    [(3, (5, 1), "sum"), (4, (2, 7), "mean"), (9, (5, 1), "mean"), (32, (3, 2), "mean"), (35, (2, 1), "sum")],
)
def test_angles_and_their_gradient_are_those_of_the_formula(guard, rows, widths, reduction):
    student, teacher = angle_rows(rows, *widths)
    if rows > 4:
        off = (cosines(student) - cosines(teacher)).abs()
        assert (off > 1.1).any() and (off < 0.9).any()  # Huber's function is met on both sides
    check_angle(guard, student, teacher, reduction)


def test_angles_on_a_line_do_not_turn(guard):
    student, teacher = angle_rows(6, 1, 2)
    leaf = guard(student.requires_grad_())
    made = relation_angle_loss(leaf, guard(teacher), backend="triton")
    made.backward()
    assert relative(made.detach(), angle_formula(student.detach().double(), teacher.double(), "mean")) < 1e-5
    assert leaf.grad.abs().max() < 1e-6


def test_angles_of_bfloat16_rows_are_made_in_float32(guard):
    check_angle(guard, *angle_rows(11, 17, 8, torch.bfloat16), gradients=4e-3)


def test_fewer_than_three_rows_and_rows_that_all_coincide_have_no_angles(guard):
    for rows in (0, 1, 2):
        student = guard(torch.randn(rows, 3).requires_grad_())
        made = relation_angle_loss(student, guard(torch.randn(rows, 2)), reduction="sum", backend="triton")
        made.backward()
        assert made == 0 and student.grad.shape == (rows, 3) and (student.grad == 0).all()
    same = guard(torch.ones(5, 3).requires_grad_())
    made = relation_angle_loss(same, guard(torch.randn(5, 2)), backend="triton")
    made.backward()
    assert made.isfinite() and made > 0 and (same.grad == 0).all()


@pytest.mark.parametrize("which", ["student", "teacher", "both"])
def test_rows_that_coincide_have_no_direction_to_each_other(guard, which):
    student, teacher = angle_rows(9)
    for one in {"student": [student], "teacher": [teacher], "both": [student, teacher]}[which]:
        one[4] = one[1]
        one[8] = one[1]
    check_angle(guard, student, teacher)


def test_rows_that_almost_coincide(guard):
    student, teacher = angle_rows(9)
    student -= student.mean(0)
    student[4] = student[1]
    student[4, 0] += 1e-3
    # Some 3,000 times nearer than the others: so many times float32's rounding. Inner products would lose its square.
    check_angle(guard, student, teacher, loss=1e-4, gradients=2e-3)


def test_rows_whose_squared_distance_is_no_normal_number_coincide(guard):
    student, teacher = torch.tensor([[1e-20, 0], [1, 0], [-1, 0], [0, 0]]), angle_rows(4)[1]
    leaf = guard(student.clone().requires_grad_())
    made = relation_angle_loss(leaf, guard(teacher), backend="triton")
    made.backward()
    student[0] = 0
    assert relative(made.detach(), angle_formula(student.double(), teacher.double(), "mean")) < 1e-5
    assert leaf.grad.isfinite().all()


def test_angles_without_a_gradient_again_and_of_nan(guard):
    student, teacher = angle_rows(7)
    plain = relation_angle_loss(guard(student), guard(teacher), backend="triton")
    assert not plain.requires_grad
    assert relative(plain, angle_formula(student.double(), teacher.double(), "mean")) < 1e-5
    gradients = []
    for _ in range(2):
        leaf = guard(student.requires_grad_())
        made = relation_angle_loss(leaf, guard(teacher), backend="triton")
        made.backward()
        assert made == plain
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    student = student.detach()
    for broken in (student, teacher):
        one = broken[4, 1].item()
        broken[4, 1] = float("nan")
        leaf = guard(student.clone().requires_grad_())
        made = relation_angle_loss(leaf, guard(teacher), backend="triton")
        made.backward()
        assert made.isnan() and leaf.grad.isnan().all()
        broken[4, 1] = one


def test_the_kernels_of_angles_stay_within_their_tensors(guard):
    """The launcher makes what the kernels see; here all of it lies amid canaries, and what is written held NaN."""
    count, width, tiles = 33, 2, 2
    size = tiles * angle_launcher.BLOCK
    student, teacher = angle_rows(count, width, width)

    def blank(*shape):
        return guard(torch.full(shape, float("nan")))

    grid, sizes = (tiles * tiles,), {"BLOCK": angle_launcher.BLOCK, "num_warps": angle_launcher.WARPS}
    squares = [blank(size, size) for _ in range(2)]
    for points, made in zip((student, teacher), squares, strict=True):
        across = guard(torch.nn.functional.pad(points.t(), (0, size - count)))
        angle_launcher._squares[grid](across, made, count, width, tiles, **sizes)
        best = (points.double()[:, None] - points.double()[None]).square().sum(2)
        assert relative(made, torch.nn.functional.pad(best, (0, size - count, 0, size - count))) < 1e-6
    parts, weights = blank(tiles * tiles), blank(size, size)
    angle_launcher._ends[grid](*squares, parts, weights, count, tiles, GRADIENT=True, **sizes)
    angle_launcher._sides[grid](*squares, weights, count, tiles, **sizes)
    assert relative(parts.sum(), angle_formula(student.double(), teacher.double(), "sum")) < 1e-5
    assert weights.isfinite().all() and (weights[count:] == 0).all() and (weights[:, count:] == 0).all()
    assert (weights.diagonal() == 0).all()
