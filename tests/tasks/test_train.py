from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.optimizers import Optimizer, Steps
from codistill.tasks.train import Train, batches, train


def said(**more):
    return Train.model_validate({"batch": 8, "optimizer": {"sgd": {"lr": 0.1}}} | more)


def weights(agent, name="model"):
    return {key: value.clone() for key, value in agent.models[name].state_dict().items()}


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (4, 4, [4]), (5, 4, [4])]
)
def test_batches(count, size, sizes):
    ids = torch.arange(count) * 10
    generator = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    whole, cut = batches(ids, size, False, generator()), batches(ids, size, True, generator())
    assert sorted(torch.cat(whole).tolist()) == ids.tolist()
    assert torch.cat(whole).tolist() == ids[torch.randperm(count, generator=generator())].tolist()
    assert [len(part) for part in cut] == sizes
    assert all(torch.equal(a, b) for a, b in zip(whole, cut, strict=False))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_is_plain_gradient_descent(agent, another, world, context, momentum):
    train(
        agent,
        said(epochs=2, drop_last=True, optimizer={"sgd": {"lr": 0.1, "momentum": momentum, "weight_decay": 0.01}}),
        context,
    )
    state = {
        key: value.clone() for key, value in another("phone", agent.train_ids).models["model"].state_dict().items()
    }
    velocity = {key: torch.zeros_like(value) for key, value in state.items()}
    for epoch in range(2):
        order = agent.train_ids[torch.randperm(30, generator=agent.stream(context, "shuffle", "private", epoch))]
        for chosen in order[:24].split(8):
            leaves = {key: value.clone().requires_grad_() for key, value in state.items()}
            hidden = torch.relu(world.x_train[chosen].flatten(1) @ leaves["body.1.weight"].T + leaves["body.1.bias"])
            log = torch.log_softmax(hidden @ leaves["head.weight"].T + leaves["head.bias"], 1)
            (-log[torch.arange(8), world.y_train[chosen]].mean()).backward()
            for key, leaf in leaves.items():
                velocity[key] = momentum * velocity[key] + leaf.grad + 0.01 * state[key]
                state[key] = state[key] - 0.1 * velocity[key]
    for key, value in agent.models["model"].state_dict().items():
        torch.testing.assert_close(value, state[key], atol=1e-6, rtol=0)


def test_only_the_agents_own_samples_and_streams_matter(agent, another, world, context):
    train(agent, said(), context)
    other = another("phone", torch.arange(30))
    elsewhere = replace(world, x_train=world.x_train.clone(), y_train=world.y_train.clone())
    elsewhere.x_train[30:] = 7
    torch.rand(3)
    train(other, said(), replace(context, world=elsewhere))
    assert all(torch.equal(a, b) for a, b in zip(weights(agent).values(), weights(other).values(), strict=True))
    train(other, said(), replace(context, world=elsewhere))
    assert not torch.equal(weights(agent)["head.weight"], weights(other)["head.weight"])


def test_public_samples_may_be_trained_on(agent, another, world, context):
    train(agent, said(on="public", batch=30), context)
    other = another("phone", agent.train_ids).models["model"]
    F.cross_entropy(other(world.x_train[60:]), world.y_train[60:]).backward()
    torch.testing.assert_close(
        weights(agent)["head.bias"], (other.head.bias - 0.1 * other.head.bias.grad).detach(), atol=1e-6, rtol=0
    )


def test_the_optimizer_is_made_anew(agent, another, context):
    momentum = {"sgd": {"lr": 0.1, "momentum": 0.9}}
    for number in (1, 2):
        train(agent, said(optimizer=momentum), replace(context, round=number))
    other = another("phone", agent.train_ids)
    train(other, said(optimizer=momentum), replace(context, round=1))
    fresh = another("phone", agent.train_ids)
    fresh.models["model"].load_state_dict(other.models["model"].state_dict())
    train(fresh, said(optimizer=momentum), replace(context, round=2))
    assert torch.equal(weights(fresh)["head.weight"], weights(agent)["head.weight"])


def test_cross_entropy_has_a_weight(agent, another, context):
    train(agent, said(ce_weight=0.5, optimizer={"sgd": {"lr": 0.2}}), context)
    other = another("phone", agent.train_ids)
    train(other, said(ce_weight=1.0), context)
    torch.testing.assert_close(weights(agent)["head.weight"], weights(other)["head.weight"], atol=1e-6, rtol=0)


def test_a_companion_learns_only_by_a_term(agent, context):
    before = weights(agent, "companion")
    train(agent, said(), context)
    assert all(torch.equal(before[key], value) for key, value in weights(agent, "companion").items())
    train(agent, said(losses=["mutual"]), context)
    assert not any(torch.equal(before[key], value) for key, value in weights(agent, "companion").items())


def test_nobody_without_samples_learns(another, context):
    idle = another("idle", torch.empty(0, dtype=torch.int64))
    before = weights(idle)
    train(idle, said(losses=["proximal"]), context)
    assert all(torch.equal(before[key], value) for key, value in weights(idle).items())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_adam(decay):
    leaf = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    steps = Steps(Optimizer.model_validate({"adam": {"lr": 0.1, "weight_decay": decay}}), [leaf])
    value, first, second = leaf.detach().double().clone(), 0, 0
    scale = torch.tensor([1.0, 3.0], dtype=torch.float64)
    for step in range(1, 5):
        gradient = 2 * value * scale
        steps.down((leaf.square() * scale.float()).sum())
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value = value - 0.1 * decay * value
        value = value - 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(leaf.detach().double(), value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("said", "torchs"),
    [
        (
            {"sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}},
            lambda w: torch.optim.SGD(w, 0.1, 0.9, weight_decay=0.01),
        ),
        ({"adam": {"lr": 0.1, "weight_decay": 0.01}}, lambda w: torch.optim.AdamW(w, 0.1, weight_decay=0.01)),
    ],
)
def test_optimizers_are_torchs_own_also_for_weights_that_a_loss_leaves_out(said, torchs):
    ours, theirs = ([torch.nn.Parameter(torch.ones(3) * n) for n in (1, 2)] for _ in range(2))
    mine, reference = Steps(Optimizer.model_validate(said), ours), torchs(theirs)
    for used in ([0], [0, 1], [1], [0, 1]):
        loss = lambda weights: sum((weights[i] ** 3).sum() for i in used)  # noqa: B023, E731
        mine.down(loss(ours))
        reference.zero_grad()
        loss(theirs).backward()
        reference.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
