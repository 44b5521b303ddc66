from dataclasses import replace

import pytest
from codistill.tasks.forget import Forget, forget
from codistill.tasks.remember import Retrieve, Store, retrieve, store


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
