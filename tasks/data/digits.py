"""The handwritten digits that come with scikit-learn, and the workload built from them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..parameters import Parameters
from .dataset import DataError, Dataset, Ids, Values
from .registry import add_source, no_files, no_problems
from .stratify import SPLIT_SEED

DIGITS = tuple(str(digit) for digit in range(10))
TEST_SOURCES = 360
DIGITS20_X_TRAIN = "9e792891b77290351ea403042ab0d983b2f48fd565da76fb8fd30ac04e878703"
DIGITS20_Y_TRAIN = "f9b5fd823bd966fcb5f0723ed816d7355d45ec281a44f0005c1ffc0e336d5137"


class DigitsParameters(Parameters):
    """What the digits look like."""

    size: Literal[8, 28] = Field(8, description="Height and width: 8 as published, or 28 as in MNIST, bilinear.")


class Digits20Parameters(Parameters):
    """Nothing can be chosen: the workload is fixed."""


def _images(size: int) -> tuple[Values, Ids]:
    """Return the 1797 images [1797, 1, size, size] in [0, 1] and their classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images: Values = bunch.images.astype(np.float32)[:, None] / np.float32(16)
    if size != 8:
        import torch
        from torch.nn.functional import interpolate

        resized = interpolate(torch.from_numpy(images), size=(size, size), mode="bilinear", align_corners=False)
        images = np.asarray(resized.numpy(), dtype=np.float32)
    return images, bunch.target.astype(np.int64)


def _centred(images: npt.NDArray[np.float32]) -> Values:
    return np.asarray((images - np.float32(0.5)) / np.float32(0.5), dtype=np.float32)


@add_source("digits", DigitsParameters, no_problems, no_files)
def read_digits(parameters: DigitsParameters, root: Path) -> Dataset:
    """1797 handwritten digits of 8x8 pixels that come with scikit-learn: 1437 train, 360 test; needs no file."""
    images, classes = _images(parameters.size)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(classes))
    test, train = order[:TEST_SOURCES], order[TEST_SOURCES:]
    x = _centred(images)
    return Dataset("digits", x[train], classes[train], x[test], classes[test], DIGITS)


def _shifted_and_noisy(images: Values, generator: np.random.Generator) -> Values:
    """Return a copy of each image, shifted by up to 2 pixels each way, with noise of 0.1, within [0, 1]."""
    moved = np.empty_like(images)
    for position, image in enumerate(images):
        down, right = generator.integers(-2, 3, 2)
        moved[position] = np.roll(image, (down, right), axis=(1, 2))
    noise = generator.normal(0, 0.10, moved.shape).astype(np.float32)
    noisy: Values = np.clip(moved + noise, 0, 1)
    return noisy


@add_source("digits20", Digits20Parameters, no_problems, no_files)
def read_digits20(parameters: Digits20Parameters, root: Path) -> Dataset:
    """The benchmark digits20: the digits at 28x28 with shifted, noisy copies, 5748 train, 720 test; needs no file.

    Sources are split before they are copied. Raises ``DataError`` if the arrays built here are not, to the bit,
    those that the measurements were taken on.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    images, classes = _images(28)
    order = generator.permutation(len(classes))
    test, train = order[:TEST_SOURCES], order[TEST_SOURCES:]
    x_train = np.concatenate([images[train], *(_shifted_and_noisy(images[train], generator) for _ in range(3))])
    x_test = np.concatenate([images[test], _shifted_and_noisy(images[test], generator)])
    dataset = Dataset(
        "digits20",
        _centred(x_train),
        np.tile(classes[train], 4),
        _centred(x_test),
        np.tile(classes[test], 2),
        DIGITS,
    )
    _check_bits("x_train", dataset.x_train, DIGITS20_X_TRAIN)
    _check_bits("y_train", dataset.y_train, DIGITS20_Y_TRAIN)
    return dataset


def _check_bits(name: str, array: Values | Ids, expected: str) -> None:
    found = hashlib.sha256(array.tobytes()).hexdigest()
    if found != expected:
        import sklearn
        import torch

        raise DataError(
            f"digits20: {name} built here has sha256 {found}, expected {expected}. numpy {np.__version__}, torch "
            f"{torch.__version__}, scikit-learn {sklearn.__version__} or this CPU round differently from the machine "
            "of the measurements; use the data set `digits` with size 28, which promises no exact bits"
        )
