"""Means of neighbours known by id, beside a loop over them."""

import numpy as np
import pytest
from codistill.tasks.stores import Store, StoreError
from codistill.tasks.stores.means import distinct


@pytest.mark.parametrize("apart", [1, 10**9])
def test_means_are_those_of_a_loop(declare, some, tmp_path, apart):
    store = Store.create(declare(encoding="int8"), "s")
    for turn in range(3):
        store.put(some(np.arange(20 + turn) * apart, seed=turn, contributors=("abc"[turn],), round=turn), turn)
        store.write(tmp_path, "s")
    store.forget(contributor="b", ids=[3 * apart])
    held, rng = store.all(), np.random.default_rng(0)
    ids = rng.integers(0, 25, (30, 6)) * apart
    ids[rng.random(ids.shape) < 0.3] = -1
    ids[4] = -1
    means, counts = store.mean_of(ids, round=7)
    ages = []
    for asked, mean, count in zip(ids, means.numpy(), counts.tolist(), strict=True):
        at = [row for one in asked if one >= 0 for row in np.flatnonzero(held.ids == one)]
        ages += [7 - held.rounds[row] for row in at]
        expected = held.values[at].astype(np.float64).mean(0) if at else np.zeros(5)
        assert count == len(at)
        np.testing.assert_allclose(mean, expected, atol=1e-5)
    found = store.statistics
    assert (found.hits, found.misses) == (int((counts > 0).sum()), int((counts == 0).sum()))
    assert found.mean_age == pytest.approx(np.mean(ages))


def test_nothing_held_and_wrong_shapes(declare):
    store = Store.create(declare(), "s")
    means, counts = store.mean_of(np.zeros((3, 2)), round=1)
    assert means.shape == (3, 0) and counts.tolist() == [0, 0, 0]
    with pytest.raises(StoreError, match=r"ids have shape \(3,\); expected \[Q, R\]"):
        store.mean_of(np.zeros(3), round=1)


@pytest.mark.parametrize("apart", [1, 10**12])
def test_distinct_ids(apart):
    ids = np.random.default_rng(0).integers(-1, 40, 100) * apart
    found, places = distinct(ids)
    assert np.array_equal(found, np.unique(ids)) and np.array_equal(found[places], ids)
