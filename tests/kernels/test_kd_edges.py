"""kd_loss where data are few, odd or broken, and what it refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from codistill.kernels import kd_loss
from codistill.tests.kernels.formula_kd import exact, made_up, relative

MODES = ["forward", "reverse", "jsd", "decoupled"]
AVERAGES = ["probabilities", "logits"]
BACKENDS = ["reference", "cpu"]


def loss_and_slope(student, *said, **settings):
    leaf = student.clone().requires_grad_()
    loss = kd_loss(leaf, *said, **settings)
    loss.sum().backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
def test_no_rows_make_zero_and_an_empty_gradient(backend, mode, reduction):
    student, teachers, labels = made_up(0, 10, 3)
    loss, slope = loss_and_slope(
        student, teachers, labels, mode=mode, reduction=reduction, backend=backend, sample_weights=torch.ones(0)
    )
    assert loss.sum() == 0
    assert loss.shape == ((0,) if reduction == "none" else ())
    assert slope.shape == (0, 10)


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_one_row(count, mode):
    student, teachers, labels = made_up(1, 10, count)
    loss, slope = loss_and_slope(student, teachers, labels, mode=mode)
    expected, expected_slope = exact(student, teachers, labels, mode=mode)
    assert relative(loss, expected) < 1e-5
    assert relative(slope, expected_slope) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_one_class_is_certain(mode):
    loss, slope = loss_and_slope(torch.randn(3, 1), torch.randn(3, 1), torch.zeros(3, dtype=torch.int64), mode=mode)
    assert loss == 0
    assert not slope.any()


@pytest.mark.parametrize("mode", MODES)
def test_where_all_labels_are_ignored_only_distillation_is_left(mode):
    student, teachers, _ = made_up(5, 10, 3)
    ignored = torch.full((5,), -100)
    loss, slope = loss_and_slope(student, teachers, ignored, mode=mode)
    if mode == "decoupled":
        assert loss == 0
        assert not slope.any()
    else:
        torch.testing.assert_close((loss, slope), loss_and_slope(student, teachers, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_ignore_index_may_be_a_class(mode):
    student, teachers, _ = made_up(9, 4, 2)
    labels = torch.arange(9) % 4
    loss, slope = loss_and_slope(student, teachers, labels, mode=mode, ignore_index=2)
    expected, expected_slope = exact(student, teachers, labels, mode=mode, ignore_index=2)
    assert relative(loss, expected) < 1e-5
    assert relative(slope, expected_slope) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_is_nan_and_leaves_the_others_alone(backend, mode, average, whose, value):
    student, teachers, labels = made_up(4, 10, 3, ignored=False)
    said = {"mode": mode, "average": average, "reduction": "none", "backend": backend, "teacher_weights": "entropy"}
    whole, whole_slope = loss_and_slope(student, teachers, labels, **said)
    (student if whose == "student" else teachers[1])[2, 5] = value
    loss, slope = loss_and_slope(student, teachers, labels, **said)
    assert loss[2].isnan()
    assert slope[2].isnan().any()
    others = [0, 1, 3]
    torch.testing.assert_close(loss[others], whole[others], rtol=0, atol=0)
    torch.testing.assert_close(slope[others], whole_slope[others], rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("count", [1, 3])
def test_padding_both_sides_with_minus_infinity_changes_nothing(mode, average, count):
    student, teachers, labels = made_up(5, 10, count)
    settings = {"mode": mode, "average": average, "temperature": 2.0}
    loss, slope = loss_and_slope(student, teachers, labels, **settings)
    longer = [F.pad(t, (0, 3), value=-math.inf) for t in (student, *teachers)]
    padded, padded_slope = loss_and_slope(longer[0], longer[1:], labels, **settings)
    torch.testing.assert_close(padded, loss)
    torch.testing.assert_close(padded_slope[:, :10], slope)
    assert not padded_slope[:, 10:].any()


@pytest.mark.parametrize("mode", ["forward", "jsd"])
def test_a_teacher_that_excludes_classes(mode):
    student, teachers, labels = made_up(5, 10, 3)
    teachers[0][:, 4] = -math.inf
    teachers[1][2, 5:] = -math.inf
    loss, slope = loss_and_slope(student, teachers, labels, mode=mode)
    expected, expected_slope = exact(student, teachers, labels, mode=mode)
    assert relative(loss, expected) < 1e-5
    assert relative(slope, expected_slope) < 1e-5


def test_reverse_is_infinite_where_the_teachers_exclude_what_the_student_says():
    student, teachers, _ = made_up(3, 10, 1)
    teachers[0][1, 4] = -math.inf
    loss, _ = loss_and_slope(student, teachers, mode="reverse", reduction="none")
    assert loss.isinf().tolist() == [False, True, False]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("average", AVERAGES)
def test_logits_may_be_huge_and_far_apart(mode, average):
    student, teachers, labels = made_up(4, 10, 3)
    # exp underflows in float32 for most classes here, and float64 still holds it
    student, teachers = student * 20, [t * 20 for t in teachers]
    loss, slope = loss_and_slope(student, teachers, labels, mode=mode, average=average)
    expected, expected_slope = exact(student, teachers, labels, mode=mode, average=average)
    assert relative(loss, expected) < 1e-5
    assert relative(slope, expected_slope) < 1e-5


def test_a_shift_of_all_logits_changes_nothing():
    student, teachers, labels = made_up(4, 10, 2)
    loss, slope = loss_and_slope(student.double(), teachers, labels)
    shifted, shifted_slope = loss_and_slope(student.double() + 1e4, [t.double() - 1e4 for t in teachers], labels)
    torch.testing.assert_close((shifted, shifted_slope), (loss, slope))


@pytest.mark.parametrize("temperature", [0.001, 0.01, 100.0])
def test_entropy_weights_at_any_temperature(temperature):
    # exp(-H / 0.001) is zero for all teachers in float32: only their ratios count
    student, teachers, labels = made_up(4, 1000, 3)
    teachers = [t / 30 for t in teachers]
    settings = {"teacher_weights": "entropy", "entropy_temperature": temperature}
    loss, slope = loss_and_slope(student, teachers, labels, **settings)
    entropies = torch.stack([torch.distributions.Categorical(logits=t.double()).entropy() for t in teachers], 1)
    shares = torch.softmax(-entropies / temperature, 1)
    expected, expected_slope = exact(student, teachers, labels, teacher_weights=shares)
    assert relative(loss, expected) < 1e-4
    assert relative(slope, expected_slope) < 1e-4


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_is_that_of_torch(smoothing):
    student, teachers, labels = made_up(6, 10, 1)
    leaf = student.clone().requires_grad_()
    F.cross_entropy(leaf, labels, label_smoothing=smoothing, reduction="sum").backward()
    loss, slope = loss_and_slope(student, teachers, labels, kd_weight=0.0, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss, F.cross_entropy(student, labels, label_smoothing=smoothing, reduction="sum"))
    torch.testing.assert_close(slope, leaf.grad)


def test_a_sample_weight_counts_a_row_that_often():
    student, teachers, labels = made_up(3, 10, 2, ignored=False)
    twice = [0, 1, 1, 2, 2, 2]
    expected = kd_loss(student[twice], [t[twice] for t in teachers], labels[twice])
    counts = torch.tensor([1, 2, 3])
    found = kd_loss(student, teachers, labels, sample_weights=counts, reduction="weighted_mean")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(kd_loss(student, teachers, labels, sample_weights=counts), expected * 2)


def test_weighted_mean_of_half_precision_weights_is_exact():
    student, teachers, labels = made_up(50, 10, 1)
    weights = torch.rand(50, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = kd_loss(student, teachers, labels, sample_weights=weights, reduction="weighted_mean")
    expected, _ = exact(student, teachers, labels, sample_weights=weights, reduction="weighted_mean")
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_leading_dimensions():
    student, teachers, labels = made_up(12, 10, 3)
    weights, shares = torch.rand(12), torch.rand(12, 3)
    said = {"sample_weights": weights, "teacher_weights": shares, "reduction": "none"}
    loss, slope = loss_and_slope(student, teachers, labels, **said)
    said = {"sample_weights": weights.view(3, 4), "teacher_weights": shares.view(3, 4, 3), "reduction": "none"}
    found, found_slope = loss_and_slope(
        student.view(3, 4, 10), [t.view(3, 4, 10) for t in teachers], labels.view(3, 4), **said
    )
    torch.testing.assert_close((found, found_slope), (loss.view(3, 4), slope.view(3, 4, 10)))
    single = kd_loss(student[0], teachers[0][0], labels[0], reduction="none")
    torch.testing.assert_close(single, kd_loss(student[:1], teachers[0][:1], labels[:1], reduction="none")[0])


def test_memory_in_another_order():
    student, teachers, labels = made_up(6, 10, 2)
    loss, slope = loss_and_slope(student, teachers, labels)
    leaf = student.t().contiguous().requires_grad_()
    found = kd_loss(leaf.t(), [t.t().contiguous().t() for t in teachers], labels)
    found.backward()
    torch.testing.assert_close((found.detach(), leaf.grad.t()), (loss, slope))


def test_only_the_student_learns():
    student, teachers, labels = made_up(4, 10, 2)
    leaves = [t.clone().requires_grad_() for t in teachers]
    weights = torch.ones(4, requires_grad=True)
    leaf = student.clone().requires_grad_()
    kd_loss(leaf, leaves, labels, sample_weights=weights, teacher_weights=torch.ones(2, requires_grad=True)).backward()
    assert leaf.grad is not None
    assert weights.grad is None
    assert all(one.grad is None for one in leaves)
    assert not kd_loss(student, leaves, labels, sample_weights=weights, reduction="none").requires_grad


def test_without_a_gradient_the_loss_is_the_same():
    student, teachers, labels = made_up(4, 10, 2)
    leaf = student.clone().requires_grad_()
    with torch.no_grad():
        quiet = kd_loss(leaf, teachers, labels)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, kd_loss(leaf, teachers, labels).detach())


def test_a_large_upstream_gradient_in_half_precision():
    student, teachers, labels = made_up(4, 10, 1, dtype=torch.float16)
    leaf = student.clone().requires_grad_()
    (kd_loss(leaf, teachers, labels) * 2.0**17).backward()  # more than float16 holds; GradScaler begins with 2^16
    _, expected = exact(student, teachers, labels)
    whole = expected * 2.0**17
    fits = whole.abs() < 60_000
    assert fits.any()
    torch.testing.assert_close(leaf.grad[fits].double(), whole[fits], rtol=4e-3, atol=1)


# The variant that overwrites


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_inplace_gives_the_same_gradient_and_loses_the_logits(backend, reduction):
    student, teachers, labels = made_up(6, 10, 3)
    expected, slope = loss_and_slope(student, teachers, labels, reduction=reduction)
    leaf = student.clone().requires_grad_()
    logits = leaf * 1
    loss = kd_loss(logits, teachers, labels, inplace=True, reduction=reduction, backend=backend)
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(logits.detach(), slope)
    loss.sum().backward()
    torch.testing.assert_close(leaf.grad, slope)


def test_inplace_in_blocks_of_rows(monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.kd.BLOCK", 25)
    student, teachers, labels = made_up(7, 10, 3)
    settings = {"sample_weights": torch.rand(7), "teacher_weights": torch.rand(7, 3), "mode": "jsd"}
    expected, slope = loss_and_slope(student, teachers, labels, **settings)
    leaf = student.clone().requires_grad_()
    loss = kd_loss(leaf * 1, teachers, labels, inplace=True, backend="cpu", **settings)
    loss.backward()
    torch.testing.assert_close((loss.detach(), leaf.grad), (expected, slope))


def test_inplace_needs_logits_that_nobody_else_needs():
    student, teachers, labels = made_up(4, 10, 1)
    leaf = student.clone().requires_grad_()
    for parameter in (leaf, leaf[:4], leaf.view(2, 2, 10)):
        lead = parameter.shape[:-1]
        with pytest.raises(ValueError, match="inplace would overwrite a parameter"):
            kd_loss(parameter, teachers[0].view(*lead, 10), labels.view(lead), inplace=True)
    torch.testing.assert_close(leaf.detach(), student, rtol=0, atol=0)
    with pytest.raises(ValueError, match="inplace needs contiguous logits"):
        kd_loss((leaf.t().contiguous() * 1).t(), teachers, labels, inplace=True)
    needed = leaf.exp()  # exp saves its result for its own backward
    loss = kd_loss(needed, teachers, labels, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_inplace_goes_backward_once():
    student, teachers, labels = made_up(4, 10, 1)
    leaf = student.clone().requires_grad_()
    loss = kd_loss(leaf * 1, teachers, labels, inplace=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        loss.backward()


# What published code gets wrong


def test_the_mean_is_over_rows_and_not_over_rows_times_classes():
    student, teachers, _ = made_up(5, 10, 1)
    published = F.kl_div(F.log_softmax(student, 1), F.softmax(teachers[0], 1), reduction="none").mean()
    assert kd_loss(student, teachers).item() == pytest.approx(10 * published.item(), rel=1e-5)


def test_temperature_squared_keeps_the_size_of_the_gradient():
    student, teachers, _ = made_up(5, 10, 1)
    student, teachers = student / 10, [t / 10 for t in teachers]
    centred = (student - student.mean(1, keepdim=True)) - (teachers[0] - teachers[0].mean(1, keepdim=True))
    for temperature in (50.0, 500.0):  # the limit is (z - mean z - v + mean v) / (N V): Hinton et al. 2015, eq. 4
        _, slope = loss_and_slope(student, teachers, temperature=temperature)
        torch.testing.assert_close(slope, centred / 50, atol=2e-4, rtol=0)
        # In float64: in float32 a divergence of 1e-7 is rounding, another on every processor.
        without = torch.log_softmax(student.double() / temperature, 1)
        plain = F.kl_div(without, torch.softmax(teachers[0].double() / temperature, 1), reduction="batchmean")
        assert kd_loss(student.double(), teachers, temperature=temperature).item() == pytest.approx(
            temperature**2 * plain.item(), rel=1e-6
        )


def test_a_shorter_vocabulary_padded_with_zeros_would_be_something_else():
    student, teachers, _ = made_up(5, 10, 1)
    zeros, cut = F.pad(student, (0, 2)), F.pad(student, (0, 2), value=-math.inf)
    longer = F.pad(teachers[0], (0, 2), value=-math.inf)
    right = kd_loss(student, teachers)
    torch.testing.assert_close(kd_loss(cut, longer), right)
    assert (kd_loss(zeros, longer) - right).abs() > 1e-3


# Refusals

S, Y = torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64)

REFUSED = {
    "teachers is empty": ((S, []), {}),
    "teachers[1] has 8 classes and the student 10; map one vocabulary onto the other first": (
        (S, [S, torch.zeros(4, 8)]),
        {},
    ),
    "teachers[0] has shape (3, 10); expected (4, 10)": ((S, torch.zeros(3, 10)), {}),
    "teachers[0] has shape (4, 10) and dtype torch.int64; expected floats": ((S, S.long()), {}),
    "student_logits has shape (4, 10) and dtype torch.int64; expected floats [..., V]": ((S.long(), S), {}),
    "student_logits has shape ()": ((torch.tensor(1.0), torch.tensor(1.0)), {}),
    "student_logits has shape (4, 0)": ((torch.zeros(4, 0), torch.zeros(4, 0)), {}),
    "teachers[0] is on meta and the student on cpu": ((S, torch.zeros(4, 10, device="meta")), {}),
    "labels has shape (3,); expected (4,), one a row": ((S, S, Y[:3]), {}),
    "labels are torch.int32; expected int64": ((S, S, Y.int()), {}),
    "sample_weights has shape (4, 1); expected (4,)": ((S, S), {"sample_weights": torch.ones(4, 1)}),
    "teacher_weights has shape (4,); expected [2], one a teacher, or [4, 2]": (
        (S, [S, S]),
        {"teacher_weights": torch.ones(4)},
    ),
    "teacher_weights is 'uniform'; expected a tensor, None or 'entropy'": ((S, S), {"teacher_weights": "uniform"}),
    "mode is 'hinton'; expected one of forward, reverse, jsd, decoupled": ((S, S), {"mode": "hinton"}),
    "average is 'median'; expected one of probabilities, logits": ((S, S), {"average": "median"}),
    "reduction is 'batchmean'; expected one of mean, weighted_mean, sum, none": ((S, S), {"reduction": "batchmean"}),
    "reduction 'weighted_mean' needs sample_weights": ((S, S), {"reduction": "weighted_mean"}),
    "temperature is 0.0; expected more than 0": ((S, S), {"temperature": 0}),
    "temperature is nan; expected more than 0": ((S, S), {"temperature": math.nan}),
    "entropy_temperature is -1.0; expected more than 0": ((S, S), {"entropy_temperature": -1}),
    "jsd_weight is 1.0; expected more than 0 and less than 1": ((S, S), {"mode": "jsd", "jsd_weight": 1}),
    "label_smoothing is 1.5; expected 0 to 1": ((S, S, Y), {"label_smoothing": 1.5}),
    "mode 'decoupled' tells the label's class from the others; give labels": ((S, S), {"mode": "decoupled"}),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_refused_with_a_sentence(sentence):
    said, settings = REFUSED[sentence]
    with pytest.raises(ValueError) as caught:
        kd_loss(*said, **settings)
    assert str(caught.value).startswith("kd_loss: ")
    assert sentence in str(caught.value)
