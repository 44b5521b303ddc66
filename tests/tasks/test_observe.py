"""Class means against NumPy in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.extract import EXTRACTS, Extract, extract
from codistill.tasks.observe import Observer, observers
from codistill.tasks.streams import torch_stream
from codistill.tasks.train import Train, batches, train
from pydantic import TypeAdapter


def means(y, values, classes):
    y, values = y.numpy(), values.detach().numpy().astype(np.float64)
    seen = np.unique(y)
    return seen, np.stack([values[y == label].mean(0) for label in seen]), np.bincount(y, minlength=classes)[seen]


@pytest.mark.parametrize("form", ["class_logits", "prototypes"])
def test_means_by_class(form):
    generator = torch_stream(1, "o")
    y = torch.randint(4, (101,), generator=generator) * 2  # classes 0, 2, 4, 6 of 9
    features, logits = torch.randn(101, 7, generator=generator), torch.randn(101, 9, generator=generator)
    observer = Observer(form, 9)
    for part in torch.arange(101).split(16):
        observer.see(y[part], features[part].requires_grad_(), logits[part])
    found = observer.result()
    seen, expected, counts = means(y, logits if form == "class_logits" else features, 9)
    assert found.form == form and found.ids.tolist() == seen.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(found.values.numpy(), expected, atol=1e-6)
    assert found.values.dtype == torch.float32 and not found.values.requires_grad
    assert found.weights.tolist() == counts.tolist() and found.samples == 101


def test_only_what_is_asked_for_is_gathered():
    assert [one.form for one in observers(frozenset(["prototypes"]), 3)] == ["prototypes"]
    assert observers(frozenset(), 3) == []


def read(said):
    return TypeAdapter(Extract).validate_python(said)


@pytest.mark.parametrize("form", ["class_logits", "prototypes"])
def test_a_pass_of_its_own_means_over_the_private_samples(agent, world, context, form):
    extract(agent, read({"knowledge": form, "from": "private"}), context)
    found = agent.memory.recall("working", "to share")
    model = agent.models["model"].double()
    with torch.no_grad():
        features = model.body(world.x_train[agent.train_ids].double())
        values = features if form == "prototypes" else model.head(features)
    seen, expected, counts = means(world.y_train[agent.train_ids], values, world.classes)
    assert found.ids.tolist() == seen.tolist() and found.weights.tolist() == counts.tolist()
    np.testing.assert_allclose(found.values.numpy(), expected, atol=1e-6)


def test_the_last_epochs_batches_are_gathered_as_they_pass(agent, another, world, context):
    context = replace(context, observe=frozenset(["class_logits"]))
    train(agent, Train.model_validate({"epochs": 2, "batch": 8, "optimizer": {"sgd": {"lr": 0.1}}}), context)
    extract(agent, read({"knowledge": "class_logits"}), context)
    found = agent.memory.recall("working", "to share")

    model = another("phone", agent.train_ids).models["model"]
    sums, counts = np.zeros((5, 5)), np.zeros(5)
    for epoch in range(2):
        for chosen in batches(agent.train_ids, 8, False, agent.stream(context, "shuffle", "private", epoch)):
            logits, y = model(world.x_train[chosen]), world.y_train[chosen]
            if epoch == 1:  # as they stood before the batch's own step
                np.add.at(sums, y.numpy(), logits.detach().numpy().astype(np.float64))
                np.add.at(counts, y.numpy(), 1)
            model.zero_grad()
            torch.nn.functional.cross_entropy(logits, y).backward()
            with torch.no_grad():
                for value in model.parameters():
                    value -= 0.1 * value.grad
    assert found.weights.tolist() == counts[counts > 0].tolist() and found.samples == 30
    np.testing.assert_allclose(found.values.numpy(), (sums / np.maximum(counts, 1)[:, None])[counts > 0], atol=1e-5)


def test_nothing_gathered_is_said(agent, context):
    with pytest.raises(RuntimeError, match="phone: nothing was gathered while training"):
        extract(agent, read({"knowledge": "prototypes"}), context)


def test_parameters_are_a_copy(agent, context):
    extract(agent, read({"knowledge": "parameters", "of": "companion"}), context)
    made = agent.memory.recall("working", "to share")
    (identity,) = made.tensors
    assert identity == "linear" and made.samples_by == {"linear": 30.0}
    before = {key: value.clone() for key, value in made.tensors[identity].items()}
    with torch.no_grad():
        for value in agent.models["companion"].parameters():
            value.add_(1)
    assert all(torch.equal(before[key], made.tensors[identity][key]) for key in before)
    assert not any(value.requires_grad for value in made.tensors[identity].values())


@pytest.mark.parametrize("scale", ["logits", "probabilities"])
def test_public_samples_are_scored_by_their_ids(agent, world, context, scale):
    found = EXTRACTS["logits"].function(agent, read({"knowledge": "logits", "scale": scale}), context)
    model = agent.models["model"]
    expected = model(world.x_train[60:]) if scale == "logits" else torch.softmax(model(world.x_train[60:]), 1)
    assert torch.equal(found.ids, torch.arange(60, 90)) and found.samples == 30
    torch.testing.assert_close(found.values, expected.detach())
    assert (found.weights == 30).all()
