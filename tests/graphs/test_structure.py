"""The message graph of a client against sets and loops."""

import pickle

import pytest
import torch
from codistill.graphs.structure import message_graph, ranges
from codistill.tests.graphs.drawn import graphs
from codistill.tests.graphs.formula_encoders import edges_of
from hypothesis import given, settings


@given(graphs())
@settings(max_examples=100, deadline=None)
def test_edges_pairs_and_degrees_are_those_of_the_sets(given_triples):
    triples, entities, relations = given_triples
    graph = message_graph(triples, entities, relations)
    edges = edges_of(triples, relations)
    assert list(zip(graph.targets.tolist(), graph.relations.tolist(), graph.sources.tolist(), strict=True)) == edges
    assert len(graph) == len(edges)
    assert graph.degrees.tolist() == [sum(edge[0] == entity for edge in edges) for entity in range(entities)]
    assert graph.degrees.tolist() == [sum(edge[2] == entity for edge in edges) for entity in range(entities)]
    assert graph.keys.diff().gt(0).all()
    pairs = graph.pairs
    assert list(zip(pairs.targets.tolist(), pairs.relations.tolist(), strict=True)) == sorted(
        {edge[:2] for edge in edges}
    )
    for pair, (target, relation) in enumerate(zip(pairs.targets.tolist(), pairs.relations.tolist(), strict=True)):
        begin, end = pairs.pointers[pair : pair + 2].tolist()
        assert [edge[2] for edge in edges if edge[:2] == (target, relation)] == graph.sources[begin:end].tolist()
    assert pairs.degrees.sum() == len(edges)


def test_the_order_of_triples_and_their_repetition_change_nothing():
    triples = torch.tensor([[0, 0, 1], [2, 1, 2], [1, 0, 0]])
    once, twice = message_graph(triples, 4, 2), message_graph(triples[[2, 1, 0, 0, 2]], 4, 2)
    assert once.keys.tolist() == twice.keys.tolist()
    assert once.degrees.tolist() == [2, 2, 2, 0]


def test_only_plain_tensors_cross_a_process_border():
    graph = message_graph(torch.tensor([[0, 0, 1]]), 2, 1)
    again = pickle.loads(pickle.dumps(graph))
    assert again.keys.tolist() == graph.keys.tolist()
    assert {type(one) for one in vars(again).values()} <= {int, torch.Tensor}


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        (torch.tensor([[0, 0, 5]]), "a tail is outside of 0 to 4"),
        (torch.tensor([[-1, 0, 0]]), "a head is outside of 0 to 4"),
        (torch.tensor([[0, 2, 0]]), "a relation is outside of 0 to 1"),
        (torch.tensor([[0, 0]]), r"expected int64 \[N, 3\]"),
        (torch.tensor([[0.0, 0.0, 0.0]]), r"triples are torch.float32 \[1, 3\]"),
    ],
)
def test_wrong_triples_are_refused_in_a_sentence(triples, message):
    with pytest.raises(ValueError, match=message):
        message_graph(triples, 5, 2)


def test_more_than_63_bits_of_edges_are_refused():
    with pytest.raises(ValueError, match="more edges than 63 bits can number"):
        message_graph(torch.empty((0, 3), dtype=torch.int64), 2**31, 4)


def test_ranges_are_written_one_after_the_other():
    assert ranges(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64)).tolist() == []
