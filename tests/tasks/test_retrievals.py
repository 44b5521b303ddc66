"""What is found in a store: all, by id, by class, by what is nearest."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.held import entries_of
from codistill.tasks.keys import KEYS, KeyChoice
from codistill.tasks.retrievals import RETRIEVALS, RetrievalChoice
from codistill.tasks.stores import Declaration, Store
from codistill.tasks.streams import torch_stream

MASKS = [{}, {"same_class": True}, {"not_mine": True}, {"same_class": True, "not_mine": True}]


@pytest.fixture
def cache(rows):
    """60 entries of three agents, keyed, five classes, each id known to one or two of them."""
    held = Store.create(Declaration(kind="episodic", holds="logits", keys="float32"), "cache")
    ids, owners = sorted([*range(40), *range(20)]), [place % 3 for place in range(60)]
    given = rows(ids, [1.0 + place % 4 for place in range(60)], form="logits")
    given = replace(
        given,
        classes=torch.tensor([one % 5 for one in ids]),
        contributors=("phone", "b", "c"),
        owners=torch.tensor(owners),
        keys=torch.randn(60, 6, generator=torch_stream(1, "keys of a test")),
    )
    held.put(entries_of(given, "x", 1), 1)
    return held, given


def ask(agent, held, context, by, hand=None, form="logits"):
    said = RetrievalChoice.model_validate(by)
    return RETRIEVALS[said.name].function(agent, held, said.parameters, hand, form, context)


def test_all(agent, context, cache):
    held, given = cache
    found = ask(agent, held, context, "all")
    assert found.items == 60 and torch.equal(found.ids, given.ids)


def test_by_id_is_the_mean_over_contributors_and_leaves_out_what_is_missing(agent, context, cache):
    held, given = cache
    agent.train_ids = torch.tensor([77, 3, 25, 88])
    found = ask(agent, held, context, "id")
    assert found.ids.tolist() == [3, 25]
    mine = (given.ids == 3).nonzero().flatten()
    weights = given.weights[mine]
    mean = (given.values[mine].double() * weights[:, None]).sum(0) / weights.sum()
    np.testing.assert_allclose(found.values[0], mean, rtol=1e-6)
    assert (held.statistics.hits, held.statistics.misses) == (2, 2)
    agent.train_ids = torch.tensor([77])
    assert ask(agent, held, context, "id") is None


def test_by_class_is_the_weighted_mean_of_each_class(agent, context, cache):
    held, given = cache
    found = ask(agent, held, context, "class", form="class_logits")
    assert found.ids.tolist() == [0, 1, 2, 3, 4] and found.form == "class_logits"
    for label in range(5):
        some = given.classes == label
        weights = given.weights[some]
        mean = (given.values[some].double() * weights[:, None]).sum(0) / weights.sum()
        np.testing.assert_allclose(found.values[label], mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize(
    "masks", [{}, {"same_class": True}, {"not_mine": True}, {"same_class": True, "not_mine": True}]
)
def test_nearest_beside_its_formula(agent, context, cache, similarity, masks):
    held, given = cache
    found = ask(agent, held, context, {"nearest": {"k": 3, "similarity": similarity, **masks}}, given)
    assert found.addressed and found.items == 60 and found.contributors == given.contributors
    keys = given.keys.double().numpy()
    if similarity == "cosine":
        keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    scores = keys @ keys.T
    if similarity == "l2":
        scores = -((keys[:, None] - keys[None]) ** 2).sum(2)
    if "same_class" in masks:
        scores[given.classes[:, None].numpy() != given.classes[None].numpy()] = -np.inf
    if "not_mine" in masks:
        scores[given.owners[:, None].numpy() == given.owners[None].numpy()] = -np.inf
    for place in range(60):
        best = np.argsort(-scores[place], kind="stable")[:3]
        np.testing.assert_allclose(found.values[place], given.values[best].mean(0), rtol=1e-5, atol=1e-6)


def test_a_temperature_weighs_what_is_found(agent, context, cache):
    held, given = cache
    found = ask(agent, held, context, {"nearest": {"k": 4, "temperature": 0.2}}, given)
    keys = given.keys.double().numpy()
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    scores = keys @ keys[7]
    best = np.argsort(-scores, kind="stable")[:4]
    weights = np.exp(scores[best] / 0.2) / np.exp(scores[best] / 0.2).sum()
    np.testing.assert_allclose(found.values[7], weights @ given.values[best].double().numpy(), rtol=1e-5, atol=1e-6)


def test_what_was_forgotten_is_found_no_more(agent, context, cache):
    held, given = cache
    held.forget(contributor="b")
    found = ask(agent, held, context, {"nearest": {"k": 60}}, given)
    some = given.owners != 1
    np.testing.assert_allclose(found.values[0], given.values[some].mean(0), rtol=1e-4, atol=1e-5)
    assert found.weights.tolist() == [int(some.sum())] * 60


def test_rows_that_nothing_may_be_found_for_are_left_out(agent, context, cache):
    held, given = cache
    odd = replace(given.part(torch.tensor([0, 1])), classes=torch.tensor([99, 1]))
    found = ask(agent, held, context, {"nearest": {"same_class": True}}, odd)
    assert found.items == 1 and found.ids.tolist() == given.ids[[1]].tolist()


def test_an_agent_asks_for_its_own_samples_by_keys_that_it_makes(agent, context, rows):
    said = KeyChoice.model_validate({"projection": {"width": 6}})
    ids = torch.arange(60, 80)
    held = Store.create(Declaration(kind="episodic", holds="logits", keys="float32"), "cache")
    made = KEYS["projection"].function(agent, ids, said.parameters, context)
    given = replace(rows(ids.tolist(), form="logits"), keys=made)
    held.put(entries_of(given, "b", 1), 1)
    found = ask(agent, held, context, {"nearest": {"k": 1, "keys": {"projection": {"width": 6}}}})
    mine = KEYS["projection"].function(agent, agent.train_ids, said.parameters, context)
    best = (torch.nn.functional.normalize(mine.double()) @ torch.nn.functional.normalize(made.double()).T).argmax(1)
    assert torch.equal(found.ids, agent.train_ids) and found.contributors == ("phone",)
    torch.testing.assert_close(found.values, given.values[best])
    assert ask(agent, held, context, {"nearest": {"k": 1}}) is None
