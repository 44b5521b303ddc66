"""KT-pFL's rule: the step against the gradient by hand in float64, addressed answers, contributors that come and go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.aggregate import Aggregate, aggregate
from codistill.tasks.aggregate.coefficients import Coefficients, learn
from codistill.tasks.knowledge import Rows
from pydantic import TypeAdapter

RATE, RHO, SHARP = 0.7, 0.3, 4.0
SAID = {"optimizer": {"sgd": {"lr": RATE}}, "uniform_weight": RHO, "sharpness": SHARP}


def rule(**said):
    return TypeAdapter(Aggregate).validate_python({"by": "coefficients"} | SAID | said)


def said_by(name, seed, ids=(3, 5, 8, 9)):
    values = torch.tensor(np.random.default_rng(seed).dirichlet(np.ones(5), len(ids)), dtype=torch.float32)
    owners = torch.zeros(len(ids), dtype=torch.int64)
    return Rows("logits", torch.tensor(ids), values, torch.full((len(ids),), 7.0).double(), 7.0, None, (name,), owners)


def valence(agent):
    held = agent.memory.recall("emotional", "valence")
    return dict(zip(held.contributors, held.values, strict=True)), held


def softmax(rows):
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def stepped(start, values, rate=RATE):
    """One step of gradient descent, the gradient written out: 2 / (N C) (mixture - own) . other + 2 rho (c - 1 / K)."""
    count = len(values)
    moved = start.copy()
    for k in range(count):
        mixture = sum(start[k, j] * values[j] for j in range(count))
        for j in range(count):
            slope = 2 * ((mixture - values[k]) * values[j]).mean() + 2 * RHO * (start[k, j] - 1 / count)
            moved[k, j] = start[k, j] - rate * slope
    return moved


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_goes_down_the_gradient(steps):
    rng = np.random.default_rng(steps)
    values, start = rng.dirichlet(np.ones(5), (4, 6)), rng.dirichlet(np.ones(4), 4)
    found = learn(
        torch.tensor(start, dtype=torch.float32),
        torch.tensor(values, dtype=torch.float32),
        torch.ones(4, 6, dtype=torch.bool),
        Coefficients(steps=steps, **SAID),
    )
    moved = start
    for _ in range(steps):
        moved = stepped(moved, values)
    np.testing.assert_allclose(found, softmax(moved * SHARP), atol=1e-6)
    assert np.abs(moved - start).max() > 0.01


def test_each_contributor_gets_its_own_mixture(agent, context):
    packets = [said_by(name, seed) for seed, name in enumerate("cab")]
    found = aggregate(agent, packets, rule(), context)
    assert found.addressed and found.contributors == ("a", "b", "c") and found.items == 12
    matrix, held = valence(agent)
    assert list(matrix) == ["a", "b", "c"] and held.form == "valence"
    values = {packet.contributors[0]: packet.values.double().numpy() for packet in packets}
    start = np.full((3, 3), 1 / 3)
    expected = softmax(stepped(start, np.stack([values[name] for name in "abc"])) * SHARP)
    np.testing.assert_allclose(held.values, expected, atol=1e-6)
    for k, name in enumerate("abc"):
        mine = found.of(name)
        assert mine.ids.tolist() == [3, 5, 8, 9] and mine.owners is None and mine.form == "logits"
        mixture = sum(expected[k, j] * values[other] for j, other in enumerate("abc"))
        np.testing.assert_allclose(mine.values, mixture, atol=1e-6)
        np.testing.assert_allclose(mine.values.sum(1), 1, atol=1e-6)
        assert mine.weights.tolist() == [21.0] * 4
    assert not torch.equal(found.of("a").values, found.of("b").values)


def test_who_speaks_alike_hears_more_of_each_other(agent, context):
    alike, other = said_by("a", 1), said_by("z", 2)
    packets = [alike, replace(alike, contributors=("b",)), other]
    for number in range(1, 6):
        aggregate(
            agent, packets, rule(uniform_weight=0.0, optimizer={"sgd": {"lr": 2.0}}), replace(context, round=number)
        )
    matrix, held = valence(agent)
    assert matrix["a"][1] > matrix["a"][2] + 0.1 and matrix["a"][0] == pytest.approx(float(matrix["a"][1]), abs=1e-5)
    np.testing.assert_allclose(held.values.sum(1), 1, atol=1e-6)


def test_contributors_come_and_go(agent, context):
    packets = {name: said_by(name, seed) for seed, name in enumerate("abcd")}
    aggregate(agent, [packets[n] for n in "abc"], rule(), context)
    first, _ = valence(agent)
    away = aggregate(agent, [packets[n] for n in "ac"], rule(), replace(context, round=3))
    second, held = valence(agent)
    assert away.contributors == ("a", "c") and list(second) == ["a", "b", "c"]
    assert torch.equal(second["b"], first["b"])  # nothing was learned of who was not there
    assert second["a"][1] == first["a"][1]  # nor of how much it is worth to others
    assert not torch.equal(second["a"], first["a"])
    np.testing.assert_allclose(held.values.sum(1), 1, atol=1e-6)

    aggregate(agent, [packets[n] for n in "dba"], rule(), replace(context, round=4))
    third, held = valence(agent)
    assert list(third) == ["a", "b", "c", "d"]
    np.testing.assert_allclose(held.values.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(third["c"], [*(second["c"] * 3 / 4).tolist(), 1 / 4], atol=1e-7)
    # The new one begins as one of three equals among those heard; a quarter of its row waits for who is away.
    start = np.stack([second[n].double().numpy()[[0, 1]] * 3 / 4 for n in "ab"] + [np.full(2, 1 / 4)])
    start = np.hstack([start, np.full((3, 1), 1 / 4)])
    mass = start.sum(1, keepdims=True)
    values = np.stack([packets[n].values.double().numpy() for n in "abd"])
    expected = softmax(stepped(start / mass, values) * SHARP) * mass
    np.testing.assert_allclose(held.values[[0, 1, 3]][:, [0, 1, 3]], expected, atol=1e-6)


def test_where_some_say_nothing_the_others_speak_for_them(agent, context):
    packets = [said_by("a", 1), said_by("b", 2, ids=(3, 8)), said_by("c", 3, ids=(8, 11))]
    found = aggregate(agent, packets, rule(), context)
    matrix, _ = valence(agent)
    a, b, c = (packet.values for packet in packets)
    for name in "abc":
        mine, w = found.of(name), matrix[name]
        assert mine.ids.tolist() == [3, 5, 8, 9, 11]
        expected = [
            (w[0] * a[0] + w[1] * b[0]) / (w[0] + w[1]),
            a[1],
            w[0] * a[2] + w[1] * b[1] + w[2] * c[0],
            a[3],
            c[1],
        ]
        torch.testing.assert_close(mine.values, torch.stack(expected), atol=1e-6, rtol=0)


def test_it_does_not_matter_by_which_way_packets_came(agent, another, context):
    packets = [said_by(name, seed) for seed, name in enumerate("dbca")]
    below = [aggregate(agent, part, rule(), replace(context, final=False)) for part in (packets[:3], packets[3:])]
    assert agent.memory.recall("emotional", "valence") is None and not below[0].addressed
    tops = [another("top", agent.train_ids) for _ in range(3)]
    flat, tree, turned = (
        aggregate(top, given, rule(), context) for top, given in zip(tops, (packets, below, packets[::-1]), strict=True)
    )
    for found in (tree, turned):
        assert torch.equal(found.values, flat.values) and torch.equal(found.owners, flat.owners)
    assert torch.equal(valence(tops[0])[1].values, valence(tops[1])[1].values)


def test_a_forgotten_row_begins_anew(agent, context):
    packets = [said_by(name, seed) for seed, name in enumerate("abc")]
    aggregate(agent, packets, rule(), context)
    before, held = valence(agent)
    agent.memory.hold("emotional", "valence", held.part(held.owners != 1), 2)  # as unlearning b leaves it
    aggregate(agent, [packets[0], packets[2]], rule(), replace(context, round=3))
    after, held = valence(agent)
    np.testing.assert_allclose(after["b"], 1 / 3, atol=1e-7)
    assert after["a"][1] == before["a"][1]
    np.testing.assert_allclose(held.values.sum(1), 1, atol=1e-6)
