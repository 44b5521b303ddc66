"""Relational losses against the papers' formulas over all pairs and triples, in float64."""

import itertools

import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.relations import relation_angle_loss, relation_distance_loss
from codistill.tests.kernels.formula_kd import relative

LOSSES = [relation_distance_loss, relation_angle_loss]
OPERATORS = {
    relation_distance_loss: torch.ops.codistill.relation_distance_loss.default,
    relation_angle_loss: torch.ops.codistill.relation_angle_loss.default,
}


def huber(x):
    return torch.where(x.abs() <= 1, x.square() / 2, x.abs() - 0.5)


def by_distance(student, teacher, reduction):
    """Park et al. 2019, eq. 3 to 5, over pairs of different rows."""
    pairs = list(itertools.permutations(range(len(student)), 2))
    if not pairs:
        return student.sum() * 0
    first, second = (torch.tensor(one) for one in zip(*pairs, strict=True))
    ours, theirs = ((one[first] - one[second]).norm(dim=1) for one in (student, teacher))
    losses = huber(ours / ours.mean() - theirs / theirs.mean())
    return losses.mean() if reduction == "mean" else losses.sum()


def by_angle(student, teacher, reduction):
    """Park et al. 2019, eq. 6 and 7, over triples of different rows."""
    triples = list(itertools.permutations(range(len(student)), 3))
    if not triples:
        return student.sum() * 0
    i, j, k = (torch.tensor(one) for one in zip(*triples, strict=True))
    ours, theirs = (torch.cosine_similarity(one[i] - one[j], one[k] - one[j]) for one in (student, teacher))
    losses = huber(ours - theirs)
    return losses.mean() if reduction == "mean" else losses.sum()


FORMULAS = {relation_distance_loss: by_distance, relation_angle_loss: by_angle}


