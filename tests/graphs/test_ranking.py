"""Filtered ranks against a loop over all entities, and what is told of them."""

import math

import pytest
import torch
from codistill.graphs import ranking
from codistill.graphs.known import KnownTriples
from codistill.graphs.ranking import (
    Quality,
    both_sides,
    heads_only,
    quality,
    rank,
    rank_side,
    tails_only,
    weighted,
)
from codistill.graphs.scores import SCORES


def one_by_one(embedding, triples, known, side):
    """Score each entity by itself, leave known triples out, sort."""
    true = {tuple(one) for one in known.tolist()}
    ranks = []
    for triple in triples.tolist():
        column = 0 if side == "head" else 2
        scores = {}
        for entity in range(len(embedding.entities)):
            other = list(triple)
            other[column] = entity
            if entity == triple[column] or tuple(other) not in true:
                scores[entity] = float(embedding.score_triples(torch.tensor([other])).detach())
        own = scores.pop(triple[column])
        if math.isnan(own):
            ranks.append(1.0 + len(scores))
        else:
            above = sum(one > own for one in scores.values())
            ranks.append(1.0 + above + sum(one == own for one in scores.values()) / 2)
    return ranks


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("side", ["head", "tail"])
@pytest.mark.parametrize("at_once", [1, 50, 10**6])
def test_ranks_are_those_of_a_loop_over_entities(embedding, graph, score, side, at_once, monkeypatch):
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", at_once)
    known, model = graph(), embedding(score).double()
    ranks = rank_side(model, known[:15], KnownTriples(known, 20, 4), side)
    assert ranks.tolist() == one_by_one(model, known[:15], known, side)


@pytest.mark.parametrize("score", ["transe", "distmult"])
def test_ties_make_the_mean_of_the_best_and_the_worst_rank(embedding, graph, score):
    known, model = graph(), embedding(score)
    with torch.no_grad():
        model.entities[3:17] = model.entities[2].clone()
    ranks = rank_side(model, known, KnownTriples(known, 20, 4), "tail")
    assert ranks.tolist() == one_by_one(model, known, known, "tail")
    assert (ranks % 1 == 0.5).any()
    with torch.no_grad():
        model.entities[:] = 0.5
    (only,) = rank_side(model, known[:1], KnownTriples(known[:0], 20, 4), "head")
    assert only == (1 + 20) / 2


def test_nan_is_last_and_never_above(embedding, graph):
    known, model = graph(), embedding()
    with torch.no_grad():
        model.entities[4] = float("nan")
        model.entities[7, 3] = float("nan")
    triples = torch.cat([known, torch.tensor([[0, 1, 4], [4, 1, 0], [7, 0, 7]])])
    for side in ("head", "tail"):
        ranks = rank_side(model, triples, KnownTriples(known, 20, 4), side)
        assert ranks.tolist() == one_by_one(model, triples, known, side)
    assert rank_side(model, torch.tensor([[0, 1, 4]]), KnownTriples(known[:0], 20, 4), "tail").item() == 20


def test_no_triples_and_one(embedding, graph):
    model, nothing = embedding(), graph()[:0]
    ranks = rank(model, nothing, KnownTriples(nothing, 20, 4))
    assert both_sides(ranks).count == 0 and math.isnan(both_sides(ranks).mrr)
    one = torch.tensor([[0, 1, 2]])
    ranks = rank(model, one, KnownTriples(one, 20, 4))
    assert ranks.heads.shape == ranks.tails.shape == (1,)


def test_a_graph_of_one_entity_ranks_it_first(embedding):
    model, loop = embedding(entities=1, relations=1), torch.tensor([[0, 0, 0]])
    assert both_sides(rank(model, loop, KnownTriples(loop, 1, 1))) == Quality(2, 1.0, 1.0, 1.0, 1.0)


def test_the_quality_of_ranks_is_by_hand():
    ranks = torch.tensor([1.0, 2.0, 1.5, 10.0, 10.5], dtype=torch.float64)
    made = quality(ranks)
    assert made.count == 5
    assert made.mrr == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 10 + 2 / 21) / 5, abs=1e-15)
    assert (made.hits_at_1, made.hits_at_3, made.hits_at_10) == pytest.approx((0.2, 0.6, 0.8))


def test_sides_have_names_of_their_own():
    ranks = ranking.Ranks(torch.tensor([1.0, 2.0]).double(), torch.tensor([4.0, 4.0]).double())
    assert heads_only(ranks).mrr == 0.75
    assert tails_only(ranks).mrr == 0.25
    assert both_sides(ranks).mrr == 0.5 and both_sides(ranks).count == 4


def test_clients_weigh_by_their_ranks_and_empty_ones_not_at_all():
    clients = [Quality(30, 0.2, 0.1, 0.2, 0.3), quality(torch.empty(0)), Quality(10, 0.6, 0.5, 0.6, 0.7)]
    assert weighted(clients).count == 40
    assert weighted(clients).mrr == pytest.approx(0.3) and weighted(clients).hits_at_10 == pytest.approx(0.4)
    assert math.isnan(weighted([]).mrr)
