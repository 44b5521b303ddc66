"""linear_kd_loss against logits made whole in float64, and as torch sees it."""

import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.linear import linear_kd_loss, rows_at_a_time
from codistill.tests.kernels.formula_kd import exact_rows, relative

OPERATOR = torch.ops.codistill.linear_kd_loss.default


def made_up(rows, classes, count=1, width=12, dtype=torch.float32, seed=0):
    """A student's hidden states, head and bias; those of teachers, each of another width; labels, some ignored."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (torch.randn(shape, generator=generator)).to(dtype)

    student = [draw(rows, width), draw(classes, width), draw(classes)]
    hidden = [draw(rows, width + k) for k in range(count)]
    heads = [draw(classes, width + k) for k in range(count)]
    labels = torch.randint(0, classes, (rows,), generator=generator)
    labels[1::3] = -100
    return student, hidden, heads, labels


def expected(student, hidden, heads, labels, reduction="mean", **settings):
    """The loss and the gradients by the student's three tensors, in float64, from all logits at once."""
    leaves = [one.detach().double().requires_grad_() for one in student]
    logits = leaves[0] @ leaves[1].T + leaves[2]
    teachers = [one.double() @ head.double().T for one, head in zip(hidden, heads, strict=True)]
    rows = exact_rows(logits, teachers, labels, **settings)
    loss = rows.sum() if reduction == "sum" else rows.sum() / max(len(rows), 1)
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves]


def found(student, hidden, heads, labels, **settings):
    leaves = [one.detach().clone().requires_grad_() for one in student]
    loss = linear_kd_loss(leaves[0], leaves[1], hidden, heads, labels, student_bias=leaves[2], **settings)
    loss.backward()
    assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]
    return loss.detach(), [leaf.grad for leaf in leaves]


def agree(left, right, tolerance):
    assert relative(left[0], right[0]) < tolerance
    for ours, theirs in zip(left[1], right[1], strict=True):
        assert relative(ours, theirs) < tolerance


@pytest.mark.parametrize("mode", ["forward", "reverse", "jsd", "decoupled"])
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("chunk", [1, 4, 9, None])
def test_loss_and_gradients_are_those_of_the_whole(mode, count, chunk):
    given = made_up(9, 257, count)
    settings = {"mode": mode, "temperature": 2.0, "ce_weight": 0.5, "kd_weight": 1.5, "label_smoothing": 0.1}
    agree(found(*given, chunk=chunk, **settings), expected(*given, **settings), 5e-6)


@pytest.mark.parametrize("classes", [10, 1000, 1003, 9001])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_any_number_of_classes_and_both_reductions(classes, reduction):
    given = made_up(5, classes, 2)
    agree(found(*given, chunk=2, reduction=reduction), expected(*given, reduction=reduction), 5e-6)


@pytest.mark.parametrize("weights", ["teacher", "row", "entropy"])
def test_weights_of_rows_and_teachers_are_cut_with_the_rows(weights):
    given = made_up(7, 10, 3)
    teacher_weights = {"teacher": torch.rand(3), "row": torch.rand(7, 3), "entropy": "entropy"}[weights]
    settings = {"teacher_weights": teacher_weights, "sample_weights": torch.rand(7), "average": "logits"}
    agree(found(*given, chunk=3, **settings), expected(*given, **settings), 5e-6)


@pytest.mark.parametrize("labelled", [True, False])
def test_bfloat16_gradients_are_right_to_its_rounding(labelled):
    # The case of Liger-Kernel's issue 1432: logits large beside bfloat16's steps, a student near its teacher.
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(shape, generator=generator) for shape in ((64, 256), (300, 256), (300,))]
    hidden = [(student[0] + 0.05 * torch.randn(64, 256, generator=generator)).bfloat16()]
    heads = [(student[1] + 0.05 * torch.randn(300, 256, generator=generator)).bfloat16()]
    student = [one.bfloat16() for one in student]
    labels = torch.randint(0, 300, (64,), generator=generator) if labelled else None
    given = (student, hidden, heads, labels)
    ours, exactly = found(*given, chunk=16), expected(*given)
    agree(ours, exactly, 3e-3)
    rounded = [exactly[0], [one.bfloat16() for one in exactly[1]]]
    for got, best in zip(ours[1], rounded[1], strict=True):
        assert (got.double() - best.double()).abs().max() <= 2**-7 * best.abs().max()


def test_the_gradient_of_the_head_is_summed_in_float32_over_many_chunks():
    given = made_up(400, 10, dtype=torch.bfloat16)
    agree(found(*given, chunk=1), expected(*given), 3e-3)


