"""sparse_kd_loss against its formula in float64, where data are odd or broken, and as torch sees it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from codistill.kernels import kd_loss, watch
from codistill.kernels.pack import Packed, pack_knowledge
from codistill.kernels.sparse import sparse_kd_loss
from codistill.tests.kernels.formula_kd import made_up, relative
from codistill.tests.kernels.formula_packed import exact
from torch._dynamo.utils import counters

ENCODINGS = ["int8", "float16", "float8"]
BACKENDS = ["reference", "cpu"]
REDUCTIONS = ["mean", "weighted_mean", "sum", "none"]
SIZES = [(10, 3), (10, 10), (10, 1), (1, 1), (257, 16), (1003, 64), (9001, 20)]


def given(rows, classes, k, encoding="int8", temperature=2.0, **settings):
    student, (teacher,), labels = made_up(rows, classes, 1, **settings)
    packed = pack_knowledge(teacher, k=k, temperature=temperature, encoding=encoding, backend="reference")
    return student, packed, labels


def loss_and_slope(student, *said, **settings):
    leaf = student.clone().requires_grad_()
    loss = sparse_kd_loss(leaf, *said, **settings)
    loss.sum().backward()
    return loss.detach(), leaf.grad


def check(student, packed, labels=None, tolerance=1e-5, backend=None, **settings):
    loss, slope = loss_and_slope(student, packed, labels, backend=backend, **settings)
    expected, expected_slope = exact(student, packed, labels, **settings)
    assert relative(loss, expected) < 1e-5
    assert relative(slope, expected_slope) < tolerance
    assert slope.dtype == student.dtype


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("classes", "k"), SIZES)
def test_loss_and_gradient_are_those_of_the_formula(backend, encoding, classes, k):
    student, packed, labels = given(5, classes, k, encoding)
    check(student, packed, labels, ce_weight=0.7, kd_weight=0.3, backend=backend)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_reductions_weights_and_temperatures(reduction, temperature, labelled):
    student, packed, labels = given(7, 30, 5, temperature=temperature)
    check(student, packed, labels if labelled else None, sample_weights=torch.rand(7), reduction=reduction)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 4e-3), (torch.float16, 1e-3), (torch.float64, 1e-12)]
)
def test_other_dtypes(dtype, tolerance):
    student, packed, labels = given(5, 257, 16)
    student = student.to(dtype)
    loss, slope = loss_and_slope(student, packed, labels)
    expected, expected_slope = exact(student, packed, labels)
    assert relative(loss, expected) < (1e-12 if dtype == torch.float64 else 1e-5)
    assert relative(slope, expected_slope) < tolerance
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_all_classes_kept_is_the_dense_loss():
    student, (teacher,), labels = made_up(6, 20, 1)
    packed = pack_knowledge(teacher, k=20, temperature=2.0, encoding="float16")
    found, slope = loss_and_slope(student, packed, labels)
    leaf = student.clone().requires_grad_()
    dense = kd_loss(leaf, teacher, labels, temperature=2.0)
    dense.backward()
    assert found.item() == pytest.approx(dense.item(), rel=1e-3)
    torch.testing.assert_close(slope, leaf.grad, rtol=1e-2, atol=1e-4)


def test_telling_fewer_classes_apart_never_costs_more():
    student, (teacher,), _ = made_up(20, 40, 1)
    dense = kd_loss(student.double(), teacher.double(), reduction="none")
    last = torch.zeros(20, dtype=torch.float64)
    for k in (1, 3, 10, 39):
        packed = pack_knowledge(teacher, k=k, encoding="float16")
        found = sparse_kd_loss(student.double(), packed, reduction="none")
        assert (found >= last - 0.02).all()
        assert (found <= dense + 0.02).all()
        last = found


# Few rows, odd rows, broken rows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows_make_zero_and_an_empty_gradient(backend, reduction):
    student, packed, labels = given(0, 10, 3)
    said = {"reduction": reduction, "backend": backend, "sample_weights": torch.ones(0)}
    loss, slope = loss_and_slope(student, packed, labels, **said)
    assert loss.sum() == 0
    assert loss.shape == ((0,) if reduction == "none" else ())
    assert slope.shape == (0, 10)


def test_one_row_and_all_labels_ignored():
    check(*given(1, 10, 3))
    student, packed, _ = given(5, 10, 3)
    ignored = loss_and_slope(student, packed, torch.full((5,), -100))
    torch.testing.assert_close(ignored, loss_and_slope(student, packed))
    torch.testing.assert_close(ignored, loss_and_slope(student, packed, torch.zeros(5, dtype=torch.int64), ce_weight=0))


def test_ignore_index_may_be_a_class():
    student, packed, _ = given(9, 4, 2)
    check(student, packed, torch.arange(9) % 4, ignore_index=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_is_nan_and_leaves_the_others_alone(backend, whose, value):
    student, (teacher,), labels = made_up(4, 10, 1, ignored=False)
    said = {"reduction": "none", "backend": backend}
    whole, whole_slope = loss_and_slope(student, pack_knowledge(teacher, k=3), labels, **said)
    (student if whose == "student" else teacher)[2, 5] = value
    loss, slope = loss_and_slope(student, pack_knowledge(teacher, k=3), labels, **said)
    assert loss[2].isnan()
    assert slope[2].isnan().any()
    rest = [0, 1, 3]
    torch.testing.assert_close(loss[rest], whole[rest], rtol=0, atol=0)
    torch.testing.assert_close(slope[rest], whole_slope[rest], rtol=0, atol=0)


@pytest.mark.parametrize("k", [2, 10])
def test_padding_with_minus_infinity_changes_nothing(k):
    student, (teacher,), labels = made_up(5, 10, 1)
    longer = [F.pad(one, (0, 3), value=-math.inf) for one in (student, teacher)]
    loss, slope = loss_and_slope(student, pack_knowledge(teacher, k=k), labels)
    padded, padded_slope = loss_and_slope(longer[0], pack_knowledge(longer[1], k=k), labels)
    torch.testing.assert_close(padded, loss)
    torch.testing.assert_close(padded_slope[:, :10], slope)
    assert not padded_slope[:, 10:].any()


def test_excluded_classes():
    student, (teacher,), labels = made_up(3, 10, 1)
    teacher[0, 4:] = -math.inf
    check(student, pack_knowledge(teacher, k=6), labels)
    packed = pack_knowledge(made_up(3, 10, 1)[1][0], k=3)
    student[1].index_fill_(0, packed.indices[1, 1:2].long(), -math.inf)  # the teacher says what the student excludes
    student[2] = torch.full((10,), -math.inf).index_fill(0, packed.indices[2].long(), 1.0)  # as for all of the tail
    loss, slope = loss_and_slope(student, packed, reduction="none")
    assert loss.isinf().tolist() == [False, True, True]
    assert slope.isfinite().all()


def test_a_student_that_is_sure_still_has_a_tail():
    # 1 - sum q is zero in float32, and the tail is exp(-60): its logarithm and its gradient are there all the same
    packed = pack_knowledge(torch.tensor([[4.0, 3.0, 0.0, 0.5, 0.2]]), k=2, encoding="float16")
    student = torch.tensor([[60.0, 59.0, 0.0, 1.0, -1.0]])
    check(student, packed)
    student[0, :2] += 100  # now exp underflows for all of the tail
    check(student, packed)


def test_logits_may_be_huge_and_far_apart():
    student, (teacher,), labels = made_up(4, 10, 1)
    check(student * 20, pack_knowledge(teacher * 20, k=3), labels)


def test_leading_dimensions_and_memory_in_another_order():
    student, packed, labels = given(12, 10, 3)
    weights = torch.rand(12)
    loss, slope = loss_and_slope(student, packed, labels, sample_weights=weights, reduction="none")
    apart = Packed(
        packed.indices.view(3, 4, 3),
        packed.values.view(3, 4, 3),
        packed.scales.view(3, 4),
        packed.tails.view(3, 4),
        packed.classes,
        packed.temperature,
        packed.encoding,
    )
    said = {"sample_weights": weights.view(3, 4), "reduction": "none"}
    found = loss_and_slope(student.view(3, 4, 10), apart, labels.view(3, 4), **said)
    torch.testing.assert_close(found, (loss.view(3, 4), slope.view(3, 4, 10)))
    turned = student.t().contiguous().t()
    torch.testing.assert_close(loss_and_slope(turned, packed, labels), loss_and_slope(student, packed, labels))
    single = sparse_kd_loss(student[0], packed[0], labels[0], reduction="none")
    torch.testing.assert_close(single, sparse_kd_loss(student[:1], packed[:1], labels[:1], reduction="none")[0])


# As torch sees it


OPERATOR = torch.ops.codistill.sparse_kd_loss.default


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradients_are_those_of_finite_differences(encoding):
    student, packed, labels = given(5, 6, 3, encoding, dtype=torch.float64)
    weights = torch.rand(5, dtype=torch.float64)

    def loss(z):
        return sparse_kd_loss(z, packed, labels, sample_weights=weights, reduction="none")

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("encoding", ["int8", "float16"])
def test_the_operator_is_registered_as_torch_wants_it(reduction, gradient, encoding):
    student, packed, labels = given(4, 10, 3, encoding)
    payload = (packed.indices, packed.values, packed.scales, packed.tails)
    said = (2.0, 0.5, 1.5, -100, reduction, "", gradient)
    torch.library.opcheck(OPERATOR, (student.requires_grad_(gradient), *payload, labels, torch.rand(4), *said))
    turned = student.detach().t().contiguous().t().requires_grad_(gradient)
    torch.library.opcheck(OPERATOR, (turned, *payload, None, None, *said))


class Step(torch.nn.Module):
    """A head, what a teacher packs, and the loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(6, 10)

    def forward(self, inputs, teacher, labels):
        packed = pack_knowledge(teacher, k=4, temperature=2.0)
        return sparse_kd_loss(self.head(inputs), packed, labels)


