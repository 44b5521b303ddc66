"""What a row of knowledge is found by: a vector for each sample, made so that the sample itself need not travel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from .agent import Agent, Context
from .choice import Choice, choice
from .late import late
from .parameters import Parameters
from .registry import Registry
from .streams import torch_stream

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

KEYS: Registry[Callable[..., torch.Tensor]] = Registry("keys")


class Key(Parameters):
    """What every way to make keys can tell beforehand."""

    needs_public: ClassVar[bool] = False
    """Whether it looks at the public samples."""

    def numbers(self, features: int, values: int, public: int) -> int:
        """Return how many numbers a key has, where models have so many features and samples so many values."""
        raise NotImplementedError


class Features(Key):
    """Nothing to choose."""

    def numbers(self, features: int, values: int, public: int) -> int:
        """As many as features."""
        return features


class Projection(Key):
    """A random hash that everybody can make alike."""

    width: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="numbers of a key")

    def numbers(self, features: int, values: int, public: int) -> int:
        """As many as it is wide."""
        return self.width


class Principal(Key):
    """A linear code."""

    needs_public: ClassVar[bool] = True
    width: Annotated[int, Field(ge=1, le=4096)] = Field(32, description="principal components, at most")

    def numbers(self, features: int, values: int, public: int) -> int:
        """As many as it is wide, where public samples and their values are as many."""
        return min(self.width, values, public)


@KEYS.register("features", Features)
def features(agent: Agent, ids: torch.Tensor, said: Features, context: Context) -> torch.Tensor:
    """What the agent's model makes of the samples before its head: the activations at a cut."""
    body, world = agent.network().eval().body, context.world
    with torch.no_grad():
        return torch.cat([body(world.x_train[part]) for part in ids.split(512)])


@KEYS.register("projection", Projection)
def projection(agent: Agent, ids: torch.Tensor, said: Projection, context: Context) -> torch.Tensor:
    """A random projection that is the same on every agent; it keeps angles but for about 1 / sqrt(width)."""
    samples = context.world.x_train[ids].flatten(1)
    generator = torch_stream(context.seed, "keys", "projection", said.width)
    matrix = torch.randn(samples.shape[1], said.width, generator=generator) / said.width**0.5
    keys: torch.Tensor = samples @ matrix
    return keys


@KEYS.register("principal", Principal)
def principal(agent: Agent, ids: torch.Tensor, said: Principal, context: Context) -> torch.Tensor:
    """The principal components of the public samples, which every agent finds by itself and alike."""
    center, axes = components(said.width, context)
    return (context.world.x_train[ids].flatten(1) - center) @ axes


def components(width: int, context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean [D] and the ``width`` leading principal axes [D, width] of the public samples.

    Fewer axes where there are fewer samples or values. The sign of each axis is fixed by its largest entry.
    """
    public = context.world.x_train[context.world.public].flatten(1).double()
    center = public.mean(0)
    _, axes = torch.linalg.eigh((public - center).T @ (public - center))
    axes = axes.flip(1)[:, : min(width, len(public), public.shape[1])]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return center.float(), (axes * signs).float()


if TYPE_CHECKING:
    KeyChoice = Choice
else:
    KeyChoice = choice("Key", KEYS, "What a row of knowledge is found by.")
