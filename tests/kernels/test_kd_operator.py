"""kd_loss as torch sees it: gradcheck, opcheck, compile, export, vmap, and the compiled CPU back end."""

import functools

import pytest
import torch
from codistill.kernels import kd_loss, watch
from codistill.kernels.cpu import compiled
from codistill.kernels.reference.softmax import exp
from codistill.kernels.settings import Kd
from codistill.tests.kernels.formula_kd import exact, made_up, relative
from torch._dynamo.utils import counters

MODES = ["forward", "reverse", "jsd", "decoupled"]
OPERATOR = torch.ops.codistill.kd_loss.default
OVERWRITING = torch.ops.codistill.kd_loss_.default


def said(words, reduction="mean", backend=""):
    """What the operators take after the tensors."""
    numbers = {
        "temperature": 2.0,
        "ce_weight": 0.5,
        "kd_weight": 1.5,
        "entropy_temperature": 1.0,
        "jsd_weight": 0.3,
        "target_weight": 1.0,
        "other_weight": 2.0,
        "label_smoothing": 0.1,
    }
    settings = Kd(*words.split(), **numbers, ignore_index=-100)
    return settings.words, settings.numbers(), settings.ignore_index, reduction, backend


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_gradients_are_those_of_finite_differences(mode, average):
    student, teachers, labels = made_up(5, 6, 3, dtype=torch.float64)
    settings = {"temperature": 2.0, "teacher_weights": "entropy", "label_smoothing": 0.1, "jsd_weight": 0.3}

    def loss(z):
        return kd_loss(z, teachers, labels, mode=mode, average=average, reduction="none", **settings)

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_the_operator_is_registered_as_torch_wants_it(reduction, weighted, gradient):
    student, teachers, labels = made_up(4, 10, 2)
    weights = (torch.rand(4, 2), torch.rand(4)) if weighted else (None, None)
    words = f"jsd probabilities {'given' if weighted else 'uniform'}"
    arguments = (student.requires_grad_(gradient), teachers, labels, *weights, *said(words, reduction), gradient)
    torch.library.opcheck(OPERATOR, arguments)


def test_the_operator_takes_no_labels_other_dtypes_and_orders_of_memory():
    student, teachers, _ = made_up(4, 10, 2)
    for dtype in (torch.bfloat16, torch.float64):
        arguments = (student.to(dtype).requires_grad_(), teachers, None, None, None)
        torch.library.opcheck(OPERATOR, (*arguments, *said("forward logits entropy"), True))
    turned = student.t().contiguous().t().requires_grad_()
    torch.library.opcheck(OPERATOR, (turned, teachers, None, None, None, *said("forward logits uniform"), True))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_overwriting_operator_is_registered_as_torch_wants_it(reduction):
    student, teachers, labels = made_up(4, 10, 2)
    arguments = (student, teachers, labels, None, None, *said("forward probabilities uniform", reduction))
    torch.library.opcheck(OVERWRITING, arguments)


