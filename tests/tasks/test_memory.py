import torch
from codistill.tasks.memory import KINDS, Memory


def test_kinds_are_those_of_the_survey():
    assert KINDS == ("sensory", "working", "semantic", "episodic", "procedural", "emotional")


def test_a_newer_piece_takes_the_place_of_the_older(rows):
    memory, old, new = Memory(), rows([1]), rows([1, 2])
    memory.hold("semantic", "prototypes", old, 1)
    memory.hold("semantic", "prototypes", new, 2)
    memory.hold("episodic", "prototypes", old, 3)
    assert memory.recall("semantic", "prototypes") is new and memory.recall("episodic", "prototypes") is old
    assert memory.recall("semantic", "logits") is None
    assert memory.items("semantic")["prototypes"].round == 2
    assert (memory.count("semantic"), memory.count("episodic"), memory.count("working")) == (2, 1, 0)


def test_dropping_takes_what_is_older_or_all(rows):
    memory = Memory()
    for round in (1, 2, 3):
        memory.hold("episodic", f"from {round}", rows([round]), round)
    memory.hold("semantic", "other", rows([1]), 1)
    memory.drop("episodic", older_than=2)
    assert set(memory.items("episodic")) == {"from 2", "from 3"}
    memory.drop("episodic")
    assert not memory.items("episodic") and memory.items("semantic")


def test_bytes_are_those_of_the_values(rows, models):
    memory = Memory()
    memory.hold("procedural", "models", models(2), 1)
    memory.hold("procedural", "rows", rows([1, 2, 3], width=5), 1)
    assert memory.bytes("procedural") == 4 * (12 + 3) + 3 * 5 * 4 + 3 * 8
    assert memory.count("procedural") == 2 + 3


def test_what_is_handed_out_is_not_the_memory_itself(rows):
    memory = Memory()
    memory.hold("working", "a", rows([1]), 1)
    memory.items("working").clear()
    assert memory.recall("working", "a") is not None


def test_memories_of_two_agents_are_two(another):
    one, other = (another(name, torch.arange(3)) for name in "ab")
    one.memory.hold("working", "a", object(), 1)
    assert other.memory.recall("working", "a") is None
