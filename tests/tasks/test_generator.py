"""Generators: shapes, bounds, and that what travels makes the same features again."""

import numpy as np
import pytest
import torch
from codistill.tasks.generator import FeatureGenerator, SampleGenerator, chances, feature_generator_from


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def test_features_are_two_layers_over_noise_and_class():
    made = FeatureGenerator(classes=4, noise=3, hidden=7, features=6).eval()
    made.norm.running_mean.copy_(torch.randn(7))
    made.norm.running_var.copy_(torch.rand(7) + 0.5)
    labels, noise = torch.tensor([2, 0, 3]), torch.rand(3, 3)
    state = {name: value.detach().double().numpy() for name, value in made.state_dict().items()}
    given = np.concatenate([noise.double().numpy(), np.eye(4)[labels]], axis=1)
    hidden = given @ state["hidden.weight"].T
    hidden = (hidden - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + 1e-5)
    hidden = np.maximum(hidden * state["norm.weight"] + state["norm.bias"], 0)
    expected = hidden @ state["out.weight"].T + state["out.bias"]
    np.testing.assert_allclose(made(labels, noise).detach().numpy(), expected, atol=1e-5)


def test_what_travelled_makes_the_same_features():
    made = FeatureGenerator(4, 3, 7, 6)
    made(torch.tensor([0, 1, 2, 3]), torch.rand(4, 3))  # moves the statistics
    travelled = {name: value.float() for name, value in made.state_dict().items()}  # as a packet gives them back
    again = feature_generator_from(travelled, classes=4)
    labels, noise = torch.tensor([2, 0, 3]), torch.rand(3, 3)
    assert torch.equal(again(labels, noise), made.eval()(labels, noise))
    assert not again.training and not any(weight.requires_grad for weight in again.parameters())
    assert again.noise == 3


def test_making_one_draws_nothing_from_the_global_stream():
    tensors = FeatureGenerator(4, 3, 7, 6).state_dict()
    before = torch.random.get_rng_state()
    feature_generator_from(tensors, 4)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("shape", "reach"), [((1, 8, 8), 1), ((1, 28, 28), 1), ((3, 32, 32), 1), ((1, 7, 10), 1), ((13,), 3)]
)
def test_samples_have_the_shape_and_the_bounds_of_the_data(shape, reach):
    made = SampleGenerator(shape, classes=5, noise=6, width=4)
    samples = made(torch.arange(5), torch.randn(5, 6) * 100)
    assert samples.shape == (5, *shape) and samples.dtype == torch.float32
    assert samples.abs().max() <= reach
    last = next(layer for layer in reversed(made.layers) if getattr(layer, "bias", None) is not None)
    torch.nn.init.constant_(last.bias, 50.0)
    torch.testing.assert_close(made(torch.arange(5), torch.randn(5, 6)), torch.full((5, *shape), float(reach)))


def test_samples_depend_on_the_class_and_on_the_noise():
    made = SampleGenerator((1, 8, 8), 5, 6, 4).eval()
    noise = torch.randn(2, 6)
    one, other = made(torch.tensor([1, 1]), noise)
    assert not torch.equal(one, other)
    assert not torch.equal(one, made(torch.tensor([2, 1]), noise)[0])


def test_chances_of_classes():
    counts = torch.tensor([0.0, 30.0, 10.0], dtype=torch.float64)
    assert chances(counts, "evenly").tolist() == [0, 0.5, 0.5]
    assert chances(counts, "by_count").tolist() == [0, 0.75, 0.25]
