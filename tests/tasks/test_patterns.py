from collections import Counter

import networkx as nx
import numpy as np
import pytest
from codistill.tasks.patterns import GRAPHS, PATTERNS, GraphChoice, PatternChoice, changes
from pydantic import ValidationError


def links(said, count, seed=1):
    chosen = GraphChoice.model_validate(said)
    names = [f"a{i}" for i in range(count)]
    return GRAPHS[chosen.name].function(chosen.parameters, names, np.random.default_rng(seed))


def graph(said, count, seed=1):
    made = nx.empty_graph(count)
    made.add_edges_from(links(said, count, seed))
    return made


ALL = ["ring", "torus", {"k-regular": {"degree": 4}}, {"erdos-renyi": {"probability": 0.4}}, "complete", "pairs"]


@pytest.mark.parametrize("said", ALL, ids=str)
@pytest.mark.parametrize("count", [6, 9, 20])
def test_links_are_clean_and_depend_on_the_generator_alone(said, count):
    found = links(said, count)
    assert found == links(said, count) == sorted(set(found))
    assert all(0 <= a < b < count for a, b in found)
    if said != "pairs":
        assert nx.is_connected(graph(said, count))
    drawn = {str(links(said, count, seed)) for seed in range(5)}
    assert (len(drawn) > 1) == (isinstance(said, dict) or said == "pairs")


@pytest.mark.parametrize(
    ("said", "count", "degrees"),
    [
        ("ring", 2, {1}),
        ("ring", 3, {2}),
        ("ring", 7, {2}),
        ("torus", 9, {4}),
        ("torus", 12, {4}),
        ("torus", 20, {4}),
        ("torus", 8, {3}),
        ("torus", 7, {2}),
        ({"k-regular": {"degree": 3}}, 10, {3}),
        ({"k-regular": {"degree": 5}}, 6, {5}),
        ("complete", 6, {5}),
        ("pairs", 8, {1}),
        ("pairs", 7, {0, 1}),
    ],
    ids=str,
)
def test_degrees(said, count, degrees):
    assert set(dict(graph(said, count).degree).values()) == degrees


def test_ring_and_torus_are_what_their_names_say():
    assert nx.is_isomorphic(graph("ring", 9), nx.cycle_graph(9))
    assert nx.is_isomorphic(graph("torus", 20), nx.grid_2d_graph(4, 5, periodic=True))


def test_odd_pairs_leave_one_and_another_each_time():
    resting = [next(n for n, d in graph("pairs", 5, seed).degree if d == 0) for seed in range(30)]
    assert set(resting) == set(range(5))


def test_erdos_renyi_links_with_its_probability():
    found = [len(links({"erdos-renyi": {"probability": 0.5}}, 20, seed)) / 190 for seed in range(30)]
    assert abs(np.mean(found) - 0.5) < 0.03


def test_links_by_name_go_both_ways_once():
    assert links({"edges": {"links": [["a2", "a0"], ["a0", "a2"], ["a1", "a2"], ["a1", "a1"]]}}, 3) == [(0, 2), (1, 2)]
    with pytest.raises(ValueError, match="no agent is called b; the agents are a0, a1"):
        links({"edges": {"links": [["a0", "b"]]}}, 2)


@pytest.mark.parametrize(("degree", "count"), [(3, 5), (5, 5), (6, 4)])
def test_regular_graphs_that_do_not_exist(degree, count):
    with pytest.raises(ValueError, match=f"a {degree}-regular graph over {count} agents does not exist"):
        links({"k-regular": {"degree": degree}}, count)


def test_a_graph_that_is_never_connected_is_said():
    with pytest.raises(ValueError, match="200 draws gave no connected graph"):
        links({"erdos-renyi": {"probability": 0.001}}, 20)


@pytest.mark.parametrize(
    ("said", "anew"),
    [("ring", False), ("pairs", True), ("k-regular", False), ({"erdos-renyi": {"redraw": True}}, True)],
)
def test_some_graphs_are_drawn_anew(said, anew):
    assert changes(GraphChoice.model_validate(said)) is anew


def topology(said, learners):
    chosen = PatternChoice.model_validate(said)
    return PATTERNS[chosen.name].function(chosen.parameters, learners)


def test_a_star():
    made = topology("distributed", 3)
    assert made.parents == (0, 0, 0) and made.tiers == 1
    assert [(one.name, one.parent) for one in made.aggregators] == [("server", None)]


def test_a_tree_shares_evenly_and_keeps_neighbours_together():
    tiers = [{"name": "edge", "count": 4}, {"name": "region", "count": 2}, {"name": "cloud"}]
    made = topology({"hierarchical": {"tiers": tiers}}, 10)
    names = [one.name for one in made.aggregators]
    assert names == ["edge-1", "edge-2", "edge-3", "edge-4", "region-1", "region-2", "cloud"]
    assert [one.parent for one in made.aggregators] == [4, 4, 5, 5, 6, 6, None]
    assert [one.tier for one in made.aggregators] == [0] * 4 + [1] * 2 + [2] and made.tiers == 3
    assert list(made.parents) == sorted(made.parents)
    assert sorted(Counter(made.parents).values()) == [2, 2, 3, 3]


@pytest.mark.parametrize(("learners", "edges"), [(5, 5), (7, 3), (20, 6)])
def test_every_edge_has_learners_to_within_one(learners, edges):
    made = topology({"hierarchical": {"tiers": [{"name": "edge", "count": edges}, {"name": "top"}]}}, learners)
    counts = Counter(made.parents)
    assert set(counts) == set(range(edges)) and max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [([2], "exactly one"), ([2, 3, 1], "no more agents than the one below"), ([0, 1], "greater than or equal to 1")],
)
def test_trees_that_are_none(counts, sentence):
    tiers = [{"name": f"t{i}", "count": count} for i, count in enumerate(counts)]
    with pytest.raises(ValidationError, match=sentence):
        PatternChoice.model_validate({"hierarchical": {"tiers": tiers}})


def test_too_few_learners():
    with pytest.raises(ValueError, match="'edge' has 4 agents for 3 learners"):
        topology({"hierarchical": {"tiers": [{"name": "edge", "count": 4}, {"name": "top"}]}}, 3)
    with pytest.raises(ValueError, match="at least two"):
        topology("decentralized", 1)
    assert topology("decentralized", 2).parents == ()
