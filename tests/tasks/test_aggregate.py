"""Rules against float64, and means of means over a tree against the flat mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.aggregate import Aggregate, aggregate, contribution, mean_of_models, mean_of_rows, without
from codistill.tasks.knowledge import Models, Rows
from codistill.tasks.streams import torch_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter


def rule(**said):
    return TypeAdapter(Aggregate).validate_python({"by": "mean"} | said)


def drawn_rows(seed, agents=6, classes=5, width=3):
    """Rows of several agents; class ``classes - 1`` only the last agent has."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(agents):
        ids = np.sort(rng.choice(classes - 1, rng.integers(1, classes), replace=False))
        if index == agents - 1:
            ids = np.append(ids, classes - 1)
        values = torch.tensor(rng.normal(size=(len(ids), width)), dtype=torch.float32)
        weights = torch.tensor(rng.integers(1, 50, len(ids)), dtype=torch.float64)
        made.append(Rows("class_logits", torch.tensor(ids), values, weights, float(weights.sum())))
    return made


def table(packets, weigh=lambda weight: weight):
    """The mean by id, in float64, from the definition."""
    sums, weights = {}, {}
    for packet in packets:
        for id, value, weight in zip(packet.ids.tolist(), packet.values.numpy(), packet.weights.tolist(), strict=True):
            sums[id] = sums.get(id, 0) + value.astype(np.float64) * weigh(weight)
            weights[id] = weights.get(id, 0) + weigh(weight)
    return {id: sums[id] / weights[id] for id in sums}, weights


def same(found, expected, atol=1e-6):
    values, weights = expected
    assert found.ids.tolist() == sorted(values)
    np.testing.assert_allclose(found.values.numpy(), np.stack([values[id] for id in sorted(values)]), atol=atol)
    assert found.weights.tolist() == [weights[id] for id in sorted(values)]


@pytest.mark.parametrize("seed", range(4))
def test_mean_of_rows(agent, context, seed):
    packets = drawn_rows(seed)
    found = aggregate(agent, packets, rule(), context)
    same(found, table(packets))
    assert found.samples == sum(packet.samples for packet in packets) and found.values.dtype == torch.float32


def test_each_agent_may_count_once(agent, context):
    packets = drawn_rows(1)
    found = aggregate(agent, [contribution(p, "agents") for p in packets], rule(weight="agents"), context)
    same(found, table(packets, weigh=lambda weight: 1.0))
    assert found.samples == len(packets)
    assert contribution(packets[0], "samples") is packets[0]


def test_mean_of_models_by_architecture(agent, context, models):
    a = [models(n, seed) for seed, n in enumerate((10, 25, 3))]
    b = models(40, 9, architecture="b")
    found = aggregate(agent, [*a, b], rule(), context)
    assert found.samples_by == {"a": 38.0, "b": 40.0}
    for key in ("w", "b"):
        stack = np.stack([m.tensors["a"][key].double().numpy() for m in a])
        expected = np.average(stack, axis=0, weights=[10, 25, 3])
        np.testing.assert_allclose(found.tensors["a"][key].numpy(), expected, atol=1e-6)
        assert torch.equal(found.tensors["b"][key], b.tensors["b"][key])
    once = aggregate(agent, [contribution(m, "agents") for m in a], rule(weight="agents"), context)
    np.testing.assert_allclose(once.tensors["a"]["w"], torch.stack([m.tensors["a"]["w"] for m in a]).mean(0), atol=1e-6)


def test_a_mean_shares_no_memory_with_what_it_is_of(models):
    one = models(5)
    before = one.tensors["a"]["w"].clone()
    mean_of_models([one]).tensors["a"]["w"].add_(1)
    assert torch.equal(one.tensors["a"]["w"], before)
    rows = drawn_rows(0)[0]
    before = rows.values.clone()
    mean_of_rows([rows]).values.add_(1)
    assert torch.equal(rows.values, before)


@pytest.mark.parametrize("weight", ["samples", "agents"])
def test_means_up_a_tree_are_the_flat_mean(agent, context, models, weight):
    rows = [contribution(p, weight) for p in drawn_rows(3)]
    parameters = [contribution(models(n + 1, n, "ab"[n % 2]), weight) for n in range(6)]
    for packets in (rows, parameters):
        flat = aggregate(agent, packets, rule(weight=weight), context)
        edges = [
            aggregate(agent, part, rule(weight=weight), context) for part in (packets[:1], packets[1:4], packets[4:])
        ]
        top = aggregate(agent, edges, rule(weight=weight), context)
        assert top.samples == flat.samples
        if isinstance(flat, Rows):
            torch.testing.assert_close(top.values, flat.values, atol=1e-6, rtol=0)
            assert torch.equal(top.weights, flat.weights) and torch.equal(top.ids, flat.ids)
        else:
            assert top.samples_by == flat.samples_by
            for identity in "ab":
                torch.testing.assert_close(top.tensors[identity]["w"], flat.tensors[identity]["w"], atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 5))
def test_taking_a_contribution_out_of_rows_undoes_the_mean(seed, index):
    packets = drawn_rows(seed)
    rest = packets[:index] + packets[index + 1 :]
    found = without(mean_of_rows(packets), packets[index])
    same(found, table(rest), atol=1e-4)
    assert found.samples == sum(packet.samples for packet in rest)


