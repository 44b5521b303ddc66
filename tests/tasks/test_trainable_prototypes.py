"""FedTGP's rule: its loss and margin against float64, and what it does with whom and what it hears."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.aggregate import Aggregate, aggregate
from codistill.tasks.aggregate.contributors import by_name
from codistill.tasks.aggregate.trainable_prototypes import MODULE, TrainablePrototypes, adaptive_margin, contrast
from codistill.tasks.knowledge import Rows, together
from pydantic import TypeAdapter, ValidationError

QUICK = {"by": "trainable_prototypes", "epochs": 3, "batch": 4, "optimizer": {"sgd": {"lr": 0.1}}}


def rule(**said):
    return TypeAdapter(Aggregate).validate_python(QUICK | said)


def said_by(name, ids, seed, width=6, weight=1.0):
    values = torch.tensor(np.random.default_rng(seed).normal(size=(len(ids), width)), dtype=torch.float32)
    weights = torch.full((len(ids),), weight).double()
    return Rows(
        "prototypes", torch.tensor(ids), values, weights, 5.0, None, (name,), torch.zeros(len(ids), dtype=torch.int64)
    )


@pytest.fixture
def packets():
    return [said_by("c", [0, 1, 3], 1, weight=4.0), said_by("a", [1, 3], 2), said_by("b", [0, 3], 3, weight=2.0)]


def test_the_loss_is_cross_entropy_of_distances_with_a_margin():
    rng = np.random.default_rng(0)
    received, trained, labels, margin = rng.normal(size=(7, 6)), rng.normal(size=(5, 6)), rng.integers(5, size=7), 1.7
    terms = []
    for point, label in zip(received, labels, strict=True):
        distance = np.sqrt(((point - trained) ** 2).sum(1))
        distance[label] += margin
        terms.append(np.log(np.exp(-distance).sum()) + distance[label])
    found = contrast(torch.tensor(received), torch.tensor(labels), torch.tensor(trained), margin)
    np.testing.assert_allclose(found.item(), np.mean(terms), rtol=1e-12)
    without = contrast(torch.tensor(received), torch.tensor(labels), torch.tensor(trained), 0.0)
    assert found > without


@pytest.mark.parametrize("kind", ["farthest", "nearest"])
def test_the_margin_follows_the_class_means(packets, kind):
    rows = by_name(packets)
    by_class = {}
    for packet in packets:
        for id, value in zip(packet.ids.tolist(), packet.values.double().numpy(), strict=True):
            by_class.setdefault(id, []).append(value)
    means = {id: np.mean(those, axis=0) for id, those in by_class.items()}
    apart = {a: {b: np.linalg.norm(means[a] - means[b]) for b in means if b != a} for a in means}
    farthest, nearest = (pick(pick_one(row.values()) for row in apart.values()) for pick, pick_one in PICKS)
    expected = {"farthest": farthest, "nearest": nearest}[kind]
    assert farthest != nearest
    np.testing.assert_allclose(adaptive_margin(rows, TrainablePrototypes(margin=kind)), expected, rtol=1e-12)
    assert adaptive_margin(rows, TrainablePrototypes(margin=kind, most_margin=0.5)) == 0.5


PICKS = ((max, max), (max, min))


def test_of_a_single_class_there_is_no_margin():
    assert adaptive_margin(by_name([said_by("a", [2], 1)]), TrainablePrototypes()) == 0


def test_a_class_that_nobody_sent_gets_no_row(agent, context, packets):
    found = aggregate(agent, packets, rule(), context)
    assert found.ids.tolist() == [0, 1, 3] and found.values.shape == (3, 6) and found.form == "prototypes"
    assert found.weights.tolist() == [6.0, 5.0, 7.0] and found.samples == 15.0
    assert found.owners is None and not found.values.requires_grad


def test_training_brings_received_prototypes_nearer_to_their_own(agent, another, context, packets):
    little = aggregate(another("x", agent.train_ids), packets, rule(epochs=1, optimizer={"sgd": {"lr": 1e-6}}), context)
    much = aggregate(another("x", agent.train_ids), packets, rule(epochs=150), context)
    rows = by_name(packets)
    margin = adaptive_margin(rows, TrainablePrototypes())
    labels = torch.searchsorted(little.ids, rows.ids)
    before, after = (float(contrast(rows.values, labels, table.values, margin)) for table in (little, much))
    assert after < before - 0.5


def test_the_next_round_goes_on_from_what_was_trained(agent, another, context, packets):
    first = aggregate(agent, packets, rule(), context)
    kept = {key: value.clone() for key, value in agent.models[MODULE].state_dict().items()}
    later = replace(context, round=3)
    second = aggregate(agent, packets, rule(), later)
    assert not torch.equal(first.values, second.values)
    resumed = another("phone", agent.train_ids)
    aggregate(resumed, packets, rule(), context)
    resumed.models[MODULE].load_state_dict(kept)
    assert torch.equal(aggregate(resumed, packets, rule(), later).values, second.values)
    assert not torch.equal(aggregate(another("phone", agent.train_ids), packets, rule(), later).values, second.values)


def test_it_does_not_matter_by_which_way_packets_came(agent, another, context, packets):
    below = [aggregate(agent, part, rule(), replace(context, final=False)) for part in (packets[:2], packets[2:])]
    assert below[0].contributors == ("c", "a") and MODULE not in agent.models
    assert torch.equal(below[0].values, together(packets[:2]).values)
    flat, tree, turned = (
        aggregate(another("top", agent.train_ids), given, rule(), context) for given in (packets, below, packets[::-1])
    )
    assert torch.equal(flat.values, tree.values) and torch.equal(flat.values, turned.values)


def test_nothing_can_be_taken_out():
    with pytest.raises(ValidationError, match="exclude_self"):
        rule(exclude_self=True)
