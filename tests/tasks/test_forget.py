"""Unlearning one agent: exactly where what it said can be told apart, with a word where it cannot."""

from dataclasses import replace

import pytest
import torch
from codistill.tasks.forget import Forget, forget
from codistill.tasks.memory import Memory
from codistill.tasks.remember import Consolidate, Store, consolidate, store
from codistill.tasks.stores import Declaration
from pydantic import ValidationError

DECLARED = {
    "cache": Declaration(kind="episodic", holds="logits"),
    "facts": Declaration(kind="semantic", holds="class_logits"),
}


def said_by(rows, names, seed=0):
    given = rows(list(range(3 * len(names))), form="logits", seed=seed)
    owners = torch.arange(len(names)).repeat_interleave(3)
    return replace(given, classes=given.ids % 2, contributors=tuple(names), owners=owners)


@pytest.fixture
def server(agent):
    agent.name, agent.role, agent.above, agent.models = "server", "server", "", {}
    agent.memory = Memory(DECLARED)
    return agent


def remember(agent, given, context):
    agent.memory.hold("working", "received", given, context.round)
    store(agent, Store(memory="cache"), context)
    consolidate(agent, Consolidate(memory="cache", into="facts"), context)
    agent.memory.drop("working")


def test_stores_are_to_the_bit_as_if_it_had_never_contributed(server, context, rows):
    given = said_by(rows, ("a", "b", "c"))
    remember(server, given, context)
    forget(server, Forget(contributor="b"), context)
    assert [(e.what, e.about, e.count) for e in server.memory.told()] == [
        ("forgotten", "cache", 3),
        ("forgotten", "facts", 2),
    ]
    left, server.memory = server.memory, Memory(DECLARED)
    remember(server, given.part(given.owners != 1), context)
    for name in DECLARED:
        found, wanted = left.store(name).all(), server.memory.store(name).all()
        assert found.ids.tobytes() == wanted.ids.tobytes() and found.values.tobytes() == wanted.values.tobytes()
        assert found.weights.tobytes() == wanted.weights.tobytes()
        assert left.store(name).contributors() == ("a", "c")


def test_one_memory_alone_can_be_named(server, context, rows):
    remember(server, said_by(rows, ("a", "b")), context)
    forget(server, Forget(memory="cache", contributor="b"), context)
    assert server.memory.store("cache").contributors() == ("a",)
    assert server.memory.store("facts").contributors() == ("a", "b")


def test_old_entries_alone_can_be_named(server, context, rows):
    remember(server, said_by(rows, ("a", "b")), replace(context, round=1))
    later = replace(context, round=5)
    server.memory.hold("working", "received", said_by(rows, ("a", "b")).part(torch.tensor([4])), 5)
    store(server, Store(memory="cache"), later)
    forget(server, Forget(memory="cache", contributor="b", older_than=2), later)
    held = server.memory.store("cache").all()
    assert held.ids.tolist() == [0, 1, 2, 4] and held.rounds.tolist() == [1, 1, 1, 5]


def test_what_was_mixed_before_it_came_is_told(agent, context, rows):
    agent.memory, agent.above = Memory(DECLARED), "server"
    agent.memory.hold("working", "received", rows([1, 2], form="logits"), 1, "server")
    store(agent, Store(memory="cache"), context)
    forget(agent, Forget(contributor="b"), context)
    assert len(agent.memory.store("cache")) == 2
    kept = {event.about: event for event in agent.memory.told() if event.what == "kept"}
    assert kept["cache"].count == 2 and "made of what several agents said; b may stay in it" in kept["cache"].sentence
    assert "the weights of phone may have learned from b" in kept["procedural"].sentence


def test_pieces_lose_its_rows_and_tell_of_mixtures(server, context, rows):
    server.memory.hold("episodic", "logits", said_by(rows, ("a", "b")), 1)
    server.memory.hold("semantic", "class_logits", rows([0, 1]), 1)
    forget(server, Forget(contributor="b"), context)
    assert server.memory.recall("episodic", "logits").ids.tolist() == [0, 1, 2]
    found = [(event.what, event.about, event.count) for event in server.memory.told()]
    assert found == [("kept", "semantic", 2), ("forgotten", "episodic", 3)]


def test_rows_for_an_agent_are_not_what_it_said(server, context, rows):
    """What was answered to b stays; what b said to the others may be in their answers, and this is told."""
    answers = replace(said_by(rows, ("a", "b")), addressed=True)
    server.memory.hold("episodic", "delivered 0", answers, 1)
    forget(server, Forget(contributor="b"), context)
    assert server.memory.recall("episodic", "delivered 0") is answers
    assert [(event.what, event.count) for event in server.memory.told()] == [("kept", 6)]


def test_a_stranger_changes_nothing(server, context, rows):
    remember(server, said_by(rows, ("a", "b")), context)
    forget(server, Forget(contributor="z"), context)
    assert server.memory.told() == [] and len(server.memory.store("cache")) == 6


def test_something_must_be_named():
    with pytest.raises(ValidationError, match="expected `memory`, or `contributor`"):
        Forget()
