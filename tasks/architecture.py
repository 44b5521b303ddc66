"""What a model looks like, as plain data: layers with their shapes, parameter counts and work.

A plan predicts bytes and time from this without importing torch; :mod:`.networks` builds the module from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution; ``padding`` in pixels on each side."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Linear:
    """A dense layer over a flat input."""

    width: int


@dataclass(frozen=True)
class Relu:
    """max(0, x)."""


@dataclass(frozen=True)
class MaxPool:
    """Maximum over square windows that do not overlap."""

    kernel: int


@dataclass(frozen=True)
class MeanPool:
    """Mean over all positions of a channel."""


@dataclass(frozen=True)
class GroupNorm:
    """Normalisation by groups of channels; unlike batch statistics it means the same on every agent."""

    groups: int


@dataclass(frozen=True)
class Flatten:
    """All of a sample's values in one row."""


@dataclass(frozen=True)
class Residual:
    """``x + layers(x)``; a 1 x 1 convolution brings ``x`` to the right shape where they differ."""

    layers: tuple[Layer, ...]


Layer = Convolution | Linear | Relu | MaxPool | MeanPool | GroupNorm | Flatten | Residual


@dataclass(frozen=True)
class Measured:
    """A layer's output shape, the shapes of its parameters, and multiply-adds for one sample."""

    output: Shape
    parameters: tuple[Shape, ...]
    multiply_adds: int


class ShapeError(ValueError):
    """A layer does not fit the shape that reaches it."""


def shortcut(layer: Residual, shape: Shape, output: Shape) -> Convolution | None:
    """Return the convolution that a residual's shortcut needs, or None where the identity does."""
    if output == shape:
        return None
    return Convolution(output[0], 1, stride=max(-(-shape[1] // output[1]), -(-shape[2] // output[2])))


def measure(layer: Layer, shape: Shape) -> Measured:
    """Return what ``layer`` makes of one sample of ``shape``; ``ShapeError`` where it does not fit."""
    match layer:
        case Convolution(channels, kernel, stride, padding):
            if len(shape) != 3:
                raise ShapeError(f"a convolution needs [channels, height, width], not {list(shape)}")
            height, width = ((n + 2 * padding - kernel) // stride + 1 for n in shape[1:])
            if min(height, width) < 1:
                raise ShapeError(f"a {kernel} x {kernel} convolution does not fit an image of {shape[1]} x {shape[2]}")
            weights = (channels, shape[0], kernel, kernel)
            return Measured((channels, height, width), (weights, (channels,)), math.prod(weights) * height * width)
        case Linear(width):
            inputs = math.prod(shape)
            return Measured((width,), ((width, inputs), (width,)), inputs * width)
        case MaxPool(kernel):
            if len(shape) != 3 or min(shape[1:]) < kernel:
                raise ShapeError(f"a pool of {kernel} x {kernel} does not fit {list(shape)}")
            return Measured((shape[0], shape[1] // kernel, shape[2] // kernel), (), 0)
        case MeanPool():
            return Measured((shape[0],), (), 0)
        case GroupNorm():
            return Measured(shape, ((shape[0],), (shape[0],)), math.prod(shape))
        case Flatten():
            return Measured((math.prod(shape),), (), 0)
        case Relu():
            return Measured(shape, (), 0)
        case Residual(layers):
            inner = measure_all(layers, shape)
            extra = shortcut(layer, shape, inner.output)
            if extra is None:
                return inner
            side = measure(extra, shape)
            if side.output != inner.output:
                raise ShapeError(f"the shortcut gives {list(side.output)}, the branch {list(inner.output)}")
            return Measured(inner.output, inner.parameters + side.parameters, inner.multiply_adds + side.multiply_adds)


def measure_all(layers: tuple[Layer, ...], shape: Shape) -> Measured:
    """Return what ``layers`` in order make of one sample of ``shape``."""
    parameters: tuple[Shape, ...] = ()
    work = 0
    for layer in layers:
        part = measure(layer, shape)
        shape, parameters, work = part.output, parameters + part.parameters, work + part.multiply_adds
    return Measured(shape, parameters, work)


@dataclass(frozen=True)
class Architecture:
    """A body that makes features and a dense head that makes logits.

    ``name`` identifies the architecture: two agents may exchange parameters if and only if theirs are equal.
    """

    name: str
    input_shape: Shape
    classes: int
    body: tuple[Layer, ...]
    features: int = field(init=False)
    parameter_shapes: tuple[Shape, ...] = field(init=False)
    multiply_adds: int = field(init=False)

    def __post_init__(self) -> None:
        body = measure_all(self.body, self.input_shape)
        if len(body.output) != 1:
            raise ShapeError(f"{self.name}: the body must end flat, not {list(body.output)}")
        head = measure(Linear(self.classes), body.output)
        object.__setattr__(self, "features", body.output[0])
        object.__setattr__(self, "parameter_shapes", body.parameters + head.parameters)
        object.__setattr__(self, "multiply_adds", body.multiply_adds + head.multiply_adds)

    @property
    def parameter_count(self) -> int:
        """The number of trainable values."""
        return sum(math.prod(shape) for shape in self.parameter_shapes)
