"""The kernels of graph_scores against norms and complex numbers in float64."""

import pytest
import torch
from codistill.kernels.graph_scoring import graph_scores
from codistill.tests.kernels.formula_kd import relative

DISTANCES = [("transe", 1), ("transe", 2), ("rotate", 1), ("rotate", 2)]
MODELS = [*DISTANCES, ("distmult", 1), ("complex", 1)]


def distances(query, rows, model, norm):
    if model in ("distmult", "complex"):
        return -(query[:, None] * rows).sum(-1)
    apart = query[:, None] - rows
    if model == "transe" or norm == 2:
        return torch.linalg.vector_norm(apart, ord=norm, dim=-1)
    real, imaginary = apart.chunk(2, -1)
    return torch.complex(real, imaginary).abs().sum(-1)


def made_up(model, batch, width, table, count, shared, dtype=torch.float32):
    generator = torch.Generator().manual_seed(width)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    candidates = torch.randint(0, table, (count,) if shared else (batch, count), generator=generator)
    candidates[..., -1] = candidates[..., 0]
    return draw(batch, width), draw(batch, width // (2 if model == "rotate" else 1)), draw(table, width), candidates


def check(guard, given, model, norm, side="tail", tolerance=1e-5, gradients=1e-5, transposed=False):
    known, relations, entities, candidates = given
    leaves = [guard(one.requires_grad_()) for one in (known, relations, entities)]
    table = leaves[2].t().contiguous().t() if transposed else leaves[2]
    settings = {"model": model, "norm": norm, "side": side, "gamma": 3.0, "backend": "triton"}
    scores = graph_scores(leaves[0], leaves[1], table, guard(candidates), **settings)
    weights = torch.randn(scores.shape)
    (scores * guard(weights)).sum().backward()
    exact = [one.detach().double().requires_grad_() for one in (known, relations, entities)]
    if model == "transe":
        query = exact[0] + exact[1] if side == "tail" else exact[0] - exact[1]
    elif model == "distmult":
        query = exact[0] * exact[1]
    else:
        half = known.shape[1] // 2
        if model == "rotate":
            turn = torch.polar(torch.ones_like(exact[1]), exact[1])
        else:
            turn = torch.complex(exact[1][:, :half], exact[1][:, half:])
        query = torch.complex(exact[0][:, :half], exact[0][:, half:]) * (turn if side == "tail" else turn.conj())
        query = torch.cat([query.real, query.imag], 1)
    best = 3.0 - distances(query, exact[2][candidates], model, norm)
    (best * weights).sum().backward()
    assert relative(scores.detach(), best.detach()) < tolerance
    for ours, theirs in zip(leaves, exact, strict=True):
        assert relative(ours.grad, theirs.grad) < gradients


@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("width", [6, 24, 300])
def test_scores_and_gradients_are_those_of_the_formula(guard, model, norm, shared, width):
    check(guard, made_up(model, 3, width, 11, 9, shared), model, norm)


@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("shared", [True, False])
def test_bfloat16_embeddings_and_the_other_side(guard, model, norm, shared):
    given = made_up(model, 2, 64, 40, 70, shared, torch.bfloat16)
    check(guard, given, model, norm, "head", gradients=4e-3)


def test_one_of_everything_and_a_table_of_another_order_of_memory(guard):
    check(guard, made_up("transe", 1, 1, 1, 1, False), "transe", 1)
    check(guard, made_up("transe", 1, 1, 1, 1, True), "transe", 2)
    check(guard, made_up("rotate", 2, 14, 5, 3, False), "rotate", 1, transposed=True)


def test_no_rows_and_no_candidates(guard):
    for batch, count in ((0, 3), (3, 0)):
        known, entities = torch.randn(batch, 4).requires_grad_(), torch.randn(5, 4).requires_grad_()
        candidates = torch.zeros(batch, count, dtype=torch.int64)
        scores = graph_scores(known, torch.randn(batch, 4), entities, candidates, backend="triton")
        assert scores.shape == (batch, count)
        scores.sum().backward()
        assert (known.grad == 0).all() and (entities.grad == 0).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("model", "norm"), MODELS)
def test_outside_of_the_table_is_nan_and_nobodys_gradient(guard, model, norm, shared):
    known, relations, entities, candidates = made_up(model, 3, 8, 6, 5, shared)
    if shared:
        candidates[1], candidates[3] = 6, -1
        outside = torch.zeros(3, 5, dtype=torch.bool).index_fill_(1, torch.tensor([1, 3]), True)
    else:
        candidates[1, 2], candidates[2, 0] = 6, -1
        outside = (candidates < 0) | (candidates > 5)
    known, entities = (guard(one.requires_grad_()) for one in (known, entities))
    settings = {"model": model, "norm": norm, "backend": "triton"}
    scores = graph_scores(known, guard(relations), entities, guard(candidates), **settings)
    assert torch.equal(scores.isnan(), outside)
    scores[~outside].sum().backward()
    assert known.grad.isfinite().all() and entities.grad.isfinite().all() and entities.grad.abs().sum() > 0


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("model", "norm"), DISTANCES)
def test_points_that_meet_and_nan_in_a_row(guard, model, norm, shared):
    known, relations, entities, candidates = made_up(model, 3, 8, 6, 5, shared)
    known[0], relations[0] = entities[candidates[..., 0].reshape(-1)[0]], 0.0
    known[2, 1] = float("nan")
    known, entities = (guard(one.requires_grad_()) for one in (known, entities))
    settings = {"model": model, "norm": norm, "backend": "triton"}
    scores = graph_scores(known, guard(relations), entities, guard(candidates), **settings)
    assert scores[0, 0] == 0 and scores[:2].isfinite().all() and scores[2].isnan().all()
    (by_known, by_entities) = torch.autograd.grad(scores[0, 0], (known, entities), retain_graph=True)
    assert (by_known[0] == 0).all() and (by_entities.nan_to_num() == 0).all()
    scores.sum().backward()
    assert known.grad[:2].isfinite().all() and known.grad[2].isnan().any()


def test_entities_more_than_two_thousand_million_numbers_apart(tmp_path):
    path, apart = tmp_path / "table", 1_500_000_000
    path.touch()
    with path.open("r+b") as file:
        file.truncate((2 * apart + 64) * 2)  # sparse: 6 GB that take no room
    table = torch.from_file(str(path), shared=True, size=2 * apart + 64, dtype=torch.bfloat16)
    entities = table.as_strided((3, 40), (apart, 1))
    entities.copy_(torch.randn(3, 40))
    known, candidates = torch.randn(2, 40).requires_grad_(), torch.tensor([[2, 1], [0, 2]])
    scores = graph_scores(known, torch.zeros(2, 40), entities, candidates, backend="triton")
    best = -(known.detach().double()[:, None] - entities.double()[candidates]).abs().sum(2)
    assert relative(scores.detach(), best) < 1e-5
    scores.sum().backward()
    assert torch.equal(known.grad, -torch.sign(known.detach()[:, None] - entities.float()[candidates]).sum(1))
