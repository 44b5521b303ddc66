"""Each term against an independent float64 formula: its value and its gradient."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.knowledge import Rows
from codistill.tasks.terms import TERMS, Batch


def term(name, agent, context, **said):
    entry = TERMS[name]
    return entry.function(agent, entry.parameters(**said), context)


def batch_of(agent, world, ids):
    x, y = world.x_train[ids], world.y_train[ids]
    features = agent.models["model"].body(x)
    logits = agent.models["model"].head(features)
    for value in (features, logits):
        value.retain_grad()
    return Batch(ids, x, y, features, logits, F.cross_entropy(logits, y))


def know(agent, form, ids, width, seed=2):
    values = torch.randn(len(ids), width, generator=torch.Generator().manual_seed(seed)) * 2
    rows = Rows(form, torch.tensor(ids), values, torch.ones(len(ids)).double())
    agent.memory.hold("working", form, rows, 1)
    return dict(zip(ids, values.double().numpy(), strict=True))


def doubles(tensor):
    return tensor.detach().double().numpy()


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(1).mean()


IDS = torch.arange(12)


def test_proximal_pulls_back_to_where_the_round_began(agent, world, context):
    made = term("proximal", agent, context, proximal_weight=0.3)
    weights = list(agent.models["model"].parameters())
    began = [doubles(w) for w in weights]
    assert made.loss(batch_of(agent, world, IDS)).item() == 0
    with torch.no_grad():
        for w in weights:
            w += torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    loss = made.loss(batch_of(agent, world, IDS))
    assert loss.item() == pytest.approx(
        0.15 * sum(((doubles(w) - b) ** 2).sum() for w, b in zip(weights, began, strict=True)), rel=1e-5
    )
    loss.backward()
    for w, b in zip(weights, began, strict=True):
        np.testing.assert_allclose(w.grad.numpy(), 0.3 * (doubles(w) - b), atol=1e-6)
    assert made.parameters == []


@pytest.mark.parametrize("classes", [[0, 1, 2, 3, 4], [0, 3]])
def test_fd_learns_the_softmax_of_what_the_others_say_of_the_label(agent, world, context, classes):
    said = know(agent, "class_logits", classes, 5)
    batch = batch_of(agent, world, IDS)
    loss = term("class_logits", agent, context, kd_weight=0.7).loss(batch)
    known = np.isin(batch.y.numpy(), classes)
    assert known.any() and known.all() == (len(classes) == 5)
    target = softmax(np.stack([said[label] for label in batch.y.numpy()[known]]))
    given = softmax(doubles(batch.logits)[known])
    assert loss.item() == pytest.approx(-0.7 * (target * np.log(given)).sum(1).mean(), rel=1e-5)
    loss.backward()
    expected = np.zeros((len(IDS), 5))
    expected[known] = 0.7 * (given - target) / known.sum()
    np.testing.assert_allclose(batch.logits.grad.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "form", "width"), [("class_logits", "class_logits", 5), ("prototypes", "prototypes", 12)]
)
def test_what_was_not_received_adds_nothing(agent, world, context, name, form, width):
    assert term(name, agent, context) is None
    agent.memory.hold("working", form, Rows(form, torch.empty(0).long(), torch.empty(0, width), torch.empty(0)), 1)
    assert term(name, agent, context) is None
    absent = next(c for c in range(5) if c not in world.y_train[IDS[:2]])
    know(agent, form, [absent], width)
    batch = batch_of(agent, world, IDS[:2])
    loss = term(name, agent, context).loss(batch)
    loss.backward()
    assert loss.item() == 0
    assert batch.features.grad.abs().max() == 0


@pytest.mark.parametrize("classes", [[0, 1, 2, 3, 4], [1, 4]])
def test_fedproto_is_the_mean_squared_distance_to_the_labels_prototype(agent, world, context, classes):
    said = know(agent, "prototypes", classes, 12)
    batch = batch_of(agent, world, IDS)
    loss = term("prototypes", agent, context, prototype_weight=2.0).loss(batch)
    known = np.isin(batch.y.numpy(), classes)
    apart = doubles(batch.features)[known] - np.stack([said[label] for label in batch.y.numpy()[known]])
    assert loss.item() == pytest.approx(2 * (apart**2).mean(), rel=1e-5)
    loss.backward()
    expected = np.zeros((len(IDS), 12))
    expected[known] = 2 * 2 * apart / apart.size
    np.testing.assert_allclose(batch.features.grad.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_fedntd_keeps_what_the_model_said_of_the_wrong_classes(agent, world, context, temperature):
    ids = IDS
    made = term("not_true", agent, context, kd_weight=0.4, temperature=temperature)
    assert agent.models["model"].training
    before = copy.deepcopy(agent.models["model"])
    with torch.no_grad():
        for w in agent.models["model"].parameters():
            w += 0.3 * torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    batch = batch_of(agent, world, ids)
    loss = made.loss(batch)
    wrong = np.arange(5) != batch.y.numpy()[:, None]
    told, tell = (
        softmax(doubles(z)[wrong].reshape(len(ids), 4) / temperature) for z in (before(batch.x), batch.logits)
    )
    assert loss.item() == pytest.approx(0.4 * temperature**2 * kl(told, tell), rel=1e-4)
    loss.backward()
    expected = np.zeros((len(ids), 5))
    expected[wrong] = (0.4 * temperature * (tell - told) / len(ids)).reshape(-1)
    np.testing.assert_allclose(batch.logits.grad.numpy(), expected, atol=1e-6)
    assert made.loss(batch_of(agent, world, torch.tensor([3, 70]))).isnan()  # 70 is not the agent's: nothing is known


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_fml_is_the_papers_two_losses(agent, world, context, temperature):
    made = term(
        "mutual",
        agent,
        context,
        kd_weight=0.3,
        companion_ce_weight=0.6,
        companion_kd_weight=0.4,
        temperature=temperature,
    )
    companion = agent.models["companion"]
    assert [id(p) for p in made.parameters] == [id(p) for p in companion.parameters()]
    batch = batch_of(agent, world, IDS)
    loss = made.loss(batch)
    mine, theirs = doubles(batch.logits), doubles(companion(batch.x))
    p, q = softmax(mine / temperature), softmax(theirs / temperature)
    task = -np.log(softmax(theirs))[np.arange(12), batch.y.numpy()].mean()
    square = temperature**2
    assert loss.item() == pytest.approx(0.3 * square * kl(q, p) + 0.6 * task + 0.4 * square * kl(p, q), rel=1e-4)
    # Shen et al. 2020, eq. 3: the model's loss holds KL(companion || model) alone; eq. 4: the companion's, the others.
    loss.backward()
    np.testing.assert_allclose(batch.logits.grad.numpy(), 0.3 * temperature * (p - q) / 12, atol=1e-6)
    onehot = np.eye(5)[batch.y.numpy()]
    toward = (0.6 * (softmax(theirs) - onehot) + 0.4 * temperature * (q - p)) / 12
    np.testing.assert_allclose(companion.head.bias.grad.numpy(), toward.sum(0), atol=1e-6)


def test_fedkd_divides_by_how_wrong_both_are_and_learns_nothing_from_that(agent, world, context):
    made = term("adaptive_mutual", agent, context, kd_weight=0.8, hidden_weight=0.5)
    companion, mapping = agent.models["companion"], agent.models["hidden_map"]
    assert mapping.weight.shape == (12, 64) and mapping.bias is None
    assert len(made.parameters) == 3
    batch = batch_of(agent, world, IDS)
    loss = made.loss(batch)
    hidden = batch.x.flatten(1).double().numpy() @ doubles(mapping.weight).T
    mine, theirs = doubles(batch.logits), doubles(companion(batch.x))
    p, q = softmax(mine), softmax(theirs)
    task, own = (-np.log(r)[np.arange(12), batch.y.numpy()].mean() for r in (q, p))
    apart = doubles(batch.features) - hidden
    expected = task + (0.8 * (kl(q, p) + kl(p, q)) + 0.5 * (apart**2).mean()) / (own + task)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    # The divisor is a number: each side learns from the other's scores as from labels, and from no quotient.
    np.testing.assert_allclose(batch.logits.grad.numpy(), 0.8 / (own + task) * (p - q) / 12, atol=1e-6)
    np.testing.assert_allclose(
        mapping.weight.grad.numpy(),
        -0.5 / (own + task) * 2 / apart.size * apart.T @ batch.x.flatten(1).double().numpy(),
        atol=1e-6,
    )
    onehot = np.eye(5)[batch.y.numpy()]
    toward = (q - onehot) / 12 + 0.8 / (own + task) * (q - p) / 12
    np.testing.assert_allclose(companion.head.bias.grad.numpy(), toward.sum(0), atol=1e-6)


def test_received_knowledge_is_not_changed(agent, world, context):
    for form, width in (("class_logits", 5), ("prototypes", 12)):
        know(agent, form, [0, 1, 3], width)
        held = agent.memory.recall("working", form)
        before = held.values.clone()
        term(form, agent, context).loss(batch_of(agent, world, IDS)).backward()
        assert torch.equal(held.values, before)
