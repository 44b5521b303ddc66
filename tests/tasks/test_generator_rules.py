"""FedGen's and DENSE's rules against float64 formulas and loops written down once more."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from codistill.tasks.agent import Agent, World
from codistill.tasks.aggregate import Aggregate, aggregate, mean_of_models
from codistill.tasks.aggregate.generators import (
    diversity,
    ensemble_cross_entropy,
    feature_widths,
    heads_of,
    synthesis_loss,
)
from codistill.tasks.data.digits import DigitsParameters, read_digits
from codistill.tasks.knowledge import GENERATOR, Models
from codistill.tasks.networks import build
from codistill.tasks.streams import torch_stream
from pydantic import TypeAdapter, ValidationError

CLASSES = 5
MLP, CNN = "mlp(hidden=12)", "cnn(channels=4,kernel=3,hidden=12)"


def rule(by="feature_generator", **said):
    return TypeAdapter(Aggregate).validate_python({"by": by} | said)


def sent(world, name, counts, seed):
    """What an agent sends: parameters of architecture ``name``, and its class counts."""
    state = build(world.architectures[name], torch_stream(seed, name)).state_dict()
    told = torch.tensor(counts, dtype=torch.float64)
    return Models({name: {k: v.detach() for k, v in state.items()}}, {name: float(told.sum())}, {name: told})


@pytest.fixture
def packets(world):
    """Two architectures of the same feature width; nobody has samples of class 4."""
    counts = ([20, 0, 1, 5, 0], [0, 10, 3, 0, 0], [4, 4, 0, 7, 0])
    return [sent(world, name, c, i) for i, (name, c) in enumerate(zip((MLP, CNN, MLP), counts, strict=True))]


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_each_head_counts_by_its_share_of_the_class(packets):
    heads = heads_of(packets)
    features = torch.randn(9, 12, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])
    found = ensemble_cross_entropy(features, labels, heads)
    found.backward()
    z, expected = features.detach().double().numpy(), 0.0
    counts = np.stack([next(iter(p.labels.values())).numpy() for p in packets])
    slope = np.zeros_like(z)
    for packet, mine in zip(packets, counts, strict=True):
        (tensors,) = packet.tensors.values()
        weight, bias = (tensors[f"head.{part}"].double().numpy() for part in ("weight", "bias"))
        log_p = log_softmax(z @ weight.T + bias)
        for row, label in enumerate(labels.tolist()):
            share = mine[label] / counts[:, label].sum()
            expected -= share * log_p[row, label] / 9
            slope[row] += share * (np.exp(log_p[row]) - np.eye(CLASSES)[label]) @ weight / 9
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
    np.testing.assert_allclose(features.grad.numpy(), slope, atol=1e-6)
    assert heads.counts.tolist() == [24, 14, 4, 12, 0]


def test_diversity_is_of_all_pairs():
    features, noise = torch.randn(6, 12, requires_grad=True), torch.rand(6, 3)
    z, e, total = features.detach().double().numpy(), noise.double().numpy(), 0.0
    for i in range(6):
        for j in range(6):
            total += np.abs(z[i] - z[j]).mean() * ((e[i] - e[j]) ** 2).mean() / 36
    found = diversity(features, noise)
    np.testing.assert_allclose(found.item(), np.exp(-total), rtol=1e-5)
    found.backward()
    assert diversity(features - features.grad, noise) < found  # downwards is apart


def test_the_generator_learns_what_the_heads_call_the_class(agent, context, packets, world):
    said = rule(steps=150, noise=4, hidden=16, optimizer={"adam": {"lr": 0.01}})
    found = aggregate(agent, packets, said, context)
    plain = mean_of_models(packets)
    assert list(found.tensors) == [MLP, CNN, GENERATOR] and found.samples_by[GENERATOR] == 54
    for name in (MLP, CNN):
        assert all(torch.equal(found.tensors[name][key], value) for key, value in plain.tensors[name].items())
    assert found.labels[GENERATOR].tolist() == [24, 14, 4, 12, 0]
    generator = agent.models["feature_generator"].eval()
    assert all(torch.equal(found.tensors[GENERATOR][k], v) for k, v in generator.state_dict().items())
    heads, labels = heads_of(packets), torch.arange(4).repeat(10)
    features = generator(labels, torch.rand(40, 4, generator=torch_stream(1, "noise")))
    assert ensemble_cross_entropy(features, labels, heads) < 0.2


def test_the_generator_goes_on_from_round_to_round_and_is_the_same_each_time(agent, another, context, packets):
    said = rule(steps=3, noise=4, hidden=16)
    first = aggregate(agent, packets, said, context)
    second = aggregate(agent, packets, said, replace(context, round=3))
    twin = another("phone", torch.arange(30))
    again = aggregate(twin, packets, said, context)
    for key, value in first.tensors[GENERATOR].items():
        assert torch.equal(again.tensors[GENERATOR][key], value)
        assert not torch.equal(second.tensors[GENERATOR][key], value) or key.endswith("bias")
    twin.models["feature_generator"].load_state_dict(first.tensors[GENERATOR])  # as a resumed run does
    resumed = aggregate(twin, packets, said, replace(context, round=3))
    assert all(torch.equal(resumed.tensors[GENERATOR][k], v) for k, v in second.tensors[GENERATOR].items())


def test_what_was_sent_stays_as_it_was(agent, context, packets):
    before = copy.deepcopy(packets)
    aggregate(agent, packets, rule(steps=2, noise=4, hidden=8), context)
    aggregate(agent, packets, rule("data_free_distilled", epochs=1, generator_steps=2, batch=8, width=2), context)
    for packet, old in zip(packets, before, strict=True):
        for name, tensors in packet.tensors.items():
            assert all(torch.equal(value, old.tensors[name][key]) for key, value in tensors.items())


@pytest.mark.parametrize("by", ["feature_generator", "data_free_distilled"])
def test_below_the_top_of_a_tree_it_is_the_mean(agent, context, packets, by):
    found = aggregate(agent, packets, rule(by), replace(context, final=False))
    plain = mean_of_models(packets)
    assert GENERATOR not in found.tensors and set(agent.models) == {"model", "companion"}
    assert all(torch.equal(found.tensors[MLP][key], value) for key, value in plain.tensors[MLP].items())


def test_classes_that_nobody_has_are_not_drawn(agent, context, packets, monkeypatch):
    seen = []

    def watched(features, labels, heads):
        seen.append(labels)
        return ensemble_cross_entropy(features, labels, heads)

    monkeypatch.setattr("codistill.tasks.aggregate.generators.ensemble_cross_entropy", watched)
    aggregate(agent, packets, rule(steps=40, batch=50, noise=4, hidden=8), context)
    evenly = torch.bincount(torch.cat(seen), minlength=5) / 2000
    seen.clear()
    aggregate(agent, packets, rule(steps=40, batch=50, noise=4, hidden=8, classes="by_count"), context)
    by_count = torch.bincount(torch.cat(seen), minlength=5) / 2000
    np.testing.assert_allclose(evenly, [0.25, 0.25, 0.25, 0.25, 0], atol=0.04)
    np.testing.assert_allclose(by_count, [24 / 54, 14 / 54, 4 / 54, 12 / 54, 0], atol=0.04)
    assert evenly[4] == by_count[4] == 0


def test_what_it_cannot_do_is_said(agent, context, packets, world):
    silent = replace(packets[0], labels={})
    with pytest.raises(ValueError, match="labels: true"):
        aggregate(agent, [silent], rule(steps=1), context)
    wide = Models({"x": {"head.weight": torch.zeros(5, 9), "head.bias": torch.zeros(5)}}, {"x": 1.0}, packets[0].labels)
    wide = replace(wide, labels={"x": torch.ones(5)})
    with pytest.raises(ValueError, match="features of 9 and 12 numbers"):
        heads_of([packets[0], wide])
    with pytest.raises(ValidationError):
        rule(exclude_self=True)
    known = world.architectures
    assert feature_widths([known[MLP], known[CNN]]) == (12,)
    assert feature_widths(known.values()) == (12, 64)


def test_synthesis_rewards_only_students_that_decide_otherwise():
    generator = torch_stream(2, "logits")
    teacher, student, other = (torch.randn(7, 4, generator=generator).requires_grad_() for _ in range(3))
    labels = torch.randint(4, (7,), generator=generator)
    said = rule("data_free_distilled", ce_weight=0.7, adversarial_weight=0.3)
    found = synthesis_loss(teacher, [student, other], labels, said)
    t = log_softmax(teacher.detach().double().numpy())
    expected = -0.7 * t[np.arange(7), labels].mean()
    for one in (student, other):
        s = log_softmax(one.detach().double().numpy())
        apart = (np.exp(t) * (t - s)).sum(1) * (t.argmax(1) != s.argmax(1))
        assert 0 < (apart > 0).sum() < 7
        expected -= 0.3 * apart.mean() / 2
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
    found.backward()
    agreed = teacher.argmax(1) == student.argmax(1)
    assert (student.grad[agreed] == 0).all() and (student.grad[~agreed] != 0).any()


def taught(world, architecture, ids, seed, steps=150):
    model = build(architecture, torch_stream(seed, "taught"))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(world.x_train[ids]), world.y_train[ids]).backward()
        optimizer.step()
    return {key: value.detach() for key, value in model.state_dict().items()}


@pytest.fixture
def digits(architectures):
    """A world of scikit-learn's digits."""
    d = read_digits(DigitsParameters(), Path())
    known = {
        one.name: one
        for one in (
            architectures("mlp", classes=10, hidden=[24]),
            architectures("mlp", classes=10, hidden=[32]),
        )
    }
    x, y, x_test, y_test = (torch.tensor(part) for part in (d.x_train, d.y_train, d.x_test, d.y_test))
    return World(x, y, x_test, y_test, 10, torch.empty(0, dtype=torch.int64), False, known)


