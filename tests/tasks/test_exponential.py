import networkx as nx
import numpy as np
import pytest
from codistill.tasks.patterns import GRAPHS, GraphChoice, changes


def links(said, count, seed=1):
    chosen = GraphChoice.model_validate(said)
    names = [f"a{i}" for i in range(count)]
    return GRAPHS["exponential"].function(chosen.parameters, names, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("count", "distances"),
    [(2, [1]), (3, [1, 2]), (5, [1, 2, 4]), (8, [1, 2, 4]), (9, [1, 2, 4, 8]), (20, [1, 2, 4, 8, 16])],
)
def test_one_of_the_distances_is_drawn_each_round(count, distances):
    found = {tuple(links("exponential", count, seed)) for seed in range(60)}
    expected = set()
    for distance in distances:
        pairs = {tuple(sorted((i, (i + distance) % count))) for i in range(count)}
        expected.add(tuple(sorted(pairs)))
    assert found == expected
    assert links("exponential", count) == links("exponential", count)
    assert changes(GraphChoice.model_validate("exponential"))


def test_every_distance_is_as_likely():
    drawn = [links("exponential", 16, seed)[0] for seed in range(800)]  # (0, distance), but for 8 where both ends meet
    counts = np.array([sum(pair == (0, distance) for pair in drawn) for distance in (1, 2, 4, 8)])
    assert counts.sum() == 800 and abs(counts - 200).max() < 4.5 * np.sqrt(800 * 0.25 * 0.75)


def test_all_distances_at_once_stay():
    said = {"exponential": {"redraw": False}}
    assert not changes(GraphChoice.model_validate(said))
    assert links(said, 16) == links(said, 16, seed=2)
    graph = nx.Graph(links(said, 16))
    assert nx.is_connected(graph) and set(dict(graph.degree).values()) == {7}  # 1, 2, 4 both ways and 8 once
