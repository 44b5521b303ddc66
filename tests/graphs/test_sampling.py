"""Sampled parts of a message graph: what they hold, that nothing leaks, and that only the generator decides."""

import collections
from importlib.util import find_spec

import pytest
import torch
from codistill.graphs.dgl import load_dgl
from codistill.graphs.encoders import ENCODERS, Sizes, Widths
from codistill.graphs.encoders.propagation import Propagation
from codistill.graphs.sampling import neighbourhood, random_walks, walked, without
from codistill.graphs.structure import message_graph
from codistill.tests.graphs.drawn import graphs
from codistill.tests.graphs.formula_encoders import edges_of
from hypothesis import given, settings
from hypothesis import strategies as st

needs_dgl = pytest.mark.skipif(find_spec("dgl") is None, reason="DGL is not installed (the extra is called graphs)")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made_up(entities=60, relations=3, count=400, seed=0):
    """Triples and their message graph; some entities have many edges and a few have none."""
    draw = torch.rand(count, 2, generator=generator(seed)).pow(3).mul(entities - 4).long()
    kinds = torch.randint(relations, (count,), generator=generator(seed + 1))
    triples = torch.stack([draw[:, 0], kinds, draw[:, 1]], 1)
    return triples, message_graph(triples, entities, relations)


def edges_in(part):
    """(target, relation, source) of a part's edges in ids of the whole."""
    targets, sources = part.entities[part.graph.targets].tolist(), part.entities[part.graph.sources].tolist()
    return list(zip(targets, part.graph.relations.tolist(), sources, strict=True))


