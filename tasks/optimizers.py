"""Optimizers that a step may use; each is made anew for each step and keeps nothing between rounds.

They call torch's functional optimizers. ``torch.optim.Optimizer`` gives the same numbers, but its first step imports
the compiler: a second and a half of every worker's start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

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
Update = Callable[[], None]

OPTIMIZERS: Registry[Callable[..., Update]] = Registry("optimizers")


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
def sgd(parameters: StochasticGradientDescent, weights: list[torch.nn.Parameter]) -> Update:
    """Stochastic gradient descent, with momentum and weight decay."""
    from torch.optim.sgd import sgd as step

    buffers: list[torch.Tensor | None] = [None] * len(weights)

    def update() -> None:
        there = [i for i, w in enumerate(weights) if w.grad is not None]
        kept = [buffers[i] for i in there]
        step(
            [weights[i] for i in there],
            [weights[i].grad for i in there],  # type: ignore[misc]
            kept,
            foreach=False,
            fused=False,
            weight_decay=parameters.weight_decay,
            momentum=parameters.momentum,
            lr=parameters.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        for i, buffer in zip(there, kept, strict=True):
            buffers[i] = buffer

    return update


@OPTIMIZERS.register("adam", AdaptiveMoments)
def adam(parameters: AdaptiveMoments, weights: list[torch.nn.Parameter]) -> Update:
    """Adam, with decoupled weight decay."""
    from torch.optim.adamw import adamw as step

    first = [torch.zeros_like(w) for w in weights]
    second = [torch.zeros_like(w) for w in weights]
    counts = [torch.zeros(()) for _ in weights]

    def update() -> None:
        there = [i for i, w in enumerate(weights) if w.grad is not None]
        step(
            [weights[i] for i in there],
            [weights[i].grad for i in there],  # type: ignore[misc]
            [first[i] for i in there],
            [second[i] for i in there],
            [],
            [counts[i] for i in there],
            foreach=False,
            fused=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=parameters.lr,
            weight_decay=parameters.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    return update


if TYPE_CHECKING:
    Optimizer = Choice
else:
    Optimizer = choice("Optimizer", OPTIMIZERS, "How weights follow gradients.")


class Steps:
    """Takes gradient steps on ``weights`` as the chosen optimizer does."""

    def __init__(self, chosen: Choice, weights: Iterable[torch.nn.Parameter]) -> None:
        self._weights = list(weights)
        self._update: Update = OPTIMIZERS[chosen.name].function(chosen.parameters, self._weights)

    def down(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of ``loss``, a scalar."""
        for weight in self._weights:
            weight.grad = None
        loss.backward()
        with torch.no_grad():
            self._update()
