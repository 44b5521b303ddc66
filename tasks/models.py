"""The models that an agent may have, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from .architecture import (
    Architecture,
    Convolution,
    Flatten,
    GroupNorm,
    Layer,
    Linear,
    MaxPool,
    MeanPool,
    Relu,
    Residual,
    Shape,
)
from .choice import Choice
from .parameters import Parameters
from .registry import Registry

Width = Annotated[int, Field(ge=1, le=65536)]
Build = Callable[..., Any]
"""``function(parameters, input_shape)`` returns the layers of a body; for data of another kind than samples something
whose ``named(identity, input_shape, classes)`` returns what has all that an :class:`Architecture` has."""

MODELS: Registry[Build] = Registry("models")


class LinearModel(Parameters):
    """Nothing to choose."""


class MultiLayerPerceptron(Parameters):
    """A dense network."""

    hidden: list[Width] = Field([64], min_length=1, description="units of each hidden layer; the last are the features")


class ConvolutionalNetwork(Parameters):
    """Blocks of convolution, ReLU and pooling, then one dense layer."""

    channels: list[Width] = Field([16, 32], min_length=1, description="channels of each block")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolution windows; padded to keep the size")
    hidden: Width = Field(64, description="units of the dense layer after the blocks: the features")


class FedAvgNetwork(Parameters):
    """The network of McMahan et al. 2017 as it is usually built: needs images of at least 16 x 16."""

    hidden: list[Width] = Field([512], min_length=1, description="units of the dense layers; the last are the features")


class ResidualNetwork(Parameters):
    """A small residual network with group normalisation."""

    width: Width = Field(16, multiple_of=4, description="channels of the first stage; doubled at each further stage")
    blocks: Annotated[int, Field(ge=1, le=12)] = Field(1, description="residual blocks a stage, three stages")


@MODELS.register("linear", LinearModel)
def linear(parameters: LinearModel, shape: Shape) -> tuple[Layer, ...]:
    """Softmax regression: the features are the input itself."""
    return (Flatten(),)


@MODELS.register("mlp", MultiLayerPerceptron)
def mlp(parameters: MultiLayerPerceptron, shape: Shape) -> tuple[Layer, ...]:
    """Dense layers with ReLU."""
    layers: list[Layer] = [Flatten()]
    for width in parameters.hidden:
        layers += [Linear(width), Relu()]
    return tuple(layers)


@MODELS.register("cnn", ConvolutionalNetwork)
def cnn(parameters: ConvolutionalNetwork, shape: Shape) -> tuple[Layer, ...]:
    """Padded convolutions with ReLU and 2 x 2 pooling, then one dense layer; fits any image."""
    layers: list[Layer] = []
    side = min(shape[1:]) if len(shape) == 3 else 0
    for channels in parameters.channels:
        layers += [Convolution(channels, parameters.kernel, padding=parameters.kernel // 2), Relu()]
        if side >= 2:
            layers.append(MaxPool(2))
            side //= 2
    return (*layers, Flatten(), Linear(parameters.hidden), Relu())


@MODELS.register("fedavg-cnn", FedAvgNetwork)
def fedavg_cnn(parameters: FedAvgNetwork, shape: Shape) -> tuple[Layer, ...]:
    """Two 5 x 5 convolutions (32, 64) with pooling and a dense layer of 512: 582,026 parameters on 28 x 28."""
    layers: list[Layer] = [
        Convolution(32, 5),
        Relu(),
        MaxPool(2),
        Convolution(64, 5),
        Relu(),
        MaxPool(2),
        Flatten(),
    ]
    for width in parameters.hidden:
        layers += [Linear(width), Relu()]
    return tuple(layers)


@MODELS.register("resnet", ResidualNetwork)
def resnet(parameters: ResidualNetwork, shape: Shape) -> tuple[Layer, ...]:
    """Three stages of residual blocks with group normalisation, then the mean over positions."""
    layers: list[Layer] = [Convolution(parameters.width, 3, padding=1), GroupNorm(4), Relu()]
    for stage in range(3):
        channels = parameters.width * 2**stage
        for block in range(parameters.blocks):
            stride = 2 if stage and not block else 1
            inner: tuple[Layer, ...] = (
                Convolution(channels, 3, stride, 1),
                GroupNorm(4),
                Relu(),
                Convolution(channels, 3, 1, 1),
                GroupNorm(4),
            )
            layers += [Residual(inner), Relu()]
    return (*layers, MeanPool())


def architecture(name: str, parameters: Parameters, input_shape: Shape, classes: int) -> Architecture:
    """Return the architecture of model ``name`` for samples of ``input_shape``.

    Raises ``ShapeError`` where the model does not fit. The architecture's name spells out every value that
    shapes it, so equal names mean that parameters may be exchanged.
    """
    identity = _identity(name, parameters)
    made = MODELS[name].function(parameters, input_shape)
    if isinstance(made, tuple):
        return Architecture(identity, input_shape, classes, made)
    return cast(Architecture, made.named(identity, input_shape, classes))


def _identity(name: str, parameters: Parameters) -> str:
    keys = [key for key in type(parameters).model_fields if key not in parameters.incidental]
    values = {key: getattr(parameters, key) for key in keys}
    said = ",".join(f"{key}={_spelled_out(value)}" for key, value in values.items() if value is not None)
    return f"{name}({said})" if said else name


def _spelled_out(value: Any) -> str:
    if isinstance(value, Choice):
        return _identity(value.name, value.parameters)
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