def made_up(rows, seed=0, dtype=torch.float32, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    student = (torch.randn(rows, 7, generator=generator) + 5).to(dtype)
    # Some rows far away, so that Huber's function is met on both sides.
    student[:: max(rows // 3, 1)] *= spread
    return student, torch.randn(rows, 4, generator=generator).to(dtype)


def both(loss, student, teacher, reduction="mean", backend=None):
    leaf, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    ours = loss(leaf, teacher, reduction=reduction, backend=backend)
    best = FORMULAS[loss](exact, teacher.double(), reduction)
    (2 * ours).backward()
    (2 * best).backward()
    return (ours.detach(), leaf.grad), (best.detach(), exact.grad)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [3, 10, 37])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_loss_and_gradient_are_those_of_the_formula(loss, rows, reduction, backend):
    student, teacher = made_up(rows, spread=4.0)
    (ours, by_ours), (best, by_best) = both(loss, student, teacher, reduction, backend)
    assert relative(ours, best) < 5e-6
    assert relative(by_ours, by_best) < 2e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("block", [1, 20, 45, 100, 300])
def test_blocks_of_any_size_make_the_whole(loss, block, monkeypatch):
    monkeypatch.setattr("codistill.kernels.reference.relations.BLOCK", block)
    student, teacher = made_up(10, spread=4.0)
    for backend in ("reference", "cpu"):
        (ours, by_ours), (best, by_best) = both(loss, student, teacher, backend=backend)
        assert relative(ours, best) < 5e-6
        assert relative(by_ours, by_best) < 2e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_bfloat16_rows_are_related_in_float32(loss):
    student, teacher = made_up(20, dtype=torch.bfloat16)
    (ours, by_ours), (best, by_best) = both(loss, student, teacher)
    assert ours.dtype == torch.float32 and by_ours.dtype == torch.bfloat16
    assert relative(ours, best) < 5e-6
    assert relative(by_ours, by_best) < 4e-3


def test_embeddings_that_are_the_same_up_to_size_and_place_have_no_distance_loss():
    student, _ = made_up(30)
    student.requires_grad_()
    loss = relation_distance_loss(student, 3 * student.detach() + 1, backend="reference")
    assert loss < 1e-12
    loss.backward()
    assert student.grad.abs().max() < 1e-6


def test_rows_that_are_close_keep_their_digits_in_the_reference():
    student = torch.randn(12, 5, dtype=torch.float64)
    student[1] = student[0] + 1e-4 * torch.randn(5, dtype=torch.float64)
    teacher = torch.randn(12, 5, dtype=torch.float64)
    exact = student.float().double().requires_grad_()
    by_distance(exact, teacher.float().double(), "mean").backward()
    leaf = student.float().requires_grad_()
    relation_distance_loss(leaf, teacher.float(), backend="reference").backward()
    assert relative(leaf.grad, exact.grad) < 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_few_rows_make_zero(loss):
    for rows in (0, 1, 2) if loss is relation_angle_loss else (0, 1):
        student = torch.randn(rows, 3).requires_grad_()
        made = loss(student, torch.randn(rows, 2))
        made.backward()
        assert made == 0 and (student.grad == 0).all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rows_that_coincide_have_no_direction_and_no_nan(backend):
    student, teacher = made_up(6)
    student[4] = student[1]
    for loss in LOSSES:
        leaf = student.clone().requires_grad_()
        made = loss(leaf, teacher, backend=backend)
        made.backward()
        assert made.isfinite() and leaf.grad.isfinite().all() and made > 0
        same = torch.ones(5, 3).requires_grad_()
        made = loss(same, torch.randn(5, 2), backend=backend)
        made.backward()
        assert made.isfinite() and (same.grad == 0).all()
    # A coincidence in the student alone: cosine 0 there. Every other triple is the formula's.
    i, j, k = (torch.tensor(one) for one in zip(*itertools.permutations(range(6), 3), strict=True))
    wide = student.double(), teacher.double()
    ours, theirs = (torch.cosine_similarity(one[i] - one[j], one[k] - one[j]) for one in wide)
    assert relative(relation_angle_loss(student, teacher, backend=backend), huber(ours - theirs).mean()) < 5e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_in_is_nan_out(loss):
    student, teacher = made_up(6)
    student[2, 0] = float("nan")
    leaf = student.requires_grad_()
    made = loss(leaf, teacher)
    made.backward()
    assert made.isnan() and leaf.grad.isnan().any()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    student, teacher = made_up(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda one: loss(one, teacher), student.requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_no_more_than_blocks_is_held(loss, monkeypatch):
    monkeypatch.setattr("codistill.kernels.reference.relations.BLOCK", 2**12)
    student, teacher = torch.randn(200, 3).requires_grad_(), torch.randn(200, 3)
    if loss is relation_angle_loss:
        student, teacher = student[:60].detach().requires_grad_(), teacher[:60]
    with torch.profiler.profile(profile_memory=True) as profile, watch() as ran:
        loss(student, teacher, backend="reference")
    assert ran[0].detail.startswith("blocks of")
    most = max(abs(one.cpu_memory_usage) / max(one.count, 1) for one in profile.key_averages())
    assert most < len(student) ** 2 * 4 * (1 if loss is relation_distance_loss else 10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("learn", [True, False])
def test_the_operators_are_registered_as_torch_wants_it(loss, learn):
    student, teacher = made_up(5)
    for dtype in (torch.float32, torch.bfloat16):
        one = student.to(dtype).requires_grad_(learn)
        torch.library.opcheck(OPERATORS[loss], (one, teacher, "mean", "reference", learn))


def test_one_graph_compiled_and_exported_for_any_number_of_rows():
    class Model(torch.nn.Module):
        def forward(self, student, teacher):
            return relation_distance_loss(student * 2, teacher) + 2 * relation_angle_loss(student, teacher)

    student, teacher = made_up(6)
    student.requires_grad_()
    plain, compiled = Model()(student, teacher), torch.compile(Model(), fullgraph=True)(student, teacher)
    torch.testing.assert_close(plain, compiled)
    gradients = [torch.autograd.grad(one, student)[0] for one in (plain, compiled)]
    torch.testing.assert_close(*gradients)
    rows = torch.export.Dim("rows")
    shapes = {"student": {0: rows}, "teacher": {0: rows}}
    exported = torch.export.export(Model(), (student, teacher), dynamic_shapes=shapes).module()
    more = made_up(11, seed=3)
    torch.testing.assert_close(exported(*more), Model()(*more))


@pytest.mark.parametrize("loss", LOSSES)
def test_transforms_and_what_does_not_fit_are_refused_with_a_sentence(loss):
    student, teacher = made_up(5)
    for transformed, argument in (
        (torch.func.vmap(lambda one: loss(one, teacher)), student.expand(2, 5, 7)),
        (torch.func.grad(lambda one: loss(one, teacher)), student),
        (torch.func.vmap(lambda one: OPERATORS[loss](one, teacher, "mean", "", False)[0]), student.expand(2, 5, 7)),
    ):
        with pytest.raises(NotImplementedError, match="relate the rows of one batch"):
            transformed(argument)
    for arguments, settings, sentence in (
        ((student, teacher[1:]), {}, "student has 5 rows and teacher 4"),
        ((student.long(), teacher), {}, "expected floats"),
        ((student[0], teacher), {}, "student has shape"),
        ((student, teacher), {"reduction": "none"}, "reduction is 'none'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            loss(*arguments, **settings)
    with pytest.raises(ValueError, match=f"{loss.__name__}: the back end 'triton' was asked for"):
        loss(student, teacher, backend="triton")