def test_the_way_of_a_gpu_with_its_products_played_by_the_cpu(monkeypatch):
    real = torch.mm

    def played(left, right, out_dtype=None, **settings):
        if out_dtype is None:
            return real(left, right, **settings)
        assert left.dtype == right.dtype == torch.bfloat16
        return real(left.to(out_dtype), right.to(out_dtype))

    monkeypatch.setattr(torch, "mm", played)
    monkeypatch.setattr("codistill.kernels.reference.linear._operand", lambda head, hidden: head)
    monkeypatch.setattr("codistill.kernels.reference.linear.SLICE", 12 * 7)  # seven classes at a time
    given = made_up(30, 257, 2, dtype=torch.bfloat16)
    agree(found(*given, chunk=8), expected(*given), 4e-3)


def test_dtypes_may_differ_and_float16_keeps_small_gradients():
    student, hidden, heads, labels = made_up(6, 10, 2)
    mixed = ([student[0].bfloat16(), student[1], student[2].bfloat16()], [hidden[0].bfloat16(), hidden[1]], heads)
    agree(found(*mixed, labels, chunk=4), expected(*mixed, labels), 3e-3)
    student, hidden, heads, labels = made_up(64, 1000, dtype=torch.float16)
    agree(found(student, hidden, heads, labels), expected(student, hidden, heads, labels), 2e-3)


def test_only_what_learns_gets_a_gradient():
    (states, head, bias), hidden, heads, labels = made_up(5, 10)
    head.requires_grad_()
    loss = linear_kd_loss(states, head, hidden[0], heads[0], labels, student_bias=bias, chunk=2)
    (by_head,) = torch.autograd.grad(3 * loss, head)
    assert relative(by_head, 3 * expected((states, head, bias), hidden, heads, labels)[1][1]) < 5e-6
    with torch.no_grad():
        assert not linear_kd_loss(states, head, hidden, heads, labels).requires_grad
    hidden[0].requires_grad_()
    linear_kd_loss(states, head, hidden, heads, labels).backward()
    assert hidden[0].grad is None


def test_teachers_have_biases_too_and_rows_have_any_shape():
    (states, head, bias), hidden, heads, labels = made_up(6, 10, 2)
    biases = [torch.randn(10), torch.randn(10)]
    wide = [torch.cat([one, torch.ones(6, 1)], 1) for one in hidden]
    tall = [torch.cat([one, extra[:, None]], 1) for one, extra in zip(heads, biases, strict=True)]
    loss = linear_kd_loss(
        states.view(2, 3, -1),
        head,
        [one.view(2, 3, -1) for one in hidden],
        heads,
        labels.view(2, 3),
        student_bias=bias,
        teacher_biases=biases,
        sample_weights=torch.ones(2, 3),
    )
    assert relative(loss, expected((states, head, bias), wide, tall, labels)[0]) < 5e-6


def test_no_rows_one_row_and_no_labels_left():
    given = made_up(0, 10)
    loss, gradients = found(*given)
    assert loss == 0 and all((one == 0).all() for one in gradients) and gradients[0].shape == (0, 12)
    one = made_up(1, 10)
    agree(found(*one), expected(*one), 5e-6)
    student, hidden, heads, labels = made_up(4, 10)
    ignored = torch.full_like(labels, -100)
    agree(found(student, hidden, heads, ignored), expected(student, hidden, heads, ignored), 5e-6)


def test_nan_in_a_row_stays_in_its_row():
    (states, head, bias), hidden, heads, labels = made_up(5, 10)
    clean = found((states, head, bias), hidden, heads, labels, chunk=2)[1][0]
    states = states.clone()
    states[3, 0] = float("nan")
    spoilt = found((states, head, bias), hidden, heads, labels, chunk=2)[1][0]
    others = [0, 1, 2, 4]
    assert torch.equal(spoilt[others], clean[others]) and spoilt[3].isnan().all()


def test_each_chunk_is_a_call_of_kd_loss_on_the_same_back_end():
    student, hidden, heads, labels = made_up(5, 10)
    with watch() as ran:
        linear_kd_loss(student[0], student[1], hidden, heads, labels, chunk=2, backend="reference")
    assert [(one.operation, one.backend) for one in ran] == [
        ("linear_kd_loss", "reference"),
        *[("kd_loss", "reference")] * 3,
    ]
    assert ran[0].detail == "3 chunks of 2 rows"


def test_a_chunk_is_64_megabytes_or_a_quarter_of_the_head():
    assert rows_at_a_time(1000, 512) == 16777
    assert rows_at_a_time(128256, 4096) == 1024
    assert rows_at_a_time(2**25, 1) == 1


def test_never_more_logits_than_a_chunk_has():
    states, head, teacher = torch.randn(2000, 4), torch.randn(500, 4).requires_grad_(), torch.randn(500, 4)
    with torch.profiler.profile(profile_memory=True) as profile:
        linear_kd_loss(states, head, states, teacher, chunk=50, backend="reference")
    most = max(abs(one.cpu_memory_usage) / max(one.count, 1) for one in profile.key_averages())
    assert most < 2000 * 500 * 4 / 4


