"""Scores against complex numbers and norms, triple by triple, in float64; and embeddings that are scored."""

import math

import pytest
import torch
from codistill.graphs.embedding import Embedding
from codistill.graphs.scores import SCORES, score, score_all, score_candidates, score_model
from codistill.graphs.table_scores import table_scores


def formula(name, head, relation, tail):
    """The score of one triple of rows, by the book."""
    if name == "transe":
        return -(head + relation - tail).abs().sum()
    if name == "transe-l2":
        return -(head + relation - tail).square().sum().sqrt()
    if name == "distmult":
        return (head * relation * tail).sum()
    head, tail = (torch.complex(*row.chunk(2)) for row in (head, tail))
    if name == "complex":
        return (head * torch.complex(*relation.chunk(2)) * tail.conj()).sum().real
    apart = (head * torch.exp(1j * relation) - tail).abs()
    return -apart.sum() if name == "rotate" else -apart.square().sum().sqrt()


def rows(name, draw, batch=4, entities=9, dimension=5):
    model = SCORES[name]
    return model, draw(batch, model.relation_width(dimension)), draw(entities, model.entity_width(dimension))


@pytest.mark.parametrize("name", SCORES)
def test_a_triple_all_entities_own_and_shared_candidates_score_by_the_book(name, draw):
    model, relations, entities = rows(name, draw)
    heads, tails = torch.tensor([3, 0, 8, 3]), torch.tensor([5, 0, 1, 2])
    best = torch.stack(
        [formula(name, entities[h], r, entities[t]) for h, r, t in zip(heads, relations, tails, strict=True)]
    )
    torch.testing.assert_close(score(model, entities[heads], relations, entities[tails]), best, atol=1e-12, rtol=1e-12)
    for side, known in (("tail", heads), ("head", tails)):
        whole = torch.stack(
            [
                torch.stack(
                    [formula(name, *((entities[k], r, e) if side == "tail" else (e, r, entities[k]))) for e in entities]
                )
                for k, r in zip(known, relations, strict=True)
            ]
        )
        made = score_all(model, entities[known], relations, entities, side)
        torch.testing.assert_close(made, whole, atol=1e-12, rtol=1e-12)
        own, shared = torch.tensor([[1, 1, 4], [0, 8, 2], [3, 3, 3], [7, 6, 5]]), torch.tensor([4, 0, 4])
        made = score_candidates(model, entities[known], relations, entities, own, side)
        torch.testing.assert_close(made, whole.gather(1, own), atol=1e-12, rtol=1e-12)
        made = score_candidates(model, entities[known], relations, entities, shared, side)
        torch.testing.assert_close(made, whole[:, shared], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("side", ["head", "tail"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_of_tables_are_those_of_finite_differences(name, side, shared, draw):
    model, relations, entities = rows(name, draw, batch=3, entities=6, dimension=2)
    triples = torch.tensor([[0, 2, 1], [5, 0, 5], [0, 2, 3]])
    candidates = torch.tensor([4, 0, 4]) if shared else torch.tensor([[4, 1], [0, 0], [2, 3]])

    def scores(entities, relations):
        return table_scores(model, entities, relations, triples, candidates, side)

    assert torch.autograd.gradcheck(scores, (entities.requires_grad_(), relations.requires_grad_()))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("side", ["head", "tail"])
def test_tables_have_the_gradients_of_looked_up_rows(name, side, draw):
    model, relations, entities = rows(name, draw)
    triples, candidates = (
        torch.tensor([[3, 1, 5], [0, 1, 0], [8, 2, 1]]),
        torch.tensor([[1, 1, 4], [0, 8, 2], [3, 3, 3]]),
    )
    leaves = entities.requires_grad_(), relations.requires_grad_()
    weights = draw(3, 3)
    made = table_scores(model, *leaves, triples, candidates, side)
    known = entities[triples[:, 0 if side == "tail" else 2]]
    best = score_candidates(model, known, relations[triples[:, 1]], entities, candidates, side)
    torch.testing.assert_close(made, best, atol=0, rtol=0)
    for one, other in zip(*(torch.autograd.grad((s * weights).sum(), leaves) for s in (made, best)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-13, rtol=1e-13)


def test_only_the_table_that_learns_gets_a_gradient(draw):
    model, relations, entities = rows("transe", draw)
    triples, candidates = torch.tensor([[3, 1, 5]]), torch.tensor([[1, 2]])
    table_scores(model, entities.requires_grad_(), relations, triples, candidates, "tail").sum().backward()
    assert entities.grad.abs().sum() > 0 and relations.grad is None
    entities.grad = None
    table_scores(model, entities.detach(), relations.requires_grad_(), triples, candidates, "tail").sum().backward()
    assert entities.grad is None and relations.grad.abs().sum() > 0
    relations = relations.detach()
    assert not table_scores(model, entities.detach(), relations, triples, candidates, "tail").requires_grad


def test_an_unknown_score_is_told_with_the_nearest_name():
    with pytest.raises(ValueError, match="no score model 'rotat'; expected one of transe, .* did you mean 'rotate'"):
        score_model("rotat")


@pytest.mark.parametrize(
    ("name", "width", "relation_width"), [("transe", 6, 6), ("rotate", 12, 6), ("complex", 12, 12)]
)
def test_an_embedding_is_as_wide_as_its_score_and_starts_in_the_authors_range(name, width, relation_width):
    made = Embedding(50, 7, 6, name, torch.Generator().manual_seed(4), margin=4.0)
    assert made.entities.shape == (50, width) and made.relations.shape == (7, relation_width)
    assert 0.9 < float(made.entities.detach().abs().max()) <= 1.0
    most = math.pi if name == "rotate" else 1.0
    assert 0.8 * most < float(made.relations.detach().abs().max()) <= most
    assert made.logit_margin == (0.0 if name == "complex" else 4.0)


def test_equal_generators_make_equal_rows_and_others_do_not(embedding):
    assert torch.equal(embedding(seed=3).entities, embedding(seed=3).entities)
    assert not torch.equal(embedding(seed=3).entities, embedding(seed=4).entities)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"entities": 0}, "entities is 0; expected 1 or more"),
        ({"relations": 0}, "relations is 0"),
        ({"dimension": 0}, "dimension is 0"),
        ({"margin": -1.0}, "margin is -1.0; expected 0 or more"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"score": "transh"}, "no score model 'transh'"),
    ],
)
def test_sizes_that_make_no_embedding_are_refused(embedding, said, sentence):
    with pytest.raises(ValueError, match=sentence):
        embedding(**said)
