"""Kinds of data: what an agent's data are, and so how they are opened, what a model is built from and what is measured.

A learner holds ids of training data, of test data and, where the kind has such, of validation data; every kind says in
``y_train`` and ``y_test`` which label each of them has, by which they are dealt out and counted. What else it has, the
operations of its own kind know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .registry import Registry

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from .agent import Agent, Context, World
    from .architecture import Architecture

    Arrays = Mapping[str, npt.NDArray[Any]]


class Kind(Protocol):
    """What is particular to one kind of data."""

    unit: str
    """What one of them is called, in the plural."""
    metrics: Registry[Any]
    """What can be measured of a model."""
    partitioners: Registry[Any]
    """Ways to deal out that look at more than labels: ``function(said, data, agents, generator)``."""

    @staticmethod
    def restore(description: Mapping[str, Any], arrays: Arrays) -> Any:
        """Return the data set that was prepared with this description and these arrays."""

    @staticmethod
    def world(data: Any, holders: Mapping[str, tuple[torch.Tensor, ...]], **common: Any) -> World:
        """Return the data set as workers see it.

        ``holders``: ids of train, validation and test data of each learner, by name. ``common``: what every world has
        besides its data.
        """

    @staticmethod
    def build(
        one: Architecture, generator: torch.Generator, agent: Agent, world: World, alike: bool
    ) -> torch.nn.Module:
        """Return a new model of ``agent``; ``alike``: agents with one architecture begin with the same weights."""

    @staticmethod
    def measure(agent: Agent, metrics: Sequence[str], predict: str, context: Context) -> dict[str, tuple[float, int]]:
        """Return each metric of the agent's model, and how many of its data are behind the value."""

    @staticmethod
    def drawn(agent: Agent, context: Context) -> Mapping[str, torch.Tensor]:
        """Return a few rows of the agent's model that a report draws, by name; nothing where there are no such."""


DATA_KINDS: Registry[Any] = Registry("kinds")
"""By the name that a data set has in ``kind``; entries are classes with the parts of :class:`Kind`."""
