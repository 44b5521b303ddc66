from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from codistill.graphs.sources import GRAPHS
from codistill.graphs.splits import SPLITS, Split, pooled, restricted, to_unlearn
from codistill.graphs.triples import Triples, shared_entities
from codistill.tasks.streams import numpy_stream
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not here")
PIECES = ("train", "valid", "test")
WAYS = ("relation", "uniform", "community")
RATIO = (0.8, 0.1, 0.1)


def published(name: str) -> Triples:
    entry = GRAPHS[name]
    (graph,) = entry.function(entry.parameters(), SHARED).clients.values()
    return graph


def cut(whole: Triples, by: str, clients: int, seed: int = 1, **parameters: object) -> Split:
    entry = SPLITS[by]
    return entry.function(entry.parameters(**parameters), whole, clients, numpy_stream(seed, "split"))


def ids(*rows: tuple[int, int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def graph_of(train: Tensor, valid: Tensor, test: Tensor, unlearn: Tensor, entities: int, relations: int) -> Triples:
    names = tuple(f"e{one}" for one in range(entities)), tuple(f"r{one}" for one in range(relations))
    return Triples(*names, train, valid, test, unlearn)


@st.composite
def graphs(draw: st.DrawFn) -> Triples:
    """Graphs of 7 entities and 4 relations without a triple twice, a third of train to be forgotten."""
    triple = st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 6))
    rows = draw(st.lists(triple, min_size=6, max_size=40, unique=True))
    valid, test = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    train = rows[valid + test :]
    return graph_of(
        ids(*train), ids(*rows[:valid]), ids(*rows[valid : valid + test]), ids(*train[::3]), entities=7, relations=4
    )


def named(graph: Triples, *pieces: str) -> Counter[tuple[str, str, str]]:
    return Counter(graph.named(triple) for piece in pieces for triple in getattr(graph, piece))


def together(split: Split, *pieces: str) -> Counter[tuple[str, str, str]]:
    return sum((named(client, *pieces) for client in split.clients), Counter())


def try_to_cut(whole: Triples, by: str, clients: int, **parameters: object) -> Split:
    """Return the split, or let the example go where there is none: a client would have nothing to train on."""
    try:
        return cut(whole, by, clients, **parameters)
    except ValueError as error:
        assume("fewer clients" not in str(error))
        raise


@settings(deadline=None)
@given(graphs(), st.sampled_from(WAYS), st.integers(1, 3))
def test_every_triple_lands_in_one_client_in_the_part_in_which_it_was(whole: Triples, by: str, clients: int) -> None:
    split = try_to_cut(whole, by, clients)
    assert len(split.clients) == clients
    for piece in (*PIECES, "unlearn"):
        assert together(split, piece) == named(whole, piece)


@settings(deadline=None)
@given(graphs(), st.sampled_from(WAYS), st.integers(1, 3))
def test_with_a_ratio_every_triple_lands_in_one_part_of_one_client(whole: Triples, by: str, clients: int) -> None:
    split = try_to_cut(whole, by, clients, ratio=RATIO)
    assert together(split, *PIECES) == named(whole, *PIECES)
    for client in split.clients:
        triples = sum(len(getattr(client, piece)) for piece in PIECES)
        for piece, share in zip(PIECES, RATIO, strict=True):
            assert abs(len(getattr(client, piece)) - share * triples) < 1
        assert named(client, "unlearn") == named(client, "train") & named(whole, "unlearn")


def test_with_a_ratio_a_triple_of_train_and_test_is_drawn_once() -> None:
    rows = [(head, 0, tail) for head in range(3) for tail in range(3)]
    whole = graph_of(ids(*rows), ids(*rows[:4]), ids(*rows[5:]), ids(), entities=3, relations=1)
    assert together(cut(whole, "relation", 1, ratio=RATIO), *PIECES) == named(whole, "train")


@settings(deadline=None)
@given(graphs(), st.sampled_from(WAYS), st.integers(1, 3))
def test_a_client_has_the_names_of_its_triples_and_no_others(whole: Triples, by: str, clients: int) -> None:
    for client in try_to_cut(whole, by, clients).clients:
        triples = named(client, *PIECES)
        assert set(client.entities) == {name for head, _, tail in triples for name in (head, tail)}
        assert set(client.relations) == {relation for _, relation, _ in triples}
        assert list(client.entities) == sorted(client.entities)


@settings(deadline=None)
@given(graphs(), st.sampled_from(WAYS), st.integers(1, 3))
def test_the_pooled_clients_are_the_graph_that_was_cut(whole: Triples, by: str, clients: int) -> None:
    union = pooled(try_to_cut(whole, by, clients).clients)
    used = restricted(whole, whole.train, whole.valid, whole.test, whole.unlearn)
    assert (union.entities, union.relations) == (used.entities, used.relations)
    for piece in (*PIECES, "unlearn"):
        assert sorted(getattr(union, piece).tolist()) == sorted(getattr(used, piece).tolist())


def test_what_two_clients_have_is_pooled_once() -> None:
    one = Triples(("a", "c"), ("r",), ids((0, 0, 1), (1, 0, 0)), ids(), ids((0, 0, 0)), ids((0, 0, 1)))
    two = Triples(("b", "c", "a"), ("s", "r"), ids((2, 1, 1), (0, 0, 1), (2, 1, 2)), ids(), ids())
    union = pooled([one, two])
    assert (union.entities, union.relations) == (("a", "b", "c"), ("r", "s"))
    assert union.train.tolist() == [[0, 0, 2], [2, 0, 0], [1, 1, 2], [0, 0, 0]]
    assert (union.test.tolist(), union.unlearn.tolist()) == ([[0, 0, 0]], [[0, 0, 2]])


