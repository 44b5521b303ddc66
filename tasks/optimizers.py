"""Optimizers that a step may use; each is made anew for each step and keeps nothing between rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from .choice import Choice, choice
from .late import late
from .parameters import Parameters
from .registry import Registry

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

LearningRate = Annotated[float, Field(gt=0, le=10, description="learning rate")]

OPTIMIZERS: Registry[Callable[..., Any]] = Registry("optimizers")


class StochasticGradientDescent(Parameters):
    """Stochastic gradient descent."""

    lr: LearningRate = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class AdaptiveMoments(Parameters):
    """Adam (Kingma and Ba 2015)."""

    lr: LearningRate = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


@OPTIMIZERS.register("sgd", StochasticGradientDescent)
def sgd(parameters: StochasticGradientDescent, values: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Stochastic gradient descent, with momentum and weight decay."""
    return torch.optim.SGD(
        values, lr=parameters.lr, momentum=parameters.momentum, weight_decay=parameters.weight_decay
    )


@OPTIMIZERS.register("adam", AdaptiveMoments)
def adam(parameters: AdaptiveMoments, values: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, with decoupled weight decay."""
    return torch.optim.AdamW(values, lr=parameters.lr, weight_decay=parameters.weight_decay)


Optimizer: type[Choice] = choice("Optimizer", OPTIMIZERS, "How weights follow gradients.")


def optimizer(chosen: Choice, values: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the chosen optimizer over ``values``."""
    made: torch.optim.Optimizer = OPTIMIZERS[chosen.name].function(chosen.parameters, values)
    return made