MISSING = ((0, 1, 2, 3), (4, 5, 6, 7), (6, 7, 8, 9, 0), (1, 2, 3, 4))


def right(world, identity, tensors):
    model = build(world.architectures[identity], torch_stream(0))
    model.load_state_dict(tensors)
    return (model(world.x_test).argmax(1) == world.y_test).float().mean().item()


def test_distilling_without_data_improves_on_the_mean(context, digits):
    """Four agents that lack four or five classes each; what all of them know comes together in each architecture."""
    given = []
    for index, classes in enumerate(MISSING):
        ids = (~torch.isin(digits.y_train, torch.tensor(classes))).nonzero().flatten()
        one = list(digits.architectures.values())[index % 2]
        given.append(Models({one.name: taught(digits, one, ids, index % 2)}, {one.name: float(len(ids))}))
    said = rule("data_free_distilled", epochs=8, generator_steps=15, batch=64, width=4, noise=16)
    server = Agent("server", "server", "aggregator", torch.empty(0, dtype=torch.int64), torch.arange(0), {})
    found = aggregate(server, given, said, replace(context, world=digits))
    start = mean_of_models(given)
    for identity in digits.architectures:
        before, after = (right(digits, identity, models.tensors[identity]) for models in (start, found))
        assert after > before + 0.1
        assert found.samples_by[identity] == start.samples_by[identity]
    assert GENERATOR not in found.tensors  # it stays where it is: nobody below has use for it
    assert server.models["sample_generator"].state_dict()["layers.0.weight"].shape[1] == 16 + 10


def test_an_aggregator_with_a_model_of_its_own_has_it_distilled_too(another, context, packets):
    server = another("server", torch.arange(0), models=("linear",))
    said = rule("data_free_distilled", epochs=1, generator_steps=2, batch=8, width=2)
    before = {key: value.clone() for key, value in server.models["model"].state_dict().items()}
    found = aggregate(server, packets, said, context)
    assert list(found.tensors) == [MLP, CNN, "linear"]
    assert not torch.equal(found.tensors["linear"]["head.weight"], before["head.weight"])
    assert torch.equal(server.models["model"].state_dict()["head.weight"], before["head.weight"])


def test_distilling_without_data_is_the_same_each_time(another, context, packets):
    said = rule("data_free_distilled", epochs=2, generator_steps=2, batch=8, width=2)
    one, two = (aggregate(another("s", torch.arange(3)), packets, said, context) for _ in range(2))
    for name, tensors in one.tensors.items():
        assert all(torch.equal(two.tensors[name][key], value) for key, value in tensors.items())