@needs_shared
@pytest.mark.parametrize("clients", [3, 5, 10])
def test_by_relation_each_relation_has_one_client_and_each_client_as_many(clients: int) -> None:
    whole = published("nations")
    split = cut(whole, "relation", clients)
    relations = Counter(name for client in split.clients for name in client.relations)
    assert set(relations) == set(whole.relations) and set(relations.values()) == {1}
    sizes = [len(client.relations) for client in split.clients]
    assert max(sizes) - min(sizes) <= 1


@needs_shared
@pytest.mark.parametrize(
    ("clients", "digest"),
    [
        (3, "f161856797a4"),
        (5, "d81dc4cf863d"),
        (10, "0ab7a995e44c"),
    ],
)
def test_the_relation_splits_of_fb15k237_are_the_same_everywhere(clients: int, digest: str) -> None:
    split = cut(published("fb15k237"), "relation", clients, seed=1, ratio=RATIO)
    assert split.digest().startswith(digest)
    assert sum(len(getattr(client, piece)) for client in split.clients for piece in PIECES) == 310_116


@needs_shared
def test_uniform_clients_have_as_many_of_each_part() -> None:
    split = cut(published("umls"), "uniform", 7)
    for piece in PIECES:
        sizes = [len(getattr(client, piece)) for client in split.clients]
        assert max(sizes) - min(sizes) <= 1


def test_communities_stay_together_and_a_triple_between_two_goes_with_its_rarer_end() -> None:
    def clique(first: int) -> list[tuple[int, int, int]]:
        return [(head, 0, tail) for head in range(first, first + 5) for tail in range(first, first + 5) if head < tail]

    bridge = (5, 1, 0)
    more = (0, 1, 0)  # 0 is in more triples than 5, so the bridge goes with 5
    whole = graph_of(ids(*clique(0), *clique(5), bridge, more), ids(), ids(), ids(), entities=10, relations=2)
    clients = sorted(cut(whole, "community", 2).clients, key=lambda client: len(client.entities))
    assert clients[0].entities == tuple(f"e{one}" for one in range(5))
    assert clients[1].entities == ("e0", *(f"e{one}" for one in range(5, 10)))
    assert ("e5", "r1", "e0") in named(clients[1], "train")
    assert shared_entities(clients) == ("e0",)


@needs_shared
def test_communities_share_fewer_entities_than_relations_do() -> None:
    whole = published("codex")
    shared = {by: len(shared_entities(cut(whole, by, 3).clients)) for by in ("relation", "community")}
    assert shared["community"] < 0.3 * shared["relation"]


@needs_shared
@pytest.mark.parametrize("by", WAYS)
def test_the_seed_decides_the_split(by: str) -> None:
    whole = published("umls")
    assert cut(whole, by, 3, seed=1).digest() == cut(whole, by, 3, seed=1).digest()
    assert cut(whole, by, 3, seed=1).digest() != cut(whole, by, 3, seed=2).digest()


@needs_shared
def test_another_process_with_other_hashes_finds_the_same_communities() -> None:
    code = "from codistill.tests.graphs.test_splits import *; print(cut(published('umls'), 'community', 3).digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == cut(published("umls"), "community", 3).digest()


@needs_shared
def test_a_split_says_how_large_the_clients_are_and_what_they_share() -> None:
    split = cut(published("codex"), "relation", 3)
    assert split.notes[0].startswith("cut by relation into 3 clients of ")
    shared = len(shared_entities(split.clients))
    assert split.notes[1] == f"{shared:,} of 2,034 entities are held by two clients or more"


def test_what_cannot_be_cut_is_told_with_what_to_do() -> None:
    train = ids((0, 0, 1), (1, 0, 2), (2, 0, 0))
    whole = graph_of(train, ids((0, 1, 2)), ids(), ids(), entities=3, relations=2)
    with pytest.raises(ValueError, match="relation: 3 clients, and the number of relations is 2; ask for 1 to 2"):
        cut(whole, "relation", 3)
    with pytest.raises(ValueError, match="relation: client . of 2 gets no triple to train on; cut .* fewer clients"):
        cut(whole, "relation", 2)
    with pytest.raises(
        ValueError, match="uniform: 4 clients, and the number of train triples is 3; ask for fewer clients"
    ):
        cut(whole, "uniform", 4)
    with pytest.raises(
        ValueError, match="community: 2 clients, and the number of communities is 1; ask for fewer clients, or raise"
    ):
        cut(whole, "community", 2)
    with pytest.raises(ValueError, match="uniform: 0 clients"):
        cut(whole, "uniform", 0)


@pytest.mark.parametrize("ratio", [(0.0, 0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (float("nan"), 0.1, 0.1)])
def test_a_ratio_that_is_none_is_refused(ratio: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected shares of train, valid and test that sum to 1"):
        SPLITS["relation"].parameters(ratio=ratio)


def test_a_share_to_be_forgotten_is_drawn_from_train_and_rounded_up() -> None:
    train = ids(*((head, 0, tail) for head in range(12) for tail in range(12)))
    client = graph_of(train, ids(), ids(), ids(), entities=12, relations=1)
    drawn = to_unlearn(client, 0.01, np.random.default_rng(1))
    assert len(drawn.unlearn) == 2
    assert named(drawn, "unlearn") <= named(drawn, "train") == named(client, "train")
    assert drawn.digest() != to_unlearn(client, 0.01, np.random.default_rng(2)).digest()
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            to_unlearn(client, share, np.random.default_rng(1))