class Step(torch.nn.Module):
    """A head and its loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(6, 10)

    def forward(self, inputs, first, second, labels):
        settings = {"temperature": 2.0, "teacher_weights": "entropy"}
        return kd_loss(self.head(inputs), [first, second], labels, **settings)


def test_inside_a_compiled_graph():
    step, (_, teachers, labels) = Step(), made_up(4, 10, 2)
    inputs = torch.randn(4, 6)
    expected = torch.autograd.grad(step(inputs, *teachers, labels), list(step.parameters()))
    whole = torch.compile(step, fullgraph=True)
    with watch() as ran:
        loss = whole(inputs, *teachers, labels)
    torch.testing.assert_close(loss, step(inputs, *teachers, labels))
    torch.testing.assert_close(torch.autograd.grad(loss, list(step.parameters())), expected)
    assert [(one.operation, one.backend) for one in ran] == [("kd_loss", "cpu")]


def test_exported_with_a_dynamic_batch():
    step, (_, teachers, labels) = Step(), made_up(4, 10, 2)
    rows = torch.export.Dim("rows")
    program = torch.export.export(step, (torch.randn(4, 6), *teachers, labels), dynamic_shapes=[{0: rows}] * 4)
    assert "codistill.kd_loss" in str(program.graph)
    _, teachers, labels = made_up(9, 10, 2)
    inputs = torch.randn(9, 6)
    torch.testing.assert_close(program.module()(inputs, *teachers, labels), step(inputs, *teachers, labels))


# torch.func


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "weighted_mean"])
@pytest.mark.parametrize("mode", MODES)
def test_vmap_is_a_loop(reduction, mode):
    student, teachers, labels = made_up(12, 10, 2)
    batches, firsts, labels = student.view(3, 4, 10), teachers[0].view(4, 3, 10), labels.view(3, 4)
    shares, weights = torch.rand(3, 2), torch.rand(4)

    def loss(z, first, y, share):
        settings = {"sample_weights": weights, "teacher_weights": share, "reduction": reduction, "mode": mode}
        return kd_loss(z, [first, teachers[1][:4]], y, **settings)

    found = torch.func.vmap(loss, in_dims=(0, 1, 0, 0))(batches, firsts, labels, shares)
    looped = [loss(batches[i], firsts[:, i], labels[i], shares[i]) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(looped))


@pytest.mark.parametrize("shape", [(2,), (4, 2)])
def test_vmap_over_the_teachers_alone(shape):
    student, teachers, labels = made_up(4, 10, 2)
    several, shares = torch.randn(3, 4, 10), torch.rand(shape)

    def loss(first):
        return kd_loss(student, [first, teachers[1]], labels, teacher_weights=shares)

    torch.testing.assert_close(torch.func.vmap(loss)(several), torch.stack([loss(one) for one in several]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_per_batch_gradients(reduction):
    student, teachers, labels = made_up(12, 10, 2)
    batches = student.view(3, 4, 10)
    teachers, labels = [t[:4] for t in teachers], labels[:4]
    by = torch.randn(4)

    def loss(z):
        made = kd_loss(z, teachers, labels, reduction=reduction, temperature=2.0)
        return (made * by).sum() if reduction == "none" else made

    found = torch.func.vmap(torch.func.grad(loss))(batches)
    looped = torch.stack([torch.func.grad(loss)(one) for one in batches])
    torch.testing.assert_close(found, looped)
    for one, slope in zip(batches, found, strict=True):
        leaf = one.clone().requires_grad_()
        loss(leaf).backward()
        torch.testing.assert_close(slope, leaf.grad)


def test_autograd_outside_of_vmap():
    student, teachers, labels = made_up(12, 10, 1)
    leaf = student.view(3, 4, 10).clone().requires_grad_()
    losses = torch.func.vmap(lambda z: kd_loss(z, teachers[0][:4], labels[:4]))(leaf)
    losses.sum().backward()
    for i in range(3):
        _, slope = exact(student.view(3, 4, 10)[i], [teachers[0][:4]], labels[:4])
        assert relative(leaf.grad[i], slope) < 1e-5


def test_inplace_and_transforms_do_not_go_together():
    student, teachers, labels = made_up(4, 10, 1)
    with pytest.raises(NotImplementedError, match="kd_loss: inplace"):
        torch.func.grad(lambda z: kd_loss(z * 1, teachers, labels, inplace=True))(student)


def test_there_is_no_second_derivative_and_nobody_gets_a_wrong_one():
    student, teachers, labels = made_up(4, 10, 1)
    leaf = student.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kd_loss(leaf, teachers, labels), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="kd_loss: there is no second derivative"):
        slope.square().sum().backward()
    with pytest.raises(NotImplementedError, match="kd_loss: there is no second derivative"):
        torch.func.jacrev(torch.func.grad(lambda z: kd_loss(z, teachers, labels)))(student)


# The CPU back end where it compiles


@pytest.fixture
def compiling(monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.compiled.PAYS_FROM", 1)
    counters.clear()
    torch._dynamo.reset()


def check_compiled(rows, **settings):
    student, teachers, labels = made_up(rows, 40, 3, seed=rows)
    leaf = student.clone().requires_grad_()
    with watch() as ran:
        loss = kd_loss(leaf, teachers, labels, reduction="none", **settings)
    assert ran[0].backend == "cpu"
    assert ran[0].detail == "one graph, compiled"
    loss.sum().backward()
    expected, slope = exact(student, teachers, labels, reduction="none", **settings)
    assert relative(loss.detach(), expected) < 1e-5
    assert relative(leaf.grad, slope) < 1e-5


def test_the_compiled_graph_is_made_once_for_any_number_of_rows_and_any_numbers(compiling):
    for rows, temperature, kd_weight in [(6, 2.0, 1.0), (9, 2.0, 0.5), (33, 1.0, 2.0), (2, 4.0, 0.1)]:
        check_compiled(rows, temperature=temperature, kd_weight=kd_weight, label_smoothing=0.1)
    assert counters["stats"]["unique_graphs"] == 1
    for rows in (1, 0):
        student, teachers, labels = made_up(rows, 40, 3)
        torch.testing.assert_close(
            kd_loss(student, teachers, labels), kd_loss(student, teachers, labels, backend="reference")
        )


@pytest.fixture
def traced(compiling, monkeypatch):
    """The graphs that would be compiled, run operation by operation: quick, and the same formulas."""
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend="eager"))
    compiled._compiled.cache_clear()
    yield
    compiled._compiled.cache_clear()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("weighting", ["uniform", "by row", "entropy"])
def test_graphs_of_every_mode(traced, mode, average, weighting):
    weights = {"uniform": None, "by row": torch.rand(6, 3) + 0.1, "entropy": "entropy"}[weighting]
    settings = {"teacher_weights": weights, "sample_weights": torch.rand(6), "jsd_weight": 0.3, "label_smoothing": 0.1}
    check_compiled(6, mode=mode, average=average, temperature=2.0, **settings)


@pytest.mark.parametrize("mode", MODES)
def test_graphs_keep_zeros_infinities_and_broken_rows_where_they_are(traced, mode):
    student, teachers, labels = made_up(5, 40, 2, ignored=False)
    given = [torch.nn.functional.pad(t * 5, (0, 3), value=-torch.inf) for t in (student, *teachers)]
    given[0][3, 7] = torch.nan
    given[1][1, 7] = torch.inf
    leaf = given[0].requires_grad_()
    losses = kd_loss(leaf, given[1:], labels, mode=mode, reduction="none")
    losses.sum().backward()
    whole = [0, 2, 4]
    expected, slope = exact(
        student[whole] * 5, [t[whole] * 5 for t in teachers], labels[whole], reduction="none", mode=mode
    )
    assert losses[[1, 3]].isnan().all()
    assert relative(losses.detach()[whole], expected) < 1e-5
    assert relative(leaf.grad[whole, :40], slope) < 1e-5
    assert not leaf.grad[whole, 40:].any()


def test_exp_in_a_graph():
    x = torch.cat([torch.linspace(-100, 1, 100_001), torch.tensor([-torch.inf, torch.nan])])
    found = torch.compile(exp, backend="eager", fullgraph=True)(x)
    assert found[-2] == 0
    assert found[-1].isnan()
    normal = (x > -87) & (x <= 1)
    within = (1 + x.abs()) * 1.2e-7  # what rounding x itself does
    assert ((found.double() / x.double().exp() - 1).abs() < within)[normal].all()
    assert (found[x < -88] == 0).all()
    assert torch.equal(exp(x)[:-1], x.exp()[:-1])


def test_graphs_overwrite_in_blocks(traced, monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.kd.BLOCK", 160)
    student, teachers, labels = made_up(10, 40, 3)
    settings = {"mode": "jsd", "teacher_weights": "entropy", "sample_weights": torch.rand(10)}
    leaf = student.clone().requires_grad_()
    loss = kd_loss(leaf * 1, teachers, labels, inplace=True, **settings)
    loss.backward()
    expected, slope = exact(student, teachers, labels, **settings)
    assert relative(loss.detach(), expected) < 1e-5
    assert relative(leaf.grad, slope) < 1e-5


def test_nothing_is_compiled_where_that_is_forbidden_or_impossible(compiling, monkeypatch):
    student, teachers, labels = made_up(4, 10, 1)
    monkeypatch.setenv("CODISTILL_COMPILE", "0")
    with watch() as ran:
        kd_loss(student, teachers, labels)
    assert ran[0].detail == "plain: CODISTILL_COMPILE is 0"
    monkeypatch.delenv("CODISTILL_COMPILE")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with watch() as ran:
        kd_loss(student, teachers, labels)
    assert ran[0].detail == "plain: there is no C++ compiler (no-such-compiler)"
