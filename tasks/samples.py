"""The kind of data ``samples``: inputs with a class each, which a network answers with logits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .agent import Agent, Context, World
from .data.dataset import Dataset
from .kinds import DATA_KINDS
from .late import late
from .measure import METRICS, Nothing, measure
from .registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import torch

    from . import networks
    from .architecture import Architecture
    from .kinds import Arrays
else:
    torch = late("torch")
    networks = late("codistill.tasks.networks")


@DATA_KINDS.register("samples", Nothing)
class Samples:
    """Inputs with a class each."""

    unit = "samples"
    metrics = METRICS
    partitioners: Registry[Any] = Registry("sample_partitioners")

    @staticmethod
    def restore(description: Mapping[str, Any], arrays: Arrays) -> Dataset:
        """Return the data set that was prepared with this description and these arrays."""
        return Dataset(
            name=description["name"],
            x_train=arrays["x_train"],
            y_train=arrays["y_train"],
            x_test=arrays["x_test"],
            y_test=arrays["y_test"],
            labels=tuple(description["labels"]),
            columns_train={name: arrays[f"columns_train.{name}"] for name in description["columns"]},
            columns_test={name: arrays[f"columns_test.{name}"] for name in description["columns"]},
        )

    @staticmethod
    def world(data: Dataset, holders: Mapping[str, tuple[torch.Tensor, ...]], **common: Any) -> World:
        """Return the samples as tensors over the arrays of ``data``."""
        return World(shared(data.x_train), shared(data.y_train), shared(data.x_test), shared(data.y_test), **common)

    @staticmethod
    def build(
        one: Architecture, generator: torch.Generator, agent: Agent, world: World, alike: bool
    ) -> torch.nn.Module:
        """Return a network; what agents hold makes no difference to its shape."""
        return networks.build(one, generator)

    @staticmethod
    def measure(agent: Agent, metrics: Sequence[str], predict: str, context: Context) -> dict[str, tuple[float, int]]:
        """Return each metric of the agent's model on its test samples, and the number of these."""
        found = measure(agent, list(metrics), predict, context)
        return {name: (value, len(agent.test_ids)) for name, value in found.items()}

    @staticmethod
    def drawn(agent: Agent, context: Context) -> dict[str, torch.Tensor]:
        """Return nothing: networks have no rows that agents share by name."""
        return {}


def shared(values: np.ndarray) -> torch.Tensor:
    """Return a tensor over the memory of an array, which may be read-only: nothing writes to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(values)
