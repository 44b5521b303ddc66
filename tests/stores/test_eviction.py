"""Herding by its definition, quotas, and what a reservoir keeps over many draws."""

import numpy as np
import pytest
from codistill.tasks.stores import Store, StoreError, entries
from codistill.tasks.stores.eviction import herd, shares


def by_definition(features, count):
    """iCaRL's algorithm 4, term by term."""
    features = features.astype(np.float64)
    mean, chosen = features.mean(axis=0), []
    while len(chosen) < count:
        apart = [
            np.inf if at in chosen else np.linalg.norm(mean - features[[*chosen, at]].mean(axis=0))
            for at in range(len(features))
        ]
        chosen.append(int(np.argmin(apart)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herding_follows_its_definition(seed):
    features = np.random.default_rng(seed).normal(size=(30, 6)).astype(np.float32)
    assert herd(features, 12).tolist() == by_definition(features, 12)


def test_equal_features_are_taken_in_their_order():
    features = np.repeat(np.random.default_rng(0).normal(size=(1, 37)), 9, axis=0)
    assert herd(features, 9).tolist() == list(range(9))


@pytest.mark.parametrize(
    ("counts", "total", "kept"),
    [([5, 5], 6, [3, 3]), ([1, 9, 9], 9, [1, 4, 4]), ([5, 5, 5], 7, [3, 2, 2]), ([2, 3], 5, [2, 3]), ([4], 0, [0])],
)
def test_classes_keep_as_equally_many_as_can_be(counts, total, kept):
    assert shares(np.array(counts), total).tolist() == kept


def test_two_entries_are_as_far_from_their_mean_as_each_other_so_the_first_stays():
    for seed in range(200):
        pair = np.random.default_rng(seed).standard_normal((2, 5)).astype(np.float32)
        assert herd(pair, 1).tolist() == [0]


def test_a_herding_store_keeps_by_keys_and_by_class(declare, some):
    store = Store.create(declare(eviction="herding", keys="float32", capacity={"items": 8}), "herd")
    given = some(range(40), classes=2, seed=3)
    store.put(given, 1)
    expected = set()
    for label in (0, 1):
        members = np.flatnonzero(given.classes == label)
        expected |= set(members[by_definition(given.keys[members], 4)].tolist())
    assert set(store.all().ids.tolist()) == expected


def test_a_reservoir_keeps_every_entry_equally_often(declare):
    declaration, kept = declare(eviction="reservoir", capacity={"items": 5}), np.zeros(20)
    for draw in range(400):
        store, stream = Store.create(declaration, "r"), np.random.default_rng(draw)
        for first in range(0, 20, 4):
            ids = np.arange(first, first + 4)
            store.put(entries(ids, np.ones((4, 2)), "a", 1), 1, stream)
        kept[store.all().ids] += 1
    # 400 draws of 5 out of 20: 100 each, with a standard deviation below 9.
    assert kept.sum() == 2000 and np.abs(kept - 100).max() < 40


def test_a_reservoir_without_a_stream_is_refused_and_nothing_changes(declare, some):
    store = Store.create(declare(eviction="reservoir", capacity={"items": 5}), "pond")
    store.put(some([1, 2]), 1, np.random.default_rng(0))
    with pytest.raises(StoreError, match="pond.*give put a stream"):
        store.put(some([1, 2], seed=9), 1)
    assert np.array_equal(store.all().values, some([1, 2]).values)


def test_what_is_used_stays_in_an_lru_store(declare, some):
    store = Store.create(declare(eviction="lru", capacity={"items": 3}), "lru")
    store.put(some([1, 2, 3], round=1), 1)
    store.get([1], round=2)
    store.nearest(some([3]).values, 1, "l2", round=2)
    assert store.put(some([4], round=2, seed=5), 2).evicted == 1
    assert 1 in store.all().ids
