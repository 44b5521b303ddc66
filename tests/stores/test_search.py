"""Nearest entries over several segments beside a float64 formula, with every mask, in every encoding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from codistill.tasks.stores import Store, StoreError, entries

NAMES = ("a", "b", "c")


def cut_up(declaration, folder, given, cuts):
    """A store whose entries lie in several segments and in memory."""
    store = Store.create(declaration, "cut")
    for turn, some in enumerate(np.array_split(np.arange(len(given)), cuts)):
        part = {
            name: getattr(given, name)[some]
            for name in ("ids", "values", "classes", "owners", "rounds", "weights", "confidence", "keys")
        }
        store.put(type(given)(contributors=given.contributors, **part), 5)
        if turn < cuts - 1:
            store.write(folder, f"turn{turn}")
    return store


def oracle(queries, keys, k, similarity, allowed):
    """Indices of the k best, -1 for none, ties to the lower, in float64."""
    q, x = queries.astype(np.float64), keys.astype(np.float64)
    if similarity == "dot":
        scores = q @ x.T
    elif similarity == "cosine":
        scores = (q @ x.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    else:
        scores = -((q[:, None] - x) ** 2).sum(-1)
    scores = np.where(allowed, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, 1)
    missing = np.full((len(q), max(0, k - order.shape[1])), -np.inf)
    order, best = np.hstack([order, np.zeros(missing.shape, int)]), np.hstack([best, missing])
    return np.where(best > -np.inf, order, -1), best


@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize(
    ("encoding", "keys"),
    [("float32", "none"), ("float16", "none"), ("int8", "none"), ({"top-k": {"k": 3}}, "none"), ("float32", "int8")]
    + [("int8", "float32")],
)
def test_nearest_is_that_of_the_formula(declare, some, tmp_path, similarity, encoding, keys):
    given = some(range(60), contributors=NAMES, round=np.arange(60) % 6, seed=4)
    store = cut_up(declare(encoding=encoding, keys=keys), tmp_path, given, 4)
    store.forget(ids=[7, 21, 59])
    held = store.all()
    sought = held.values if keys == "none" else held.keys
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(9, sought.shape[1])).astype(np.float32)
    mine, labels = rng.integers(0, 4, 9), rng.integers(0, 3, 9)
    names = [("a", "b", "c", "nobody")[one] for one in mine]
    owner = np.array(held.contributors)[held.owners]
    ages = 5 - held.rounds
    for asked, allowed in (
        ({}, np.ones((9, 57), bool)),
        ({"not_mine": names}, owner != np.array(names)[:, None]),
        ({"not_mine": "b"}, np.broadcast_to(owner != "b", (9, 57))),
        ({"same_class": labels}, held.classes == labels[:, None]),
        ({"max_age": 2}, np.broadcast_to(ages <= 2, (9, 57))),
        (
            {"not_mine": names, "same_class": torch.tensor(labels), "max_age": 1},
            (owner != np.array(names)[:, None]) & (held.classes == labels[:, None]) & (ages <= 1),
        ),
    ):
        found = store.nearest(queries, 7, similarity, round=5, temperature=0.5, **asked)
        at, scores = oracle(queries, sought, 7, similarity, allowed)
        assert np.array_equal(found.ids.numpy(), np.where(at < 0, -1, held.ids[at]))
        np.testing.assert_allclose(found.scores.numpy(), scores, rtol=1e-4, atol=1e-5)
        with np.errstate(invalid="ignore"):
            shares = np.exp((scores - scores[:, :1]) / 0.5)
        shares = np.where(at < 0, 0, shares)
        shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-30)
        np.testing.assert_allclose(found.weights.numpy(), shares, rtol=1e-3, atol=1e-5)
        means = (shares[:, :, None] * held.values[at]).sum(1)
        np.testing.assert_allclose(found.values.numpy(), means, rtol=1e-3, atol=1e-4)
        there = found.rows.numpy() >= 0
        assert np.array_equal(store.at(found.rows[found.rows >= 0]).ids, found.ids.numpy()[there])


def test_ties_over_segments_go_to_what_came_first(declare, tmp_path):
    values = np.array([[1.0, 2], [2, 1], [1, 2], [3, 0], [1, 2], [2, 1], [1, 2]])
    store = cut_up(declare(), tmp_path, entries(np.arange(10, 17), values, "a", 1, keys=values), 3)
    found = store.nearest(np.array([[0.0, 1.0], [1.0, 1.0]]), 5, "dot", round=1)
    assert found.ids.tolist() == [[10, 12, 14, 16, 11], [10, 11, 12, 13, 14]]


def test_nothing_to_find(declare, some):
    store = Store.create(declare(), "empty")
    found = store.nearest(np.ones((3, 5)), 2, round=1)
    assert found.ids.tolist() == [[-1, -1]] * 3 and found.values.shape[0] == 3
    assert not found.weights.any() and store.statistics.misses == 3
    store.put(some([1, 2], contributors=("a",)), 1)
    found = store.nearest(np.ones((3, 5)), 2, round=1, not_mine="a")
    assert (found.ids == -1).all() and not found.values.any()
    assert (store.statistics.hits, store.statistics.misses) == (0, 6)


def test_what_was_found_is_counted_with_its_age(declare, some):
    store = Store.create(declare(), "s")
    store.put(some([1, 2, 3], round=np.array([1, 2, 3])), 3)
    store.nearest(store.get([1]).values, 1, "l2", round=5)
    assert (store.statistics.hits, store.statistics.mean_age) == (1, 4.0)
    store.begin_statistics()
    assert (store.statistics.hits, store.statistics.mean_age) == (0, 0.0)


def test_wrong_queries_are_answered(declare, some):
    store = Store.create(declare(), "s")
    store.put(some([1, 2]), 1)
    with pytest.raises(StoreError, match=r"queries have shape \(1, 4\); expected \[Q, 5\]"):
        store.nearest(np.ones((1, 4)), 1, round=1)
    with pytest.raises(StoreError, match="k is 0"):
        store.nearest(np.ones((1, 5)), 0, round=1)


def test_keys_are_searched_where_they_lie_in_the_file(declare, some, tmp_path, monkeypatch):
    store = Store.create(declare(keys="int8", encoding="int8"), "s")
    store.put(some(range(50)), 1)
    store = Store.open(store.write(tmp_path, "s"))
    from codistill.kernels import retrieval

    seen = []
    real = retrieval.retrieve

    def watched(queries, keys, **said):
        seen.extend([keys.data_ptr(), said["key_scales"].data_ptr()])
        return real(queries, keys, **said)

    monkeypatch.setattr(retrieval, "retrieve", watched)
    store.nearest(np.ones((1, 4)), 3, round=1)
    (segment,) = (file for file in store.files() if file.name == "s.0.arrow")
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(segment))]
    spans = [tuple(int(end, 16) for end in words[0].split("-")) for words in maps]
    assert len(seen) == 2 and all(any(low <= one < high for low, high in spans) for one in seen)
