"""Rows become entries of a store and come back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.held import completed, entries_of, rows_of
from codistill.tasks.stores import Declaration, Store


def owned(rows, names, owners):
    return replace(rows, contributors=tuple(names), owners=torch.tensor(owners))


def store(**said):
    return Store.create(Declaration(kind="episodic", holds="logits", **said), "cache")


def test_entries_say_who_when_and_how_sure(rows):
    given = replace(rows([3, 7], [2.0, 5.0], form="logits"), classes=torch.tensor([1, 4]), keys=torch.ones(2, 3))
    made = entries_of(given, "server", 6)
    assert made.contributors == ("server",) and made.owners.tolist() == [0, 0] and made.rounds.tolist() == [6, 6]
    assert made.ids.tolist() == [3, 7] and made.classes.tolist() == [1, 4] and made.weights.tolist() == [2, 5]
    values = given.values.double().numpy()
    sure = (np.exp(values) / np.exp(values).sum(1, keepdims=True)).max(1)
    np.testing.assert_allclose(made.confidence, sure, rtol=1e-6)
    assert entries_of(rows([3], form="prototypes"), "server", 6).confidence.tolist() == [1]


def test_owners_that_are_known_stay(rows):
    made = entries_of(owned(rows([1, 1, 2]), ("a", "b"), [0, 1, 1]), "server", 1)
    assert [made.contributors[place] for place in made.owners] == ["a", "b", "b"]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_store_refuses_what_is_not_finite(rows, broken):
    given = rows([1, 2, 3], form="logits")
    given.values[1, 0] = broken
    held = store()
    done = held.put(entries_of(given, "a", 1), 1)
    assert (done.stored, done.refused) == (2, 1) and held.all().ids.tolist() == [1, 3]


def test_a_log_gives_its_last_entries_in_the_order_of_ids_and_contributors(rows):
    held = store(replace=False)
    first, last = rows([5, 2], form="logits", seed=1), rows([5], form="logits", seed=2)
    for number, given, name in ((1, first, "b"), (2, last, "b"), (3, last, "a")):
        held.put(entries_of(given, name, number), number)
    found = rows_of(held.all(), "logits")
    whose = [found.contributors[place] for place in found.owners]
    assert found.ids.tolist() == [2, 5, 5] and sorted(whose[1:]) == ["a", "b"] and whose[0] == "b"
    assert torch.equal(found.values[0], first.values[1])
    assert torch.equal(found.values[1], last.values[0]) and torch.equal(found.values[2], last.values[0])
    assert found.samples == 3


def test_what_rows_do_not_tell_is_taken_from_the_owners_own_entries(rows):
    held = store(keys="float32")
    known = owned(rows([4, 4, 9], form="logits"), ("a", "b"), [0, 1, 0])
    known = replace(known, classes=torch.tensor([1, 2, 3]), keys=torch.arange(6.0).reshape(3, 2))
    held.put(entries_of(known, "x", 1), 1)
    later = owned(rows([4, 8, 9, 9], form="logits", seed=3), ("b", "a"), [0, 1, 0, 1])
    whole = completed(later, held)
    assert whole.ids.tolist() == [4, 9] and whole.classes.tolist() == [2, 3]
    assert whole.keys.tolist() == [[2, 3], [4, 5]]
    assert torch.equal(whole.values, later.values[[0, 3]])


def test_rows_that_tell_their_keys_stay_whole_and_without_any_nothing_is_left(rows):
    held = store(keys="float32")
    given = owned(rows([1, 2], form="logits"), ("a",), [0, 0])
    told = replace(given, keys=torch.ones(2, 2), classes=torch.tensor([0, 1]))
    assert completed(told, held).items == 2
    assert completed(given, held).items == 0
    assert completed(given, store()) is given