def test_gradients_are_those_of_finite_differences():
    (states, head, bias), hidden, heads, labels = made_up(5, 6, 2, width=3, dtype=torch.float64)

    def loss(states, head, bias):
        return linear_kd_loss(states, head, hidden, heads, labels, student_bias=bias, temperature=2.0, chunk=2)

    assert torch.autograd.gradcheck(loss, [one.requires_grad_() for one in (states, head, bias)])


@pytest.mark.parametrize("learn", [True, False])
def test_the_operator_is_registered_as_torch_wants_it(learn):
    (states, head, bias), hidden, heads, labels = made_up(4, 10, 2)
    numbers = [2.0, 0.5, 1.5, 1.0, 0.3, 1.0, 2.0, 0.1]
    said = ("forward probabilities uniform", numbers, -100, "mean", 3, "reference")
    tensors = [one.requires_grad_(learn) for one in (states, head, bias)]
    torch.library.opcheck(OPERATOR, (*tensors, hidden, heads, [], labels, None, None, *said, [learn] * 3))
    torch.library.opcheck(
        OPERATOR,
        (
            states,
            head,
            None,
            hidden,
            heads,
            [bias] * 2,
            None,
            torch.rand(2),
            torch.rand(4),
            *said,
            [learn] * 2 + [False],
        ),
    )


def test_one_graph_compiled_and_exported_for_any_number_of_rows():
    (states, head, _), hidden, heads, labels = made_up(6, 10)

    class Model(torch.nn.Module):
        def forward(self, states, head, hidden, teacher, labels):
            return linear_kd_loss(states * 1.5, head, hidden, teacher, labels, chunk=4)

    arguments = (states, head.requires_grad_(), hidden[0], heads[0], labels)
    plain = Model()(*arguments)
    (by_head,) = torch.autograd.grad(plain, head)
    compiled = torch.compile(Model(), fullgraph=True)(*arguments)
    assert torch.equal(plain, compiled) and torch.equal(torch.autograd.grad(compiled, head)[0], by_head)
    rows = torch.export.Dim("rows")
    shapes = {"states": {0: rows}, "head": {}, "hidden": {0: rows}, "teacher": {}, "labels": {0: rows}}
    exported = torch.export.export(Model(), arguments, dynamic_shapes=shapes).module()
    more = torch.randn(11, 12), head, torch.randn(11, 12), heads[0], torch.randint(0, 10, (11,))
    assert torch.equal(exported(*more), Model()(*more))


def test_transforms_are_refused_with_a_sentence():
    (states, head, _), hidden, heads, _ = made_up(4, 10)

    def loss(head):
        return linear_kd_loss(states, head, hidden, heads)

    for transformed, argument in ((torch.func.vmap(loss), head.expand(2, 10, 12)), (torch.func.grad(loss), head)):
        with pytest.raises(NotImplementedError, match="linear_kd_loss: torch.func transforms"):
            transformed(argument)
    said = ("forward probabilities uniform", [1.0] * 8, -100, "mean", 3, "", [False] * 3)
    with pytest.raises(NotImplementedError, match="use kd_loss on logits there"):
        torch.func.vmap(lambda one: OPERATOR(one, head, None, hidden, heads, [], None, None, None, *said)[0])(
            states.expand(2, 4, 12)
        )


def test_what_does_not_fit_is_refused_with_a_sentence():
    (states, head, bias), hidden, heads, labels = made_up(4, 10, 2)
    refused = [
        ("teacher 1's head has 9 classes and the student's 10", (states, head, hidden, [heads[0], heads[1][:9]]), {}),
        ("teacher 0's hidden states are 11 wide", (states, head, [hidden[0][:, 1:], hidden[1]], heads), {}),
        ("teacher 0's hidden states have shape", (states, head, [one[1:] for one in hidden], heads), {}),
        ("there are 2 teacher_hidden, 1 teacher_heads", (states, head, hidden, heads[:1]), {}),
        ("teacher_hidden is empty", (states, head, [], []), {}),
        ("expected floats", (states.long(), head, hidden, heads), {}),
        ("student's bias has shape", (states, head, hidden, heads), {"student_bias": bias[1:]}),
        ("chunk is 0", (states, head, hidden, heads), {"chunk": 0}),
        ("reduction is 'none'", (states, head, hidden, heads), {"reduction": "none"}),
        ("labels has shape", (states, head, hidden, heads, labels[1:]), {}),
        ("give labels", (states, head, hidden, heads), {"mode": "decoupled"}),
        ("teacher_weights has shape", (states, head, hidden, heads), {"teacher_weights": torch.rand(3)}),
        ("expected a tensor, None or 'entropy'", (states, head, hidden, heads), {"teacher_weights": "best"}),
        ("there is no back end 'gpu'", (states, head, hidden, heads), {"backend": "gpu"}),
    ]
    for sentence, arguments, settings in refused:
        with pytest.raises(ValueError, match=sentence):
            linear_kd_loss(*arguments, **settings)
