"""The native code of ``graph_scores`` against formulas in float64, and what is done where it cannot be."""

import shutil

import codistill.kernels.cpu.graph_native as graph_native
import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.cpu.library import library
from codistill.kernels.graph_scoring import graph_scores
from codistill.tests.kernels.test_graph_scores import DISTANCES, MODELS, agree, both, made_up

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture
def always(monkeypatch):
    """Every call is made natively, however small it is."""
    monkeypatch.setattr(graph_native, "PAYS_FROM", 0)


def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("side", ["tail", "head"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("batch", "width", "table", "count"),
    [(1, 2, 1, 1), (5, 12, 20, 7), (9, 32, 40, 133), (70, 66, 300, 21), (3, 130, 5, 8)],
)
def test_scores_and_gradients_are_those_of_the_formula(model, norm, side, shared, batch, width, table, count):
    given = made_up(model, batch, width, table, count, shared)
    with watch() as ran:
        ours, exactly = both(given, model, norm, side, 6.0, "cpu")
    product = shared and model in ("distmult", "complex")
    assert [one.detail for one in ran] == (["a matrix product", "matrix products"] if product else ["native", "native"])
    agree(ours, exactly, 2e-6, gradients=4e-6)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("shared", [True, False])
def test_two_threads_make_the_same_numbers_as_one(model, norm, shared):
    given = made_up(model, 300, 36, 700, 150, shared)
    before = threads(1)
    try:
        one = both(given, model, norm, "tail", 0.0, "cpu")[0]
        threads(2)
        two = both(given, model, norm, "tail", 0.0, "cpu")[0]
    finally:
        threads(before)
    assert torch.equal(one[0], two[0])
    for first, second in zip(one[1], two[1], strict=True):
        assert torch.equal(first, second)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("model", "norm"), MODELS)
def test_a_table_and_a_gradient_whose_rows_do_not_lie_together(model, norm):
    known, relations, entities, candidates = made_up(model, 6, 24, 20, 9)
    plain = graph_scores(known, relations, entities, candidates, model=model, norm=norm, backend="reference")
    turned = entities.t().contiguous().t().requires_grad_()
    scores = graph_scores(known, relations, turned, candidates.t().contiguous().t(), model=model, norm=norm)
    torch.testing.assert_close(scores.detach(), plain, rtol=1e-5, atol=1e-5)
    (by_entities,) = torch.autograd.grad(scores.t().contiguous().t(), turned, torch.ones(9, 6).t())
    plain_table = entities.clone().requires_grad_()
    best = graph_scores(known, relations, plain_table, candidates, model=model, norm=norm, backend="reference")
    torch.testing.assert_close(by_entities, torch.autograd.grad(best.sum(), plain_table)[0], rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("model", "norm"), DISTANCES)
@pytest.mark.parametrize("width", [4, 64])
def test_where_points_meet_the_gradient_is_zero(model, norm, width):
    known, relations, entities, candidates = made_up(model, 2, width, 3, 2)
    candidates[:] = torch.tensor([0, 1])
    known = entities[[0, 1]].clone().requires_grad_()
    scores = graph_scores(known, relations * 0, entities.requires_grad_(), candidates, model=model, norm=norm)
    assert scores[0, 0] == 0 and scores[1, 1] == 0 and scores[0, 1] < 0
    by_known, by_entities = torch.autograd.grad(scores[0, 0] + scores[1, 1], (known, entities))
    assert (by_known == 0).all() and (by_entities == 0).all()


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("model", "norm"), MODELS)
@pytest.mark.parametrize("shared", [True, False])
def test_nan_and_infinity_are_where_the_reference_has_them(model, norm, shared):
    made = []
    for backend in ("reference", "cpu"):
        known, relations, entities, candidates = made_up(model, 5, 40, 20, 9, shared)
        known[1, 0], known[3, 2], entities[4, 1] = float("nan"), float("inf"), float("nan")
        known.requires_grad_(), entities.requires_grad_()
        scores = graph_scores(known, relations, entities, candidates, model=model, norm=norm, backend=backend)
        made.append((scores.detach(), *torch.autograd.grad(scores[[0, 2, 4]].sum(), (known, entities))))
    for best, ours in zip(*made, strict=True):
        torch.testing.assert_close(ours, best, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert made[0][0][1].isnan().all()


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("wrong", [20, -1])
@pytest.mark.parametrize("shared", [True, False])
def test_a_candidate_outside_of_the_table_is_refused(wrong, shared):
    known, relations, entities, candidates = made_up("transe", shared=shared)
    candidates[..., 3] = wrong
    with pytest.raises(IndexError, match="out of 20 entities"):
        graph_scores(known, relations, entities, candidates)


@needs_compiler
@pytest.mark.usefixtures("always")
def test_no_rows_and_no_candidates():
    for batch, count in ((0, 3), (3, 0)):
        for shared in (True, False):
            ours, exactly = both(made_up("rotate", batch, count=count, shared=shared), "rotate", 1, "tail", 1.0)
            agree(ours, exactly, 2e-6)


def test_small_calls_and_other_numbers_are_not_native():
    query, entities, candidates = torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(2, 5, dtype=torch.int64)
    assert graph_native.why_not(query, entities, candidates) == "40 differences, native from 1,048,576"
    assert "bfloat16" in graph_native.why_not(query, entities.bfloat16(), candidates)


@pytest.mark.usefixtures("always")
def test_without_a_working_compiler_torch_does_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = library(graph_native.SOURCE)
    assert made[0] is None and "CalledProcessError" in made[1]
    monkeypatch.setattr(graph_native, "_library", lambda: made)
    with watch() as ran:
        ours, exactly = both(made_up("rotate"), "rotate", 1, "tail", 0.0)
    assert ran[0].detail == "by torch: compiling graph_distances.cpp failed (CalledProcessError)"
    agree(ours, exactly, 2e-6)
