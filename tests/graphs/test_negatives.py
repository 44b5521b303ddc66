"""Known triples, and negatives that leave them out, against sets."""

import pytest
import torch
from codistill.graphs import negatives
from codistill.graphs.known import KnownTriples
from codistill.graphs.negatives import known_among, own_negatives, shared_negatives

SIDES = [("head", 0), ("tail", 2)]


def completions(triples, one, column):
    """The entities that complete ``one`` triple, by a set."""
    rest = [at for at in (0, 1, 2) if at != column]
    return sorted({t[column] for t in triples.tolist() if all(t[at] == int(one[at]) for at in rest)})


@pytest.mark.parametrize(("side", "column"), SIDES)
def test_completions_are_those_of_a_set(graph, side, column):
    triples = graph(count=200)
    asked = torch.cat([triples[:30], torch.tensor([[19, 3, 19]])])
    rows, ids = KnownTriples(triples, 20, 4).completing(asked, side)
    for row, one in enumerate(asked):
        assert ids[rows == row].tolist() == completions(triples, one, column)
    assert rows.tolist() == sorted(rows.tolist())


@pytest.mark.parametrize(
    ("triples", "sentence"),
    [
        (torch.tensor([[0, 0, 20]]), "a tail of the triples is outside of 0 to 19"),
        (torch.tensor([[-1, 0, 2]]), "a head of the triples is outside"),
        (torch.tensor([[1, 4, 2]]), "a relation of the triples is outside of 0 to 3"),
        (torch.tensor([[1, 2]]), "expected int64"),
        (torch.tensor([[1.0, 2.0, 3.0]]), "expected int64"),
    ],
)
def test_triples_that_are_none_are_refused(triples, sentence):
    with pytest.raises(ValueError, match=sentence):
        KnownTriples(triples, 20, 4)
    with pytest.raises(ValueError, match="too many for 64-bit keys"):
        KnownTriples(torch.zeros(0, 3, dtype=torch.int64), 2**31, 4)


@pytest.mark.parametrize(("side", "column"), SIDES)
@pytest.mark.parametrize("marks", [1, 50, 2**23])
def test_a_known_triple_is_never_an_own_negative_and_all_others_are_equally_likely(
    graph, side, column, marks, monkeypatch
):
    monkeypatch.setattr(negatives, "_MARKS", marks)
    triples = torch.cat([graph(count=120), torch.tensor([[one, 3, 7] for one in range(18)])])
    asked = torch.cat([triples[:10], torch.tensor([[2, 3, 7]])])
    count = 40_000
    drawn = own_negatives(asked, count, side, 20, torch.Generator().manual_seed(1), KnownTriples(triples, 20, 4))
    assert drawn.shape == (11, count)
    for row, one in enumerate(asked):
        taken = completions(triples, one, column)
        free = [entity for entity in range(20) if entity not in taken]
        counts = torch.bincount(drawn[row], minlength=20)
        assert counts[taken].sum() == 0
        expected = count / len(free)
        # Five standard deviations of a count.
        assert (counts[free] - expected).abs().max() < 5 * expected**0.5


def test_a_pair_that_every_entity_completes_is_drawn_for_all_the_same():
    triples = torch.tensor([[0, 0, one] for one in range(5)] + [[1, 0, 2]])
    drawn = own_negatives(triples[4:], 400, "tail", 5, torch.Generator().manual_seed(1), KnownTriples(triples, 5, 1))
    assert torch.bincount(drawn[0], minlength=5).min() > 40
    assert (drawn[1] != 2).all()


def test_without_known_triples_anything_is_drawn(graph):
    drawn = own_negatives(graph()[:3], 1000, "tail", 20, torch.Generator().manual_seed(1))
    assert drawn.unique().tolist() == list(range(20))


def test_equal_generators_draw_equal_negatives(graph):
    triples = graph()
    known = KnownTriples(triples, 20, 4)
    first, again = (own_negatives(triples, 9, "head", 20, torch.Generator().manual_seed(8), known) for _ in range(2))
    assert torch.equal(first, again)


def test_shared_negatives_are_different_entities_and_all_of_few():
    generator = torch.Generator().manual_seed(1)
    assert len(shared_negatives(7, 20, generator).unique()) == 7
    assert sorted(shared_negatives(50, 20, generator).tolist()) == list(range(20))


@pytest.mark.parametrize(("side", "column"), SIDES)
def test_shared_negatives_that_are_true_are_told(graph, side, column):
    triples = graph(count=150)
    candidates = shared_negatives(12, 20, torch.Generator().manual_seed(2))
    true = known_among(triples, candidates, side, KnownTriples(triples, 20, 4))
    for row, one in enumerate(triples):
        assert true[row].tolist() == [int(c) in completions(triples, one, column) for c in candidates]
    assert true.any()


def test_a_row_of_true_candidates_alone_keeps_them_all():
    triples = torch.tensor([[0, 0, one] for one in range(5)])
    true = known_among(triples[:1], torch.tensor([4, 2]), "tail", KnownTriples(triples, 6, 1))
    assert not true.any()
