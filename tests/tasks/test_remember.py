from dataclasses import replace

import pytest
import torch
from codistill.tasks.forget import Forget, forget
from codistill.tasks.remember import Consolidate, Retrieve, Store, consolidate, retrieve, store
from codistill.tasks.stores import Declaration


@pytest.mark.parametrize("memory", ["semantic", "episodic", "procedural"])
def test_what_was_received_is_stored_by_its_form_and_comes_back_to_mind(agent, context, rows, memory):
    received = rows([1, 2], form="prototypes")
    agent.memory.hold("working", "received", received, 2)
    store(agent, Store(memory=memory), context)
    assert agent.memory.items(memory)["prototypes"].round == context.round
    agent.memory.drop("working")
    retrieve(agent, Retrieve(memory=memory, knowledge="class_logits"), context)
    assert agent.memory.count("working") == 0
    retrieve(agent, Retrieve(memory=memory, knowledge="prototypes"), context)
    assert agent.memory.recall("working", "prototypes") is received


def test_nothing_received_leaves_the_memory_as_it_was(agent, context, rows):
    old = rows([1])
    agent.memory.hold("semantic", "class_logits", old, 1)
    store(agent, Store(memory="semantic"), context)
    assert agent.memory.recall("semantic", "class_logits") is old
    assert agent.memory.items("semantic")["class_logits"].round == 1


@pytest.mark.parametrize(("older_than", "left"), [(None, set()), (0, {4}), (1, {3, 4}), (3, {1, 2, 3, 4})])
def test_forgetting(agent, context, rows, older_than, left):
    for number in (1, 2, 3, 4):
        agent.memory.hold("episodic", str(number), rows([number]), number)
    agent.memory.hold("semantic", "1", rows([1]), 1)
    forget(agent, Forget(memory="episodic", older_than=older_than), replace(context, round=4))
    assert {item.round for item in agent.memory.items("episodic").values()} == left
    assert agent.memory.items("semantic")


@pytest.mark.parametrize("memory", ["sensory", "cash"])
def test_what_is_neither_declared_nor_a_long_term_memory_is_refused(agent, context, rows, memory):
    agent.memory.hold("working", "received", rows([1]), 2)
    for operation in (
        lambda: store(agent, Store(memory=memory), context),
        lambda: retrieve(agent, Retrieve(memory=memory, knowledge="logits"), context),
        lambda: forget(agent, Forget(memory=memory), context),
    ):
        with pytest.raises(ValueError, match=f"there is no memory '{memory}'; declare it under `memories`"):
            operation()


def remembering(agent, rows, context, keep, ids=range(400)):
    """The ids that an agent's memory holds when as many came and ``keep`` says how many may stay; and what it noted."""
    declared = Declaration(kind="semantic", holds="class_logits", keep=keep)
    agent.memory = type(agent.memory)({"facts": declared})
    agent.memory.hold("working", "received", rows(list(ids)), context.round)
    store(agent, Store(memory="facts"), context)
    return set(agent.memory.store("facts").all().ids.tolist()), agent.memory.told()


def test_a_memory_keeps_a_share_of_the_ids_and_always_the_same(agent, another, context, rows):
    quarter, told = remembering(agent, rows, context, 0.25)
    half, _ = remembering(agent, rows, context, 0.5)
    assert 70 <= len(quarter) <= 130 and 160 <= len(half) <= 240 and quarter < half
    assert [(event.what, event.about, event.count) for event in told] == [
        ("filtered", "keep of facts", 400 - len(quarter))
    ]
    later, _ = remembering(agent, rows, replace(context, round=5, place="store.1"), 0.5, ids=range(100, 300))
    assert later == {id for id in half if 100 <= id < 300}  # whatever comes beside an id, and whenever
    other, _ = remembering(another("laptop", agent.train_ids), rows, context, 0.5)
    assert other != half


def test_a_memory_that_keeps_all_notes_nothing_and_one_that_keeps_nothing_is_empty(agent, context, rows):
    assert remembering(agent, rows, context, 1.0) == (set(range(400)), [])
    held, told = remembering(agent, rows, context, 0.0)
    assert not held and told[0].count == 400
    retrieve(agent, Retrieve(memory="facts", knowledge="class_logits"), context)
    assert agent.memory.recall("working", "class_logits") is None


def test_consolidating_into_a_memory_goes_through_the_same_door(agent, context, rows):
    agent.memory = type(agent.memory)(
        {
            "events": Declaration(kind="episodic", holds="class_logits"),
            "facts": Declaration(kind="semantic", holds="class_logits", keep=0.5),
        }
    )
    many = rows(list(range(200)))
    agent.memory.hold("working", "received", replace(many, classes=many.ids), context.round)
    store(agent, Store(memory="events"), context)
    consolidate(agent, Consolidate(memory="events", into="facts"), context)
    kept = set(agent.memory.store("facts").all().ids.tolist())
    assert 70 <= len(kept) <= 130
    again, _ = remembering(agent, rows, context, 0.5, ids=range(200))
    assert kept == again


def test_what_is_nearest_in_an_empty_memory_is_nothing(agent, context, rows):
    agent.memory = type(agent.memory)({"cache": Declaration(kind="episodic", holds="logits", keys="float32")})
    asking = replace(rows([1, 2], form="logits"), keys=torch.ones(2, 3))
    agent.memory.hold("working", "received", asking, context.round)
    step = Retrieve.model_validate({"memory": "cache", "knowledge": "logits", "for": "received", "by": "nearest"})
    retrieve(agent, step, context)
    assert agent.memory.recall("working", "logits") is None
    assert agent.memory.store("cache").statistics.misses == 2
