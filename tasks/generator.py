"""Generators: networks that make features or samples of a class out of noise, without anybody's data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from .architecture import Shape

REACH = 3.0
"""Values of a generated table lie within so many standard deviations; images lie in [-1, 1] (``data/dataset.py``)."""


def chances(counts: torch.Tensor, classes: Literal["evenly", "by_count"]) -> torch.Tensor:
    """Return the probability float32 [C] of drawing each class, from ``counts`` float64 [C] of samples."""
    weights = (counts > 0).double() if classes == "evenly" else counts.double()
    return (weights / weights.sum()).float()


def conditioned(labels: torch.Tensor, noise: torch.Tensor, classes: int) -> torch.Tensor:
    """Return noise [B, E] followed by the one-hot code of ``labels`` int64 [B]. [B, E + C]."""
    return torch.cat((noise, functional.one_hot(labels, classes).to(noise.dtype)), dim=1)


class FeatureGenerator(nn.Module):
    """Features [B, F] of a class: one hidden layer over noise and the class (Zhu et al. 2021, their code's layers)."""

    def __init__(self, classes: int, noise: int, hidden: int, features: int) -> None:
        super().__init__()
        self.classes, self.noise = classes, noise
        self.hidden = nn.Linear(noise + classes, hidden, bias=False)  # the norm takes any bias out again
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, features)

    def forward(self, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return features [B, F] for ``labels`` int64 [B] and ``noise`` float32 [B, E], uniform in [0, 1)."""
        made: torch.Tensor = self.out(torch.relu(self.norm(self.hidden(conditioned(labels, noise, self.classes)))))
        return made


def feature_generator_from(tensors: Mapping[str, torch.Tensor], classes: int) -> FeatureGenerator:
    """Return the generator with the weights ``tensors``, ready to be asked: in evaluation mode, and never trained."""
    hidden, inputs = tensors["hidden.weight"].shape
    with torch.random.fork_rng(devices=[]):
        made = FeatureGenerator(classes, inputs - classes, hidden, len(tensors["out.bias"]))
    made.load_state_dict(dict(tensors))
    return made.eval().requires_grad_(False)


class SampleGenerator(nn.Module):
    """Samples of a class, of the shape of the data set's.

    Images [B, channels, height, width] in [-1, 1] come of a map of a quarter of the side that is doubled twice
    (Zhang et al. 2022, the layers of their code); tables [B, D] in [-3, 3] of two dense layers.
    """

    def __init__(self, shape: Shape, classes: int, noise: int, width: int) -> None:
        super().__init__()
        self.shape, self.classes, self.noise = shape, classes, noise
        self.reach = 1.0 if len(shape) == 3 else REACH
        layers = _image_layers if len(shape) == 3 else _table_layers
        self.layers = layers(shape, noise + classes, width)

    def forward(self, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return samples [B, *shape] for ``labels`` int64 [B] and ``noise`` float32 [B, E], standard normal."""
        made: torch.Tensor = self.layers(conditioned(labels, noise, self.classes))
        if len(self.shape) == 3:
            made = made[:, :, : self.shape[1], : self.shape[2]]  # sides that are no multiple of four
        return torch.tanh(made) * self.reach


def _image_layers(shape: Shape, inputs: int, width: int) -> nn.Sequential:
    channels, height, side = shape
    start = (2 * width, math.ceil(height / 4), math.ceil(side / 4))
    return nn.Sequential(
        nn.Linear(inputs, math.prod(start)),
        nn.Unflatten(1, start),
        nn.BatchNorm2d(2 * width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, channels, 3, padding=1),
    )


def _table_layers(shape: Shape, inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 4 * width, bias=False),
        nn.BatchNorm1d(4 * width),
        nn.LeakyReLU(0.2),
        nn.Linear(4 * width, 4 * width, bias=False),
        nn.BatchNorm1d(4 * width),
        nn.LeakyReLU(0.2),
        nn.Linear(4 * width, math.prod(shape)),
        nn.Unflatten(1, shape),
    )
