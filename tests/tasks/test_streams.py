import hashlib

import numpy as np
import pytest
import torch
from codistill.tasks.streams import numpy_stream, seed_of, torch_stream, uniform_of_ids


def draw(*names, seed=1):
    return torch.rand(4, generator=torch_stream(seed, *names)).tolist()


def test_a_stream_is_its_address():
    # Stated here once more, so that a change of it, which would change every run, is noticed.
    digest = hashlib.sha256(b"1\x1fagent\x1fphone-1\x1f3").digest()
    assert seed_of(1, "agent", "phone-1", 3) == int.from_bytes(digest[:8], "big") // 2
    assert torch_stream(1, "agent", "phone-1", 3).initial_seed() == seed_of(1, "agent", "phone-1", 3)


@pytest.mark.parametrize("other", [("a", "c"), ("a",), ("ab",), ("a", "b", 0), ("b", "a")])
def test_other_names_are_another_stream(other):
    assert draw("a", "b") == draw("a", "b") != draw(*other)
    assert draw("a", "b", seed=2) != draw("a", "b")


def test_what_is_drawn_elsewhere_moves_nothing():
    alone = draw("a"), numpy_stream(1, "a").random(3).tolist()
    torch.rand(5)
    np.random.rand(5)
    draw("b")
    numpy_stream(1, "b").random(9)
    assert (draw("a"), numpy_stream(1, "a").random(3).tolist()) == alone


def test_a_further_agent_moves_nobody(world, context, another):
    def shuffles(names):
        agents = [another(name, torch.arange(30)) for name in names]
        return {a.name: torch.rand(3, generator=a.stream(context, "shuffle", 0)).tolist() for a in agents}

    few, more = shuffles(["x", "y"]), shuffles(["w", "x", "y", "z"])
    assert all(more[name] == few[name] for name in few)
    assert len({tuple(values) for values in more.values()}) == 4


def test_an_agents_stream_depends_on_the_round_and_the_step(agent, context):
    from dataclasses import replace

    here = torch.rand(3, generator=agent.stream(context, "shuffle")).tolist()
    for other in (replace(context, round=3), replace(context, place="train.1"), replace(context, seed=8)):
        assert torch.rand(3, generator=agent.stream(other, "shuffle")).tolist() != here


def test_a_module_is_built_once_and_leaves_the_global_generator_alone(agent, another, context):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = agent.module("map", context, lambda: torch.nn.Linear(3, 2))
    assert agent.module("map", context, lambda: torch.nn.Linear(3, 2)) is first
    assert torch.equal(before, torch.get_rng_state())
    again = another("phone", torch.arange(5)).module("map", context, lambda: torch.nn.Linear(3, 2))
    other = another("laptop", torch.arange(5)).module("map", context, lambda: torch.nn.Linear(3, 2))
    assert torch.equal(again.weight, first.weight) and not torch.equal(other.weight, first.weight)


def test_an_id_draws_its_own_number():
    ids = np.array([0, 1, 7, 2**40, -3])
    drawn = uniform_of_ids(1, ids, "a", "b")
    whole = 2**64 - 1
    for id, number in zip(ids.tolist(), drawn.tolist(), strict=True):  # SplitMix64 in Python's own integers
        z = (id * 0x9E3779B97F4A7C15 + seed_of(1, "a", "b")) & whole
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
        assert number == ((z ^ (z >> 31)) >> 11) / 2**53
    assert uniform_of_ids(1, ids[::-1], "a", "b").tolist() == drawn[::-1].tolist()
    assert not set(uniform_of_ids(2, ids, "a", "b").tolist()) & set(drawn.tolist())
    many = np.sort(uniform_of_ids(1, np.arange(10_000), "a"))
    assert np.abs(many - (np.arange(10_000) + 0.5) / 10_000).max() < 0.02  # Kolmogorov: 1.36 / 100 at 5 %
