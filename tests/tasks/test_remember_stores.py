"""The operations on memories that a recipe declares."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.memory import Memory
from codistill.tasks.remember import Consolidate, Decay, Retrieve, Store, consolidate, decay, retrieve, store
from codistill.tasks.stores import Declaration

DECLARED = {
    "cache": Declaration(kind="episodic", holds="logits"),
    "facts": Declaration(kind="semantic", holds="class_logits"),
    "keyed": Declaration(kind="episodic", holds="logits", keys="float32"),
    "small": Declaration.model_validate({"kind": "episodic", "holds": "logits", "capacity": {"items": 2}}),
}


@pytest.fixture
def remembering(agent):
    agent.memory = Memory(DECLARED)
    agent.above = "server"
    return agent


def give(agent, rows, key="received"):
    """Put rows in hand as a run does: what was received is the aggregator's where its rows do not say whose."""
    agent.memory.hold("working", key, rows, 2, agent.above if key == "received" else "")


@pytest.mark.parametrize(("what", "whose"), [("received", "server"), ("made", "phone")])
def test_what_is_stored_says_who_it_is_from(remembering, context, rows, what, whose):
    given = rows([1, 4], form="logits")
    give(remembering, given, "received" if what == "received" else "to share")
    store(remembering, Store(memory="cache", what=what), context)
    held = remembering.memory.store("cache").all()
    assert [held.contributors[place] for place in held.owners] == [whose] * 2
    assert held.ids.tolist() == [1, 4] and held.values.tobytes() == given.values.numpy().tobytes()
    assert held.rounds.tolist() == [context.round] * 2 and remembering.memory.told() == []


def test_nothing_in_hand_stores_nothing(remembering, context):
    store(remembering, Store(memory="cache"), context)
    assert "cache" not in remembering.memory.stores


def test_filters_at_the_door_of_a_store_are_counted(remembering, context, rows):
    given = rows([1, 2, 3], form="logits")
    given.values[1] *= 1e6
    give(remembering, given)
    said = Store.model_validate({"memory": "cache", "filters": [{"magnitude": {"limit": 100}}]})
    store(remembering, said, context)
    assert remembering.memory.store("cache").all().ids.tolist() == [1, 3]
    (event,) = remembering.memory.told()
    assert (event.what, event.about, event.count, event.place) == ("filtered", "magnitude", 1, context.place)


def test_what_a_store_refuses_and_evicts_is_counted(remembering, context, rows):
    given = rows([1, 2, 3, 4], form="logits")
    given.values[0, 0] = torch.nan
    give(remembering, given)
    store(remembering, Store(memory="small"), context)
    assert remembering.memory.store("small").all().ids.tolist() == [3, 4]
    assert [(event.what, event.count) for event in remembering.memory.told()] == [("refused", 1), ("evicted", 1)]


def test_rows_without_keys_are_refused_by_a_store_with_keys(remembering, context, rows):
    give(remembering, rows([1, 2], form="logits"))
    store(remembering, Store(memory="keyed"), context)
    assert len(remembering.memory.store("keyed")) == 0
    assert [(event.what, event.about, event.count) for event in remembering.memory.told()] == [("refused", "keyed", 2)]


def test_the_top_answers_with_what_it_retrieves_and_to_each_its_own(remembering, context, rows):
    remembering.role, remembering.above = "server", ""
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    given = replace(
        rows([1, 2, 3, 4], form="logits"), contributors=("a", "b"), owners=torch.tensor([0, 1, 0, 1]), keys=keys
    )
    give(remembering, given)
    store(remembering, Store(memory="keyed", who="top"), context)
    by = {"nearest": {"k": 1, "not_mine": True}}
    said = {"memory": "keyed", "knowledge": "logits", "who": "top", "for": "received", "by": by}
    retrieve(remembering, Retrieve.model_validate(said), context)
    answer = remembering.memory.recall("working", "received")
    assert answer.addressed and answer is remembering.memory.recall("working", "logits")
    torch.testing.assert_close(answer.of("a").values, given.values[[1, 3]])
    torch.testing.assert_close(answer.of("b").values, given.values[[0, 2]])


def test_a_top_that_finds_nothing_sends_nothing_back(remembering, context, rows):
    give(remembering, rows([1], form="logits"))
    said = {"memory": "keyed", "knowledge": "logits", "who": "top", "for": "received", "by": {"nearest": {}}}
    retrieve(remembering, Retrieve.model_validate(said), context)
    assert remembering.memory.recall("working", "received") is None


def contributed(rows, seed=0):
    given = rows([1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 5.0], form="logits", seed=seed)
    owners = torch.tensor([0, 1, 0, 1, 1])
    return replace(given, classes=torch.tensor([0, 0, 0, 2, 2]), contributors=("a", "b"), owners=owners)


def test_facts_are_means_by_class_and_contributor(remembering, context, rows):
    given = contributed(rows)
    give(remembering, given)
    store(remembering, Store(memory="cache"), context)
    consolidate(remembering, Consolidate(memory="cache", into="facts"), context)
    held = remembering.memory.store("facts").all()
    made = {
        (int(one), held.contributors[owner]): (values, weight)
        for one, owner, values, weight in zip(held.ids, held.owners, held.values, held.weights, strict=True)
    }
    values, weights = given.values.double().numpy(), given.weights.numpy()
    for key, some in {(0, "a"): [0, 2], (0, "b"): [1], (2, "b"): [3, 4]}.items():
        mean = (values[some] * weights[some, None]).sum(0) / weights[some].sum()
        np.testing.assert_allclose(made[key][0], mean, rtol=1e-6)
        assert made[key][1] == weights[some].sum()
    assert len(made) == 3 and held.classes.tolist() == held.ids.tolist()


def test_what_fades_is_forgotten_in_the_end(remembering, context, rows):
    give(remembering, contributed(rows))
    store(remembering, Store(memory="cache"), context)
    for _ in range(3):
        decay(remembering, Decay(memory="cache", factor=0.5, floor=0.1), context)
        assert len(remembering.memory.store("cache")) == 5 and remembering.memory.told() == []
    decay(remembering, Decay(memory="cache", factor=0.5, floor=0.1), context)
    assert len(remembering.memory.store("cache")) == 0
    assert [(event.what, event.about, event.count) for event in remembering.memory.told()] == [
        ("forgotten", "cache", 5)
    ]