@given(graphs(), st.integers(0, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_edge_of_the_batch_and_no_inverse_is_left(given_graph, count, strangers):
    triples, entities, relations = given_graph
    batch = triples[:count]
    if strangers:
        batch = torch.cat([batch, torch.tensor([[0, relations - 1, entities - 1], [entities - 1, 0, 0]])])
    graph = message_graph(triples, entities, relations)
    left = without(graph, batch)
    found = list(zip(left.targets.tolist(), left.relations.tolist(), left.sources.tolist(), strict=True))
    gone = set(edges_of(batch, relations))
    assert found == [edge for edge in edges_of(triples, relations) if edge not in gone]
    seeds = torch.cat([batch[:, 0], batch[:, 2]])
    for part in (neighbourhood(left, seeds, (2, 2), generator()), walked(left, seeds, 3, generator())):
        assert gone.isdisjoint(edges_in(part))


@given(graphs(), st.lists(st.sampled_from([None, 1, 2, 3, 50]), max_size=3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_neighbourhood_holds_as_many_edges_as_were_asked_for(given_graph, most, seed):
    triples, entities, relations = given_graph
    graph = message_graph(triples, entities, relations)
    seeds = torch.tensor([0, entities - 1, 0])
    part = neighbourhood(graph, seeds, most, generator(seed))
    edges = edges_in(part)
    assert len(set(edges)) == len(edges)
    assert set(edges) <= set(edges_of(triples, relations))
    assert part.graph.keys.diff().gt(0).all()
    degrees, heard = graph.degrees.tolist(), collections.Counter(edge[0] for edge in edges)
    reached, new = set(), {0, entities - 1}
    for count in most:
        for target in new:
            assert heard[target] == min(degrees[target], degrees[target] if count is None else count)
        reached |= new
        new = {edge[2] for edge in edges if edge[0] in new} - reached
    assert sum(heard.values()) == sum(heard[target] for target in reached)
    assert part.entities.tolist() == sorted(reached | new)
    assert part.entities[part.rows_of(seeds)].tolist() == seeds.tolist()


def test_every_edge_is_as_likely_as_any_other():
    """12,000 targets take 3 of 10 edges: chi-squared of 119 degrees of freedom is above 190 once in 10^5."""
    targets = torch.arange(10, 12_010)
    sources = torch.arange(10).expand(12_000, 10)
    triples = torch.stack([sources, torch.zeros_like(sources), targets[:, None].expand(-1, 10)], 2).flatten(0, 1)
    part = neighbourhood(message_graph(triples, 12_010, 1), targets, (3,), generator(3))
    subsets = collections.Counter(map(tuple, part.graph.sources.view(12_000, 3).tolist()))
    assert len(subsets) == 120
    assert sum((count - 100) ** 2 / 100 for count in subsets.values()) < 190


@pytest.mark.parametrize("name", ["rgcn", "compgcn", "attention"])
def test_with_all_edges_the_seeds_rows_are_those_of_the_whole_graph(name):
    _, graph = made_up()
    sizes = Sizes(3, Widths(4, 4), Widths(4, 4))
    encoder = ENCODERS[name].function(ENCODERS[name].parameters(layers=2), sizes, generator()).double()
    entities = torch.randn(60, 4, generator=generator(1), dtype=torch.float64)
    relations = torch.randn(3, 4, generator=generator(2), dtype=torch.float64)
    seeds = torch.tensor([58, 3, 17])
    part = neighbourhood(graph, seeds, (None, None), generator())
    assert len(part.entities) < 60
    whole, _ = encoder(Propagation(graph), entities, relations)
    rows, _ = encoder(Propagation(part.graph), entities[part.entities], relations)
    torch.testing.assert_close(rows[part.rows_of(seeds)], whole[seeds], atol=1e-12, rtol=0)


def test_a_walk_goes_along_edges_and_stays_where_there_are_none():
    triples, graph = made_up()
    pairs = {(edge[0], edge[2]) for edge in edges_of(triples, 3)}
    starts = torch.arange(60)
    walks = random_walks(graph, starts, 5, generator(4))
    assert walks.shape == (60, 6)
    assert walks[:, 0].tolist() == starts.tolist()
    for walk in walks.tolist():
        for here, there in zip(walk[:-1], walk[1:], strict=True):
            assert (here, there) in pairs if graph.degrees[here] else here == there
    assert (graph.degrees == 0).any()
    assert random_walks(message_graph(triples[:0], 3, 1), torch.tensor([2, 0]), 2, generator()).tolist() == [
        [2, 2, 2],
        [0, 0, 0],
    ]


def test_a_walk_takes_every_edge_equally_often():
    """From a hub with 4 neighbours, one of them through two relations: 2 of 5 steps go to that one."""
    triples = torch.tensor([[0, 0, 1], [0, 1, 1], [2, 0, 0], [0, 0, 3], [4, 1, 0]])
    graph = message_graph(triples, 5, 2)
    ends = random_walks(graph, torch.zeros(10_000, dtype=torch.int64), 1, generator(5))[:, 1]
    found = torch.bincount(ends, minlength=5)
    expected = torch.tensor([0, 4000, 2000, 2000, 2000])
    assert ((found - expected).abs() < 5 * (expected * 0.8).sqrt() + 1).all()


@given(graphs(), st.integers(0, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_walked_part_has_all_edges_among_what_was_visited(given_graph, steps, walks, seed):
    triples, entities, relations = given_graph
    graph = message_graph(triples, entities, relations)
    starts = torch.tensor([entities - 1, 0])
    part = walked(graph, starts, steps, generator(seed), walks=walks)
    visited = random_walks(graph, starts.repeat_interleave(walks), steps, generator(seed)).unique().tolist()
    assert part.entities.tolist() == visited
    assert edges_in(part) == [
        edge for edge in edges_of(triples, relations) if edge[0] in visited and edge[2] in visited
    ]


@needs_dgl
def test_dgl_cuts_the_same_parts():
    dgl = load_dgl()
    _, graph = made_up()
    whole = dgl.graph((graph.sources, graph.targets), num_nodes=60)
    seeds = torch.tensor([5, 2, 40])
    part = neighbourhood(graph, seeds, (None,), generator())
    same = dgl.in_subgraph(whole, seeds.unique()).edata[dgl.EID]
    assert graph.select(same.sort().values).keys.tolist() == [
        graph.keys_of(*torch.tensor(edge)[:, None]).item() for edge in edges_in(part)
    ]
    seen = walked(graph, seeds, 2, generator())
    same = dgl.node_subgraph(whole, seen.entities).edata[dgl.EID]
    assert graph.select(same.sort().values).keys.tolist() == [
        graph.keys_of(*torch.tensor(edge)[:, None]).item() for edge in edges_in(seen)
    ]


def test_the_number_of_threads_changes_nothing():
    before, made = torch.get_num_threads(), []
    source = generator(1)
    triples = torch.stack([torch.randint(most, (60_000,), generator=source) for most in (4000, 20, 4000)], 1)
    seeds = torch.randint(4000, (300,), generator=source)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            graph, source = message_graph(triples, 4000, 20), generator(2)
            made += [neighbourhood(graph, seeds, (5, 5), source), walked(graph, seeds, 6, source, walks=2)]
    finally:
        torch.set_num_threads(before)
    for one, other in zip(made[:2], made[2:], strict=True):
        assert torch.equal(one.entities, other.entities)
        assert torch.equal(one.graph.keys, other.graph.keys)
    assert len(made[0].graph) > 5000
    assert not torch.equal(neighbourhood(graph, seeds, (5, 5), source).graph.keys, made[0].graph.keys)


def test_an_entity_that_is_not_in_the_part_is_named_in_a_sentence():
    _, graph = made_up()
    part = neighbourhood(graph, torch.tensor([59]), (), generator())
    with pytest.raises(ValueError, match="an entity is not in this part of the graph"):
        part.rows_of(torch.tensor([1]))