def test_inside_a_compiled_graph():
    step, (_, (teacher,), labels) = Step(), made_up(4, 10, 1)
    inputs = torch.randn(4, 6)
    expected = torch.autograd.grad(step(inputs, teacher, labels), list(step.parameters()))
    whole = torch.compile(step, fullgraph=True)
    with watch() as ran:
        loss = whole(inputs, teacher, labels)
    torch.testing.assert_close(loss, step(inputs, teacher, labels))
    torch.testing.assert_close(torch.autograd.grad(loss, list(step.parameters())), expected)
    assert [one.operation for one in ran] == ["pack_knowledge", "sparse_kd_loss"]


def test_exported_with_a_dynamic_batch():
    step, (_, (teacher,), labels) = Step(), made_up(4, 10, 1)
    rows = torch.export.Dim("rows")
    program = torch.export.export(step, (torch.randn(4, 6), teacher, labels), dynamic_shapes=[{0: rows}] * 3)
    assert "codistill.sparse_kd_loss" in str(program.graph)
    _, (teacher,), labels = made_up(9, 10, 1)
    inputs = torch.randn(9, 6)
    torch.testing.assert_close(program.module()(inputs, teacher, labels), step(inputs, teacher, labels))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("encoding", ["int8", "float16"])
def test_vmap_is_a_loop(reduction, encoding):
    student, packed, labels = given(12, 10, 3, encoding)
    batches, labels, weights = student.view(3, 4, 10), labels.view(3, 4), torch.rand(4)

    def loss(z, y):
        return sparse_kd_loss(z, packed[:4], y, sample_weights=weights, reduction=reduction)

    looped = torch.stack([loss(batches[i], labels[i]) for i in range(3)])
    torch.testing.assert_close(torch.func.vmap(loss)(batches, labels), looped)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_per_batch_gradients(reduction):
    student, packed, labels = given(12, 10, 3)
    batches, by = student.view(3, 4, 10), torch.randn(4)

    def loss(z):
        made = sparse_kd_loss(z, packed[:4], labels[:4], reduction=reduction)
        return (made * by).sum() if reduction == "none" else made

    found = torch.func.vmap(torch.func.grad(loss))(batches)
    for one, slope in zip(batches, found, strict=True):
        leaf = one.clone().requires_grad_()
        loss(leaf).backward()
        torch.testing.assert_close(slope, leaf.grad)


