"""A small world of made-up images, and agents in it."""

import pytest
import torch
from codistill.tasks.agent import Agent, Context, World
from codistill.tasks.knowledge import Models, Rows
from codistill.tasks.models import MODELS, architecture
from codistill.tasks.networks import build
from codistill.tasks.streams import torch_stream

torch.set_num_threads(1)
CLASSES = 5


def made(name, shape=(1, 8, 8), classes=CLASSES, **parameters):
    """The architecture of a model, its parameters by keyword."""
    return architecture(name, MODELS[name].parameters(**parameters), shape, classes)


@pytest.fixture
def world():
    generator = torch_stream(1, "a made-up world")
    x = torch.rand(120, 1, 8, 8, generator=generator)
    y = torch.randint(CLASSES, (120,), generator=generator)
    known = {one.name: one for one in (made("mlp", hidden=[12]), made("linear"), made("cnn", channels=[4], hidden=12))}
    return World(x[:90], y[:90], x[90:], y[90:], CLASSES, torch.arange(60, 90), True, known)


@pytest.fixture
def context(world):
    return Context(world, seed=7, round=2, rounds=5, place="train.0")


@pytest.fixture
def agent(world):
    """A learner with the samples 0 to 29, an mlp and a companion."""
    return learner("phone", world, torch.arange(30))


def learner(name, world, ids, seed=3, models=("mlp", "linear")):
    chosen = {
        role: next(a for a in world.architectures.values() if a.name.startswith(kind))
        for role, kind in zip(("model", "companion"), models, strict=False)
    }
    agent = Agent(name, "phone", "learner", ids, torch.arange(30), chosen)
    for role, one in chosen.items():
        agent.models[role] = build(one, torch_stream(seed, name, role))
    return agent


@pytest.fixture
def another(world):
    """A maker of further learners: ``another(name, ids, models=(own, companion))``."""
    return lambda name, ids, **said: learner(name, world, ids, **said)


@pytest.fixture
def architectures():
    """A maker of architectures: ``architectures("mlp", hidden=[12])``."""
    return made


@pytest.fixture
def rows():
    """A maker of rows: ``rows(ids, weights=None)`` with values drawn by ``seed``."""

    def make(ids, weights=None, width=CLASSES, form="class_logits", seed=0, samples=10.0):
        values = torch.randn(len(ids), width, generator=torch_stream(seed, "rows"))
        given = torch.ones(len(ids)) if weights is None else torch.tensor(weights)
        return Rows(form, torch.tensor(ids, dtype=torch.int64), values, given.double(), samples)

    return make


@pytest.fixture
def models():
    """A maker of parameters of one architecture: ``models(samples, seed)``."""

    def make(samples, seed=0, architecture="a"):
        generator = torch_stream(seed, "models", architecture)
        tensors = {"w": torch.randn(4, 3, generator=generator), "b": torch.randn(3, generator=generator)}
        return Models({architecture: tensors}, {architecture: float(samples)})

    return make
