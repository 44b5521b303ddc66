"""Which entities a report draws."""

import numpy as np
import pytest
import torch
from codistill.graphs.knowledge_graph import KnowledgeGraph
from codistill.graphs.some_shared import CLIENTS, ENTITIES, chosen
from codistill.graphs.world import KEPT_MEASURED, Share, world_of

NOTHING = torch.empty(0, dtype=torch.int64)


def world(entities, holders):
    """A graph with a triple from each entity to itself; ``holders``: the entities of each client."""
    ids = np.arange(entities)
    triples = np.stack([ids, np.zeros_like(ids), ids], 1)
    graph = KnowledgeGraph("made", tuple(f"e{i}" for i in ids), ("r",), triples, triples[:0], triples[:0])
    dealt = {name: (torch.tensor(held), NOTHING, NOTHING) for name, held in holders.items()}
    return world_of(graph, dealt, classes=1, public=NOTHING, public_labelled=False, architectures={})


def test_they_are_some_of_those_that_two_clients_share_and_the_same_every_time():
    here = world(300, {"a": list(range(200)), "b": list(range(100, 300)), "c": [0, 299]})
    clients, entities = chosen(here, 1)
    assert clients == ["a", "b", "c"]
    assert len(entities) == ENTITIES
    assert set(entities.tolist()) <= {0, 299, *range(100, 200)}
    assert entities.tolist() == sorted(set(entities.tolist())) == chosen(here, 1)[1].tolist()
    assert entities.tolist() != chosen(here, 2)[1].tolist()


def test_of_many_clients_the_first_are_drawn_and_what_others_share_is_not():
    holders = {f"c{i}": [i] for i in range(CLIENTS)} | {"late": [50, 60], "later": [50, 61]}
    holders["c0"], holders["c1"] = [0, 70], [1, 70]
    clients, entities = chosen(world(80, holders), 1)
    assert clients == [f"c{i}" for i in range(CLIENTS)]
    assert entities.tolist() == [70]


@pytest.mark.parametrize(("clients", "entities"), [(2, 48), (4, 48), (5, 38), (8, 24), (12, 24)])
def test_the_more_clients_are_drawn_the_fewer_entities_are(clients, entities):
    here = world(60, {f"c{i}": list(range(60)) for i in range(clients)})
    drawn, ids = chosen(here, 1)
    assert (len(drawn), len(ids)) == (min(clients, CLIENTS), entities)


@pytest.mark.parametrize("holders", [{"alone": [0, 1]}, {"a": [0], "b": [1]}, {}])
def test_nothing_is_drawn_where_nothing_is_shared(holders):
    assert not len(chosen(world(3, holders), 1)[1])


def test_of_many_kept_triples_some_from_all_over_are_ranked():
    train = torch.stack([torch.arange(2000), torch.zeros(2000, dtype=torch.int64), torch.arange(2000)], 1)
    share = Share(torch.arange(2000), torch.zeros(1, dtype=torch.int64), train, train[:0], train[:0], train[:500])
    heads = share.some_kept[:, 0]
    assert len(heads) == KEPT_MEASURED
    assert heads[0] == 500 and heads[-1] >= 1997
    assert set(heads.diff().tolist()) == {2, 3}
    few = Share(share.entities, share.relations, train[:20], train[:0], train[:0], train[:5])
    assert few.some_kept.tolist() == train[5:20].tolist()
