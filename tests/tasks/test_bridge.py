"""Bridge samples: codes that travel once, models that learn on what is decoded, answers that go to each for its own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.absorb import Absorb, absorb
from codistill.tasks.agent import Agent
from codistill.tasks.extract import Extract, extract
from codistill.tasks.keys import components
from codistill.tasks.knowledge import addressed_to, marked, together
from codistill.tasks.memory import Memory
from codistill.tasks.networks import build
from codistill.tasks.stores import Declaration
from codistill.tasks.streams import torch_stream
from pydantic import TypeAdapter

WIDTH = 6
DECLARED = {"bridge": Declaration(kind="episodic", holds="logits", keys="float32")}
TELL = {"knowledge": "logits", "from": "bridge", "memory": "bridge", "labels": True}
TELL |= {"keys": {"principal": {"width": WIDTH}}, "keys_when": "first"}
LEARN = {"by": "bridge_samples", "memory": "bridge", "batch": 100, "optimizer": {"sgd": {"lr": 0.1}}}


def told(agent, context, **said):
    extract(agent, TypeAdapter(Extract).validate_python(TELL | said), context)
    return marked(agent.memory.recall("working", "to share"), agent.name)


def learn(agent, received, context, **said):
    agent.memory.hold("working", "received", received, context.round)
    absorb(agent, TypeAdapter(Absorb).validate_python(LEARN | said), replace(context, place="absorb.0"))
    return agent.memory.recall("working", "received")


def with_memory(agent):
    agent.memory = Memory(DECLARED)
    return agent


@pytest.fixture
def first(context):
    return replace(context, round=1)


@pytest.fixture
def leaf(agent):
    return with_memory(agent)


@pytest.fixture
def parent(world):
    """An edge without samples: what it touches of the world is public or in its memory."""
    nothing, one = torch.empty(0, dtype=torch.int64), next(iter(world.architectures.values()))
    edge = with_memory(Agent("edge", "edge", "edge", nothing, nothing, {"model": one}))
    edge.models["model"] = build(one, torch_stream(1, "edge"))
    return edge


def decoded(world, context, ids):
    center, axes = components(WIDTH, context)
    flat = world.x_train[ids].flatten(1)
    return ((flat - center) @ axes @ axes.T + center).view(-1, 1, 8, 8)


def test_codes_and_labels_are_told_once_and_are_of_the_agents_own_samples(leaf, world, first, context):
    once, later = told(leaf, first), told(leaf, context)
    assert once.ids.tolist() == later.ids.tolist() == list(range(30))
    center, axes = components(WIDTH, first)
    assert torch.equal(once.keys, (world.x_train[:30].flatten(1) - center) @ axes)
    assert torch.equal(once.classes, world.y_train[:30])
    assert later.keys is None and later.classes is None
    with torch.no_grad():
        expected = leaf.models["model"](decoded(world, first, leaf.train_ids))
    assert (once.values - expected).abs().max() < 1e-5
    assert torch.equal(once.values, later.values)
    assert len(leaf.memory.store("bridge")) == 30


def test_a_parent_learns_what_its_children_say_on_decoded_samples(leaf, another, parent, world, first):
    other = with_memory(another("laptop", torch.arange(40, 55)))
    rows = together([told(leaf, first), told(other, first)])
    model = build(parent.architectures["model"], torch_stream(1, "edge"))
    ids = rows.ids
    given = model(decoded(world, first, ids)).double()
    p = F.softmax(rows.values.double() / 3, 1)
    apart = 9 * (p * (p.log() - F.log_softmax(given / 3, 1))).sum(1).mean()
    weights = list(model.parameters())
    slopes = torch.autograd.grad(F.cross_entropy(given, world.y_train[ids]) + 10 * apart, weights)
    answers = learn(parent, rows, first)
    for mine, weight, slope in zip(parent.models["model"].parameters(), weights, slopes, strict=True):
        assert (mine - (weight - 0.1 * slope)).abs().max() < 1e-5
    assert answers.addressed and answers.keys is None and answers.classes is None
    assert addressed_to(answers, "laptop").ids.tolist() == list(range(40, 55))
    with torch.no_grad():
        assert (answers.values - parent.models["model"](decoded(world, first, ids))).abs().max() < 1e-5


def test_in_later_rounds_codes_come_from_memory(leaf, parent, first, context):
    learn(parent, told(leaf, first), first)
    assert len(parent.memory.store("bridge")) == 30
    before = parent.models["model"].head.weight.clone()
    later = told(leaf, context)
    assert later.keys is None
    answers = learn(parent, later, context)
    assert answers.items == 30 and (parent.models["model"].head.weight - before).abs().max() > 1e-4


def test_who_comes_later_is_known_at_every_tier(leaf, another, parent, world, first, context):
    """The codes of who speaks first in round 2 go up in round 2, and those that are known above do not again."""
    top = with_memory(Agent("cloud", "cloud", "cloud", *[torch.empty(0).long()] * 2, dict(parent.architectures)))
    top.models["model"] = build(parent.architectures["model"], torch_stream(1, "cloud"))
    other = with_memory(another("laptop", torch.arange(40, 55)))
    learn(parent, told(leaf, first), first)
    learn(top, told(parent, first), first)
    assert len(top.memory.store("bridge")) == 30
    learn(parent, together([told(leaf, context), told(other, context)]), context)
    upward = told(parent, context)
    mine = upward.owners == upward.contributors.index("laptop")
    assert mine.sum() == 15 and torch.equal((upward.keys != 0).any(1), mine)
    assert torch.equal(upward.classes >= 0, mine)
    answers = learn(top, upward, context)
    assert answers.ids.tolist() == [*range(30), *range(40, 55)] and len(top.memory.store("bridge")) == 45
    held = top.memory.store("bridge").all()
    assert held.classes.tolist() == world.y_train[held.ids].tolist() and (held.keys != 0).any(1).all()
    assert top.memory.told() == [] and told(parent, replace(context, round=3)).keys is None


def test_what_no_code_is_known_of_is_counted_and_not_learned(leaf, another, parent, first, context):
    learn(parent, told(leaf, first), first)
    parent.memory.told()
    other = with_memory(another("laptop", torch.arange(40, 55)))
    silent = {"keys_when": {"until": 1}}
    answers = learn(parent, together([told(leaf, context, **silent), told(other, context, **silent)]), context)
    assert answers.ids.tolist() == list(range(30))
    assert [(e.what, e.about, e.count) for e in parent.memory.told()] == [("refused", "bridge", 15)]


def test_a_parent_speaks_of_all_that_it_holds_and_of_nobody_elses_numbers(leaf, parent, world, first, context):
    learn(parent, told(leaf, first), first)
    blind = replace(world, x_train=world.x_train.clone())
    blind.x_train[:30] = float("nan")  # private samples are not there for an aggregator
    upward = told(parent, replace(context, world=blind, round=1))
    assert upward.contributors == ("phone",) and upward.items == 30 and bool(upward.values.isfinite().all())
    assert upward.keys is not None and told(parent, context).keys is None
    assert bool(learn(parent, told(leaf, context), replace(context, world=blind)).values.isfinite().all())


def test_a_learner_that_hears_of_its_own_samples_adds_them(leaf, world, first, rows):
    told(leaf, first)
    aim = rows(list(range(30)), form="logits")
    model = build(leaf.architectures["model"], torch_stream(3, "phone", "model"))
    y = world.y_train[:30]
    given = model(decoded(world, first, torch.arange(30))).double()
    p = F.softmax(aim.values.double() / 2, 1)
    apart = 4 * (p * (p.log() - F.log_softmax(given / 2, 1))).sum(1).mean()
    loss = 0.5 * F.cross_entropy(given, y) + 0.7 * apart + 0.3 * F.cross_entropy(model(world.x_train[:30]).double(), y)
    weights = list(model.parameters())
    slopes = torch.autograd.grad(loss, weights)
    said = {"ce_weight": 0.5, "own_kd_weight": 0.7, "own_ce_weight": 0.3, "temperature": 2.0}
    kept = learn(leaf, aim, first, **said)
    for mine, weight, slope in zip(leaf.models["model"].parameters(), weights, slopes, strict=True):
        assert (mine - (weight - 0.1 * slope)).abs().max() < 1e-5
    assert kept is aim  # a learner answers nobody


def test_a_peer_is_a_parent_to_its_neighbours_and_itself(leaf, another, first):
    other = with_memory(another("laptop", torch.arange(40, 55)))
    mine, theirs = told(leaf, first), told(other, first)
    everything = together([mine, theirs])
    with_itself, without = (
        with_memory(another("phone", torch.arange(30))),
        with_memory(another("phone", torch.arange(30))),
    )
    told(with_itself, first), told(without, first)
    kept = learn(with_itself, everything, first)
    learn(without, theirs, first)
    assert kept is everything
    assert len(with_itself.memory.store("bridge")) == 45 and len(without.memory.store("bridge")) == 45
    apart = with_itself.models["model"].head.weight - without.models["model"].head.weight
    assert apart.abs().max() > 1e-4
    assert told(with_itself, first).ids.tolist() == list(range(30))


def test_an_agent_without_samples_says_nothing(another, first, context):
    empty = with_memory(another("nobody", torch.empty(0, dtype=torch.int64)))
    assert told(empty, first).items == 0 and told(empty, context).items == 0