def test_there_is_no_second_derivative_and_nobody_gets_a_wrong_one():
    student, packed, _ = given(4, 10, 3)
    leaf = student.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sparse_kd_loss(leaf, packed), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="sparse_kd_loss: there is no second derivative"):
        slope.square().sum().backward()


def test_the_compiled_graph_is_made_once_for_any_number_of_rows_and_any_numbers(monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.compiled.PAYS_FROM", 1)
    counters.clear()
    torch._dynamo.reset()
    for rows, temperature, kd_weight in [(6, 2.0, 1.0), (9, 1.0, 0.5), (33, 0.5, 2.0)]:
        student, packed, labels = given(rows, 40, 5, temperature=temperature)
        with watch() as ran:
            check(student, packed, labels, kd_weight=kd_weight)
        assert (ran[0].backend, ran[0].detail) == ("cpu", "one graph, compiled")
    assert counters["stats"]["unique_graphs"] == 1


# What is refused


def refused(match, student, packed, **settings):
    with pytest.raises(ValueError, match=f"sparse_kd_loss: {match}"):
        sparse_kd_loss(student, packed, **settings)


def test_refusals():
    student, packed, labels = given(4, 10, 3)
    refused("packed has 10 classes and the student 11", torch.zeros(4, 11), packed)
    refused(r"packed has rows \(4,\) and the student \(5,\)", torch.zeros(5, 10), packed)
    refused("packed is on cpu and the student on meta", student.to("meta"), packed)
    refused("packed.temperature is 0", student, replace(packed, temperature=0))
    refused("packed has values torch.int8; int8 and no other comes with scales", student, replace(packed, scales=None))
    refused("reduction is 'batchmean'", student, packed, reduction="batchmean")
    refused("reduction 'weighted_mean' needs sample_weights", student, packed, reduction="weighted_mean")
    refused("labels are torch.int32", student, packed, labels=labels.int())
    refused(r"sample_weights has shape \(3,\)", student, packed, sample_weights=torch.ones(3))
    refused("student_logits has shape", student.long(), packed)
