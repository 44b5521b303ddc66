"""Torch modules built from an :class:`~.architecture.Architecture`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from . import architecture as layers

if TYPE_CHECKING:
    from .architecture import Architecture, Layer, Shape


class Network(nn.Module):
    """``body`` makes features [N, F] from samples, ``head`` makes logits [N, C] from features."""

    def __init__(self, body: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, C] of samples [N, ...]."""
        logits: torch.Tensor = self.head(self.body(x))
        return logits


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = self.shortcut(x) + self.branch(x)
        return total


def _module(layer: Layer, shape: Shape) -> nn.Module:
    match layer:
        case layers.Convolution(channels, kernel, stride, padding):
            return nn.Conv2d(shape[0], channels, kernel, stride, padding)
        case layers.Linear(width):
            return nn.Linear(layers.measure(layers.Flatten(), shape).output[0], width)
        case layers.Relu():
            return nn.ReLU()
        case layers.MaxPool(kernel):
            return nn.MaxPool2d(kernel)
        case layers.MeanPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case layers.GroupNorm(groups):
            return nn.GroupNorm(groups, shape[0])
        case layers.Flatten():
            return nn.Flatten()
        case layers.Residual(inner):
            side = layers.shortcut(layer, shape, layers.measure(layer, shape).output)
            return _Residual(_sequence(inner, shape), nn.Identity() if side is None else _module(side, shape))


def _sequence(parts: tuple[Layer, ...], shape: Shape) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in parts:
        modules.append(_module(layer, shape))
        shape = layers.measure(layer, shape).output
    return nn.Sequential(*modules)


def build(architecture: Architecture, generator: torch.Generator) -> Network:
    """Return a network with torch's usual initial values, drawn from ``generator`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        body = _sequence(architecture.body, architecture.input_shape)
        return Network(body, nn.Linear(architecture.features, architecture.classes))