def test_a_class_that_only_one_agent_has_is_left_out_of_what_it_gets_back():
    packets = drawn_rows(2)
    total = mean_of_rows(packets)
    assert 4 in total.ids and 4 not in without(total, packets[-1]).ids and 4 in without(total, packets[0]).ids
    nothing = Rows("class_logits", torch.empty(0, dtype=torch.int64), torch.empty(0, 3), torch.empty(0).double(), 0.0)
    assert torch.equal(without(total, nothing).ids, total.ids)
    assert without(mean_of_rows(packets[:1]), packets[0]).items == 0


def test_taking_a_contribution_out_of_models_undoes_the_mean(models):
    packets = [models(n, n) for n in (4, 7, 20)] + [models(9, 1, "b")]
    total = mean_of_models(packets)
    kept = {key: value.clone() for key, value in total.tensors["a"].items()}
    for index, packet in enumerate(packets[:3]):
        rest = mean_of_models([p for at, p in enumerate(packets) if at != index])
        found = without(total, packet)
        assert found.samples_by == rest.samples_by
        for key in ("w", "b"):
            torch.testing.assert_close(found.tensors["a"][key], rest.tensors["a"][key], atol=1e-5, rtol=0)
    assert set(without(total, packets[3]).tensors) == {"a"}
    assert all(torch.equal(kept[key], total.tensors["a"][key]) for key in kept)


def test_sharpening_waits_for_the_top(agent, context):
    rng = np.random.default_rng(0)
    packets = [
        Rows(
            "logits",
            torch.arange(6),
            torch.tensor(rng.dirichlet(np.ones(4), 6), dtype=torch.float32),
            torch.ones(6).double(),
        )
        for _ in range(5)
    ]
    said = rule(by="sharpened_mean", temperature=0.2, weight="agents")
    plain = np.mean([p.values.double().numpy() for p in packets], axis=0)
    below = aggregate(agent, packets[:3], said, replace(context, final=False))
    np.testing.assert_allclose(
        below.values.numpy(), np.mean([p.values.numpy() for p in packets[:3]], axis=0), atol=1e-6
    )
    top = aggregate(agent, [below, mean_of_rows(packets[3:])], said, context)
    expected = np.exp(plain / 0.2) / np.exp(plain / 0.2).sum(1, keepdims=True)
    np.testing.assert_allclose(top.values.numpy(), expected, atol=1e-6)


def test_distilled_is_feddf(agent, world, context, architectures):
    """Lin et al. 2020, algorithm 3, written down once more: AVGLOGITS teacher, one student an architecture."""
    from codistill.tasks.networks import build

    kinds = [world.architectures[name] for name in ("mlp(hidden=12)", "linear")]
    given, sizes = [], [10.0, 30.0, 5.0, 20.0]
    for index, size in enumerate(sizes):
        one = kinds[index % 2]
        state = {k: v.detach() for k, v in build(one, torch_stream(5, index)).state_dict().items()}
        given.append(Models({one.name: state}, {one.name: size}))
    temperature, count = 2.0, 25
    said = rule(by="distilled", steps=count, batch=8, temperature=temperature, optimizer={"adam": {"lr": 0.01}})
    found = aggregate(agent, given, said, context)

    def forward(state, x):  # by hand: no module, no class of the package
        if "body.1.weight" in state:
            x = torch.relu(x.flatten(1) @ state["body.1.weight"].T + state["body.1.bias"])
        return x.flatten(1) @ state["head.weight"].T + state["head.bias"]

    x = world.x_train[world.public]
    teacher = sum(forward(m.tensors[next(iter(m.tensors))], x) for m in given) / 4
    for index, (one, members) in enumerate(zip(kinds, ((0, 2), (1, 3)), strict=True)):
        total = sum(sizes[m] for m in members)
        student = {
            key: sum(sizes[m] / total * given[m].tensors[one.name][key] for m in members).requires_grad_()
            for key in given[members[0]].tensors[one.name]
        }
        steps = torch.optim.Adam(student.values(), lr=0.01)
        generator = agent.stream(context, "fusion", index)
        for _ in range(count):
            chosen = torch.randint(30, (8,), generator=generator)
            p = torch.softmax(teacher[chosen] / temperature, 1)
            log_q = torch.log_softmax(forward(student, x[chosen]) / temperature, 1)
            loss = temperature**2 * (p * (p.log() - log_q)).sum() / 8
            steps.zero_grad()
            loss.backward()
            steps.step()
        assert found.samples_by[one.name] == total
        for key, value in student.items():
            torch.testing.assert_close(found.tensors[one.name][key], value.detach(), atol=1e-6, rtol=1e-5)
            start = sum(sizes[m] / total * given[m].tensors[one.name][key] for m in members)
            assert (value.detach() - start).abs().max() > 0.01  # it did move


def test_distilling_leaves_what_was_received_alone(agent, world, context):
    from codistill.tasks.networks import build

    one = world.architectures["linear"]
    state = {k: v.detach() for k, v in build(one, torch_stream(5, 1)).state_dict().items()}
    before = {k: v.clone() for k, v in state.items()}
    aggregate(agent, [Models({"linear": state}, {"linear": 3.0})] * 2, rule(by="distilled", steps=3), context)
    assert all(torch.equal(state[key], before[key]) for key in before)
