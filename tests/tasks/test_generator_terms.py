"""The term that FedGen adds to local training, against float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.generator import FeatureGenerator
from codistill.tasks.knowledge import GENERATOR, Models
from codistill.tasks.streams import torch_stream
from codistill.tasks.terms import TERMS, Batch
from codistill.tasks.train import Train, train

COUNTS = torch.tensor([5.0, 0.0, 20.0, 5.0, 10.0], dtype=torch.float64)


def term(agent, context, **said):
    entry = TERMS["generated"]
    return entry.function(agent, entry.parameters(**said), context)


def batch_of(agent, world, ids):
    x, y = world.x_train[ids], world.y_train[ids]
    features = agent.models["model"].body(x)
    logits = agent.models["model"].head(features)
    return Batch(ids, x, y, features, logits, F.cross_entropy(logits, y))


@pytest.fixture
def received(agent):
    """A generator of features in the agent's working memory."""
    torch.manual_seed(3)
    generator = FeatureGenerator(classes=5, noise=4, hidden=8, features=12)
    generator(torch.arange(5), torch.rand(5, 4))
    generator.eval()
    tensors = {name: value.clone() for name, value in generator.state_dict().items()}
    models = Models({GENERATOR: tensors}, {GENERATOR: 40.0}, {GENERATOR: COUNTS})
    agent.memory.hold("working", "parameters", models, 1)
    return generator


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("classes", ["evenly", "by_count"])
def test_the_loss_is_the_papers(agent, world, context, received, classes):
    made = term(agent, context, generated_ce_weight=3.0, kd_weight=2.0, batch=7, decay=0.9, classes=classes)
    assert made.parameters == []
    stream = agent.stream(context, "generated")
    head = {name: value.detach().double().numpy() for name, value in agent.network().head.state_dict().items()}
    weights = (COUNTS > 0).double() if classes == "evenly" else COUNTS
    for ids in (torch.arange(6), torch.arange(6, 10)):  # the stream goes on from batch to batch
        batch = batch_of(agent, world, ids)
        found = made.loss(batch)
        drawn = torch.multinomial((weights / weights.sum()).float(), 7, True, generator=stream)
        noise = torch.rand(len(ids) + 7, 4, generator=stream)
        with torch.no_grad():
            z = received(torch.cat((batch.y, drawn)), noise).double().numpy()
        log_p = log_softmax(z @ head["weight"].T + head["bias"])
        own, other = log_p[: len(ids)], log_p[len(ids) :]
        log_q = log_softmax(batch.logits.detach().double().numpy())
        kl = (np.exp(own) * (own - log_q)).sum(1).mean()
        task = -other[np.arange(7), drawn].mean()
        np.testing.assert_allclose(found.item(), 0.9 * (3 * task + 2 * kl), rtol=1e-5)  # round 2 of the run
        assert 1 not in drawn


def test_cross_entropy_moves_the_head_alone_and_nothing_moves_the_generator(agent, world, context, received):
    model = agent.network()
    loss = term(agent, context, kd_weight=0.0).loss(batch_of(agent, world, torch.arange(6)))
    loss.backward()
    assert model.head.weight.grad.abs().sum() > 0
    assert all(w.grad is None or not w.grad.any() for w in model.body.parameters())
    tensors = agent.memory.recall("working", "parameters").tensors[GENERATOR]
    assert all(not value.requires_grad for value in tensors.values())
    assert all(torch.equal(value, tensors[name]) for name, value in received.state_dict().items())


def test_the_divergence_moves_the_model_towards_the_heads_answer_only(agent, world, context, received):
    """What the head says of the generated features is a target: no gradient goes through it."""
    batch = batch_of(agent, world, torch.arange(6))
    made = term(agent, context, generated_ce_weight=0.0, kd_weight=1.0, decay=1.0, batch=3)
    batch.logits.retain_grad()
    made.loss(batch).backward()
    stream = agent.stream(context, "generated")
    torch.multinomial(torch.tensor([0.25, 0.0, 0.25, 0.25, 0.25]), 3, True, generator=stream)
    with torch.no_grad():
        z = received(torch.cat((batch.y, torch.zeros(3, dtype=torch.int64))), torch.rand(9, 4, generator=stream))[:6]
        target = torch.softmax(agent.network().head(z), 1)
    expected = (torch.softmax(batch.logits.detach(), 1) - target) / 6
    torch.testing.assert_close(batch.logits.grad, expected, atol=1e-6, rtol=1e-5)
    given = batch.logits.grad.T @ batch.features.detach()
    torch.testing.assert_close(agent.network().head.weight.grad, given, atol=1e-6, rtol=1e-5)


def test_there_is_no_term_before_a_generator_came(agent, context, models):
    assert term(agent, context) is None
    agent.memory.hold("working", "parameters", models(3), 1)
    assert term(agent, context) is None


def test_a_generator_without_counts_is_refused(agent, context, received):
    there = agent.memory.recall("working", "parameters")
    agent.memory.hold("working", "parameters", replace(there, labels={}), 1)
    with pytest.raises(ValueError, match="phone: the generator came without class counts"):
        term(agent, context)


def test_training_with_it_is_the_same_each_time(agent, another, context, received):
    said = Train.model_validate({"batch": 8, "losses": [{"generated": {"batch": 4}}]})
    twin = another("phone", torch.arange(30))
    twin.memory.hold("working", "parameters", agent.memory.recall("working", "parameters"), 1)
    alone = another("phone", torch.arange(30))
    for one in (agent, twin, alone):
        train(one, said, context)
    heads = [one.network().head.weight for one in (agent, twin, alone)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_class_that_the_agent_never_saw_is_learned_from_the_generator(agent, world, context):
    """The head is taught class 4 by features that only the generator makes."""
    generator = FeatureGenerator(classes=5, noise=4, hidden=8, features=12).eval()
    with torch.no_grad():
        generator.out.weight.zero_()
        generator.hidden.weight.zero_()
        generator.out.bias.copy_(torch.randn(12, generator=torch_stream(1, "place")))
    tensors = dict(generator.state_dict())
    only = torch.tensor([0.0, 0, 0, 0, 9], dtype=torch.float64)
    agent.memory.hold("working", "parameters", Models({GENERATOR: tensors}, {GENERATOR: 9.0}, {GENERATOR: only}), 1)
    agent.train_ids = agent.train_ids[world.y_train[agent.train_ids] != 4]
    said = {"batch": 8, "epochs": 10, "losses": [{"generated": {"kd_weight": 0.0}}]}
    train(agent, Train.model_validate(said), context)
    assert agent.network().head(generator.out.bias[None]).argmax() == 4
