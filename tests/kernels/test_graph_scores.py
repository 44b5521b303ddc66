"""Scores of triples against complex numbers and norms in float64, and the losses made of them."""

import codistill.kernels.ops.graph_scores as ops
import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.graph_scoring import graph_scores, negative_sampling_loss, score_kd_loss
from codistill.tests.kernels.formula_kd import relative

DISTANCES = [("transe", 1), ("transe", 2), ("rotate", 1), ("rotate", 2)]
MODELS = [*DISTANCES, ("distmult", 1), ("complex", 1)]
OPERATOR = torch.ops.codistill.graph_distances.default
BACKWARD = torch.ops.codistill.graph_distances_backward.default


def made_up(model, batch=5, width=12, table=20, count=7, shared=False, dtype=torch.float32, seed=0):
    """Known entities, relations and the table of entities, and candidates, some of them twice."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    candidates = torch.randint(0, table, (count,) if shared else (batch, count), generator=generator)
    if candidates.numel() > 1:
        candidates[..., -1] = candidates[..., 0]
    return draw(batch, width), draw(batch, width // (2 if model == "rotate" else 1)), draw(table, width), candidates


def formula(known, relations, entities, candidates, model, norm, side, gamma):
    """gamma - ||h + r - t|| or gamma - sum |h o r - t|, head and tail in their places, with complex numbers."""
    rows = entities[candidates] if candidates.dim() == 2 else entities[candidates].expand(len(known), -1, -1)
    own, other = known[:, None], relations[:, None]
    heads, tails = (own, rows) if side == "tail" else (rows, own)
    if model == "distmult":
        return gamma + (heads * other * tails).sum(-1)
    if model == "transe":
        return gamma - torch.linalg.vector_norm(heads + other - tails, ord=norm, dim=-1)
    half = known.shape[1] // 2
    heads, tails = (torch.complex(one[..., :half], one[..., half:]) for one in (heads, tails))
    if model == "complex":
        other = torch.complex(other[..., :half], other[..., half:])
        return gamma + (heads * other * tails.conj()).sum(-1).real
    turned = heads * torch.polar(torch.ones_like(other), other)
    apart = (turned - tails).abs()
    return gamma - (apart.sum(-1) if norm == 1 else apart.square().sum(-1).sqrt())


def both(given, model, norm, side, gamma, backend=None, seed=1):
    """Scores and gradients of a weighted sum: ours, and those of the formula in float64."""
    *tensors, candidates = given
    made = []
    for exact in (False, True):
        leaves = [(one.double() if exact else one).detach().clone().requires_grad_() for one in tensors]
        if exact:
            scores = formula(*leaves, candidates, model, norm, side, gamma)
        else:
            settings = {"model": model, "norm": norm, "side": side, "gamma": gamma, "backend": backend}
            scores = graph_scores(*leaves, candidates, **settings)
        weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed))
        (scores * weights).sum().backward()
        made.append((scores.detach(), [leaf.grad for leaf in leaves]))
    return made


def agree(ours, exactly, tolerance, gradients=None):
    assert ours[0].dtype == torch.float32
    assert relative(ours[0], exactly[0]) < tolerance
    for got, best in zip(ours[1], exactly[1], strict=True):
        assert relative(got, best) < (gradients or tolerance)


@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("side", ["tail", "head"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_scores_and_gradients_are_those_of_the_formula(model, norm, side, shared, backend):
    agree(*both(made_up(model, shared=shared), model, norm, side, 6.0, backend), 2e-6)


@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("block", [1, 30, 100, 500])
def test_blocks_of_any_size_make_the_whole(model, norm, shared, block, monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.graph_scores.BLOCK", block)
    agree(*both(made_up(model, shared=shared), model, norm, "tail", 0.0, "cpu"), 2e-6)


@pytest.mark.parametrize(("model", "norm"), MODELS)
def test_bfloat16_embeddings_are_summed_in_float32(model, norm):
    given = made_up(model, 9, 64, 50, 33, dtype=torch.bfloat16)
    ours, exactly = both(given, model, norm, "tail", 6.0)
    agree(ours, exactly, 2e-6, gradients=4e-3)
    assert all(one.dtype == torch.bfloat16 for one in ours[1])


@pytest.mark.parametrize(("model", "norm"), MODELS)
def test_gradients_are_those_of_finite_differences(model, norm):
    *tensors, candidates = made_up(model, 3, 4, 6, 3, dtype=torch.float64)
    for side in ("tail", "head"):

        def scores(known, relations, entities, side=side):
            return graph_scores(known, relations, entities, candidates, model=model, norm=norm, side=side)

        assert torch.autograd.gradcheck(scores, [one.requires_grad_() for one in tensors])


@pytest.mark.parametrize(("model", "norm"), DISTANCES)
def test_where_points_meet_the_score_is_gamma_and_the_gradient_zero(model, norm):
    known, relations, entities, candidates = made_up(model, 2, 4, 3, 2)
    relations = torch.zeros_like(relations)
    candidates[:] = torch.tensor([0, 1])
    known = entities[[0, 1]].clone().requires_grad_()
    entities.requires_grad_()
    scores = graph_scores(known, relations, entities, candidates, model=model, norm=norm, gamma=2.0)
    assert scores[0, 0] == 2 and scores[1, 1] == 2 and scores[0, 1] < 2
    (by_known, by_entities) = torch.autograd.grad(scores[0, 0] + scores[1, 1], (known, entities))
    assert (by_known == 0).all() and (by_entities == 0).all()


def test_no_rows_no_candidates_one_of_each():
    for batch, count in ((0, 3), (3, 0), (1, 1)):
        given = made_up("rotate", batch, count=count)
        ours, exactly = both(given, "rotate", 1, "tail", 1.0)
        assert ours[0].shape == (batch, count)
        agree(ours, exactly, 2e-6)


def test_nan_and_infinity_stay_in_their_row():
    known, relations, entities, candidates = made_up("transe")
    clean = graph_scores(known, relations, entities, candidates)
    known[1, 0], known[3, 0] = float("nan"), float("inf")
    spoilt = graph_scores(known, relations, entities, candidates)
    assert torch.equal(spoilt[[0, 2, 4]], clean[[0, 2, 4]])
    assert spoilt[1].isnan().all() and (spoilt[3] == -float("inf")).all()


def test_only_what_learns_gets_a_gradient():
    known, relations, entities, candidates = made_up("transe")
    frozen = graph_scores(known.requires_grad_(), relations, entities, candidates)
    frozen.sum().backward()
    assert entities.grad is None and relations.grad is None and known.grad is not None
    graph_scores(known.detach(), relations, entities.requires_grad_(), candidates).sum().backward()
    assert entities.grad is not None
    assert not graph_scores(known.detach(), relations, entities.detach(), candidates).requires_grad


def test_a_candidate_outside_of_the_table_is_refused():
    known, relations, entities, candidates = made_up("transe")
    for wrong in (20, -1):
        candidates[2, 3] = wrong
        with pytest.raises((IndexError, RuntimeError), match="out of"):
            graph_scores(known, relations, entities, candidates)


def test_the_whole_batch_is_never_gathered():
    known, relations, entities, candidates = made_up("transe", 64, 128, 50, 256)
    with torch.profiler.profile(profile_memory=True) as profile:
        graph_scores(known, relations, entities.requires_grad_(), candidates).sum().backward()
    most = max(abs(one.cpu_memory_usage) / max(one.count, 1) for one in profile.key_averages())
    assert most < 64 * 256 * 128 * 4 / 4


@pytest.mark.parametrize("shared", [True, False])
def test_the_operators_are_registered_as_torch_wants_it(shared):
    query, _, entities, candidates = made_up("transe", shared=shared)
    for dtype in (torch.float32, torch.bfloat16):
        table = entities.to(dtype).requires_grad_()
        torch.library.opcheck(OPERATOR, (query.clone().requires_grad_(), table, candidates, "modulus", "cpu"))
        made = OPERATOR(query, table.detach(), candidates, "euclidean", "")
        for wanted in ([True, True], [False, True], [True, False]):
            arguments = (torch.randn_like(made), query, table.detach(), candidates, made, "euclidean", "", wanted)
            torch.library.opcheck(BACKWARD, arguments)


def test_one_graph_compiled_and_exported_for_any_number_of_rows():
    known, relations, entities, candidates = made_up("rotate")

    class Model(torch.nn.Module):
        def forward(self, known, relations, entities, candidates):
            scores = graph_scores(known, relations, entities, candidates, model="rotate", gamma=6.0)
            return negative_sampling_loss(scores[:, 0], scores[:, 1:], reduction="none")

    arguments = (known, relations, entities.requires_grad_(), candidates)
    plain = Model()(*arguments)
    (by_entities,) = torch.autograd.grad(plain.sum(), entities)
    compiled = torch.compile(Model(), fullgraph=True)(*arguments)
    torch.testing.assert_close(plain, compiled)
    torch.testing.assert_close(torch.autograd.grad(compiled.sum(), entities)[0], by_entities)
    rows = torch.export.Dim("rows")
    shapes = {"known": {0: rows}, "relations": {0: rows}, "entities": {}, "candidates": {0: rows}}
    exported = torch.export.export(Model(), arguments, dynamic_shapes=shapes).module()
    more = made_up("rotate", 11, seed=3)
    torch.testing.assert_close(exported(*more), Model()(*more))


def test_transforms_are_refused_with_a_sentence():
    known, relations, entities, candidates = made_up("transe")

    def loss(known):
        return graph_scores(known, relations, entities, candidates).sum()

    for transformed, argument in ((torch.func.vmap(loss), known.expand(2, 5, 12)), (torch.func.grad(loss), known)):
        with pytest.raises(NotImplementedError, match="put several batches into one call"):
            transformed(argument)
    with pytest.raises(NotImplementedError, match="torch.func transforms"):
        torch.func.vmap(lambda one: OPERATOR(one, entities, candidates, "absolute", ""))(known.expand(2, 5, 12))


def test_what_does_not_fit_is_refused_with_a_sentence():
    known, relations, entities, candidates = made_up("transe")
    refused = [
        ("model is 'hole'", (known, relations, entities, candidates), {"model": "hole"}),
        ("side is 'left'", (known, relations, entities, candidates), {"side": "left"}),
        ("norm is 3 for transe; expected 1 or 2", (known, relations, entities, candidates), {"norm": 3}),
        (
            "norm is 2 for distmult; expected 1",
            (known, relations, entities, candidates),
            {"model": "distmult", "norm": 2},
        ),
        ("relations has shape", (known, relations, entities, candidates), {"model": "rotate"}),
        ("needs an even width", (known[:, :5], relations, entities[:, :5], candidates), {"model": "rotate"}),
        ("complex needs an even", (known[:, :5], relations[:, :5], entities[:, :5], candidates), {"model": "complex"}),
        ("entities are 11 wide", (known, relations, entities[:, 1:], candidates), {}),
        ("expected int64", (known, relations, entities, candidates.int()), {}),
        ("candidates has 4 rows", (known, relations, entities, candidates[1:]), {}),
        ("expected two dimensions of floats", (known.long(), relations, entities, candidates), {}),
    ]
    for sentence, arguments, settings in refused:
        with pytest.raises(ValueError, match=sentence):
            graph_scores(*arguments, **settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_negative_sampling_is_the_papers(temperature, reduction):
    positive, negative, weights = (torch.randn(4), torch.randn(4, 6), torch.rand(4))
    leaves = [one.clone().requires_grad_() for one in (positive, negative)]
    settings = {"adversarial_temperature": temperature, "reduction": reduction, "sample_weights": weights}
    loss = negative_sampling_loss(*leaves, **settings)
    exact = [one.double().requires_grad_() for one in (positive, negative)]
    rows = []
    for b in range(4):
        total = -torch.log(torch.sigmoid(exact[0][b]))
        shares = torch.exp(temperature * negative[b].double()) / torch.exp(temperature * negative[b].double()).sum()
        for i in range(6):
            total = total - shares[i] * torch.log(torch.sigmoid(-exact[1][b, i]))
        rows.append(total * weights[b].double())
    best = torch.stack(rows)
    best = best.mean() if reduction == "mean" else best.sum() if reduction == "sum" else best
    assert relative(loss.detach(), best.detach()) < 2e-6
    loss.sum().backward()
    best.sum().backward()
    for ours, theirs in zip(leaves, exact, strict=True):
        assert relative(ours.grad, theirs.grad) < 2e-6


def test_negative_sampling_bears_extremes_and_no_rows_and_refuses_what_does_not_fit():
    assert negative_sampling_loss(torch.empty(0), torch.empty(0, 3)) == 0
    assert negative_sampling_loss(torch.tensor([1e4]), torch.tensor([[-1e4, -2e4]])) == 0
    assert negative_sampling_loss(torch.tensor([-1e4]), torch.tensor([[1e4, -1e4]])) == 2e4
    for arguments, settings, sentence in (
        ((torch.rand(3), torch.rand(4, 2)), {}, "expected \\[B\\] and \\[B, n\\]"),
        ((torch.rand(3), torch.rand(3, 0)), {}, "n of at least 1"),
        ((torch.rand(3), torch.rand(3, 2)), {"adversarial_temperature": -1.0}, "expected 0 or more"),
        ((torch.rand(3), torch.rand(3, 2)), {"reduction": "max"}, "reduction is 'max'"),
        ((torch.rand(3), torch.rand(3, 2)), {"sample_weights": torch.rand(2)}, "sample_weights has shape"),
    ):
        with pytest.raises(ValueError, match=sentence):
            negative_sampling_loss(*arguments, **settings)


def test_distillation_of_scores_is_a_divergence_over_candidates():
    student, teacher = torch.randn(4, 6).requires_grad_(), torch.randn(4, 6)
    with watch() as ran:
        loss = score_kd_loss(student, teacher + 3.0, 2.0, backend="reference")
    assert ran[0].operation == "kd_loss" and ran[0].backend == "reference"
    exact = student.detach().double().requires_grad_()
    p, q = (torch.softmax(one / 2.0, 1) for one in (teacher.double(), exact))
    best = 4 * (p * (p / q).log()).sum() / 4
    assert relative(loss.detach(), best.detach()) < 5e-6
    loss.backward()
    best.backward()
    assert relative(student.grad, exact.grad) < 5e-6


def test_a_backward_that_gets_nothing_makes_nothing(monkeypatch):
    class Undefined(torch.autograd.Function):
        @staticmethod
        def forward(ctx, scores):
            return scores.clone()

        @staticmethod
        def backward(ctx, by_output):
            return None

    def never(*arguments):
        raise AssertionError("nobody asked for a gradient")

    monkeypatch.setitem(ops.BACKWARD._found, "cpu", never)
    known, relations, entities, candidates = made_up("transe")
    entities.requires_grad_()
    Undefined.apply(graph_scores(known, relations, entities, candidates)).sum().backward()
    assert entities.grad is None
