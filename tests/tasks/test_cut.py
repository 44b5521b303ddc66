"""The rule ``train_on_features`` alone: what it learns from, what it answers, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from codistill.tasks.agent import Agent
from codistill.tasks.aggregate import Aggregate, aggregate
from codistill.tasks.extract import Extract, extract
from codistill.tasks.knowledge import addressed_to, marked, together
from codistill.tasks.streams import torch_stream
from pydantic import TypeAdapter, ValidationError

SAID = {"by": "train_on_features", "hidden": [7], "epochs": 3, "batch": 5, "optimizer": {"sgd": {"lr": 0.2}}}


def rule(**said):
    return TypeAdapter(Aggregate).validate_python(SAID | said)


def top():
    nothing = torch.empty(0, dtype=torch.int64)
    return Agent("cloud", "cloud", "server", nothing, nothing, {})


@pytest.fixture
def told(rows):
    """A maker of packets: logits of samples with features and labels, by one agent."""

    def make(name, ids, width=6, seed=1):
        generator = torch_stream(seed, name)
        keys = torch.randn(len(ids), width, generator=generator)
        classes = torch.randint(5, (len(ids),), generator=generator)
        return marked(replace(rows(ids, form="logits", seed=seed), keys=keys, classes=classes), name)

    return make


def test_each_agent_is_answered_on_its_own_samples_alone(told, context):
    packets = [told("a", [1, 4, 9]), told("b", [2, 3])]
    found = aggregate(top(), packets, rule(), context)
    assert found.addressed and found.form == "logits" and found.keys is None and found.classes is None
    assert addressed_to(found, "a").ids.tolist() == [1, 4, 9]
    assert addressed_to(found, "b").ids.tolist() == [2, 3]
    assert addressed_to(found, "c") is None
    assert found.weights.tolist() == [1.0] * 5


def test_below_the_top_of_a_tree_rows_are_laid_side_by_side(told, context):
    packets, agent = [told("a", [1, 4]), told("b", [2])], top()
    found = aggregate(agent, packets, rule(), replace(context, final=False))
    assert found.ids.tolist() == [1, 2, 4] and found.keys.shape == (3, 6) and not found.addressed
    assert agent.models == {}
    through = aggregate(top(), [found], rule(), context)
    assert torch.equal(through.values, aggregate(top(), packets, rule(), context).values)


def test_the_network_learns_the_labels_and_goes_on_learning(told, context):
    packet, agent = told("a", list(range(40))), top()
    labels = packet.classes
    said = rule(hidden=[32], epochs=40, kd_weight=0.0)

    def loss(found):
        return torch.nn.functional.cross_entropy(found.values, labels).item()

    first = loss(aggregate(agent, [packet], said, context))
    second = loss(aggregate(agent, [packet], said, replace(context, round=3)))
    assert second < first < 1.5
    assert [*agent.models] == ["beyond_the_cut"]
    agent.models.clear()
    assert abs(loss(aggregate(agent, [packet], said, replace(context, round=3))) - second) > 1e-2


def test_it_learns_what_agents_said_where_labels_count_nothing(told, context):
    packet = told("a", list(range(40)))
    found = aggregate(top(), [packet], rule(hidden=[64], epochs=300, ce_weight=0.0, temperature=1.0), context)
    said, mine = torch.softmax(packet.values, 1), torch.softmax(found.values, 1)
    assert (said - mine).abs().mean() < 0.05 < (said - 0.2).abs().mean()


def test_the_order_of_packets_changes_nothing_but_places(told, context):
    a, b = told("a", [1, 4, 9]), told("b", [2, 3])
    one, other = (aggregate(top(), packets, rule(), context) for packets in ([a, b], [b, a]))
    assert torch.equal(one.values, other.values)


def test_features_of_two_widths_are_refused(told, context):
    with pytest.raises(ValueError, match="those of a are 6 wide, those of b 7; give agents models"):
        aggregate(top(), [told("a", [1]), told("b", [2], width=7)], rule(), context)


@pytest.mark.parametrize(("missing", "word"), [("keys", "features"), ("classes", "labels")])
def test_so_is_what_has_no_features_or_labels(told, context, missing, word):
    with pytest.raises(ValueError, match=f"b told no {word} with its logits"):
        aggregate(top(), [told("a", [1]), replace(told("b", [2]), **{missing: None})], rule(), context)


def test_features_that_are_not_finite_do_not_come_in(told, context):
    broken = told("b", [2, 3])
    broken.keys[0, 0] = float("nan")
    agent = top()
    found = aggregate(agent, [told("a", [1, 4]), broken], rule(), context)
    assert found.ids.tolist() == [1, 3, 4] and bool(found.values.isfinite().all())
    (event,) = agent.memory.told()
    assert (event.what, event.about, event.count) == ("filtered", "finite", 1)


def test_nobody_can_be_left_out_of_what_was_trained():
    with pytest.raises(ValidationError):
        rule(exclude_self=True)


def test_rows_keep_the_order_of_ids(told):
    assert together([told("b", [2, 7]), told("a", [1, 9])]).ids.tolist() == [1, 2, 7, 9]


def test_the_order_in_which_an_agent_keeps_its_samples_changes_nothing(agent, context):
    said = {"knowledge": "logits", "from": "private", "labels": True, "keys": "features"}
    made = []
    for ids in (agent.train_ids, agent.train_ids[torch.randperm(30, generator=torch_stream(1, "order"))]):
        agent.train_ids = ids
        extract(agent, TypeAdapter(Extract).validate_python(said), context)
        packet = marked(agent.memory.recall("working", "to share"), "a")
        made.append(aggregate(top(), [packet], rule(), context))
    assert made[0].ids.tolist() == made[1].ids.tolist() == list(range(30))
    assert torch.equal(made[0].values, made[1].values)
