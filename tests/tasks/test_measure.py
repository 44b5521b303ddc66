"""Metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from codistill.tasks.knowledge import Rows
from codistill.tasks.measure import METRICS, measure
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6))
def test_metrics(seed, count, classes):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    found = {entry.name: entry.function(torch.tensor(scores), torch.tensor(labels), classes) for entry in METRICS}
    said = scores.argmax(1)
    exp = np.exp(scores.astype(np.float64))
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, said), abs=1e-12)
    assert found["cross_entropy"] == pytest.approx(
        log_loss(labels, exp / exp.sum(1, keepdims=True), labels=list(range(classes))), rel=1e-6
    )
    there = np.unique(labels)
    expected = f1_score(labels, said, labels=there, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_an_agent_is_measured_on_its_own_test_samples(agent, world, context):
    agent.test_ids = torch.tensor([3, 4, 20])
    with torch.no_grad():
        said = agent.models["model"](world.x_test[agent.test_ids]).argmax(1)
    expected = (said == world.y_test[agent.test_ids]).double().mean().item()
    assert measure(agent, ["accuracy"], "classifier", context) == {"accuracy": expected}


def test_the_nearest_prototype_answers(agent, world, context):
    agent.models["model"].train()
    classifier = measure(agent, ["accuracy"], "classifier", context)
    assert measure(agent, ["accuracy"], "prototypes", context) == classifier  # until it holds any
    centres = torch.rand(3, 12, generator=torch.Generator().manual_seed(1))
    held = Rows("prototypes", torch.tensor([0, 2, 3]), centres, torch.ones(3).double())
    agent.memory.hold("semantic", "prototypes", held, 1)
    with torch.no_grad():
        features = agent.models["model"].body(world.x_test[agent.test_ids]).double().numpy()
    apart = ((features[:, None] - centres.double().numpy()) ** 2).sum(2)
    said = np.array([0, 2, 3])[apart.argmin(1)]
    labels = world.y_test[agent.test_ids].numpy()
    found = measure(agent, ["accuracy", "macro_f1"], "prototypes", context)
    assert found["accuracy"] == pytest.approx((said == labels).mean(), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(
        f1_score(labels, said, labels=np.unique(labels), average="macro", zero_division=0)
    )
    assert measure(agent, ["accuracy"], "classifier", context) == classifier
