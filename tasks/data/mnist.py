"""MNIST and Fashion-MNIST in the IDX files in which they were published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..parameters import Parameters
from .dataset import DataError, Dataset, scaled
from .digits import DIGITS
from .files import check_digest, find_in, places, read_uncompressed, uncompressed_size
from .registry import add_source

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
SIZES = {
    TRAIN_IMAGES: 16 + 60_000 * 784,
    TRAIN_LABELS: 8 + 60_000,
    TEST_IMAGES: 16 + 10_000 * 784,
    TEST_LABELS: 8 + 10_000,
}

MNIST_MD5 = {
    TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
    TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MD5 = {
    TRAIN_IMAGES: "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    TRAIN_LABELS: "9018921c3c673c538a1fc5bad174d6f9",
    TEST_IMAGES: "8181f5470baa50b63fa0f6fddb340f0a",
    TEST_LABELS: "15d484375f8d13e6eb1aabb0c3f46965",
}
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


class MnistParameters(Parameters):
    """Nothing can be chosen: 60,000 train and 10,000 test images as published."""


def mnist_folders(root: Path) -> list[Path]:
    """Return where MNIST is looked for."""
    return [root / "mnist", root / "MNIST" / "raw"]


def fashion_folders(root: Path) -> list[Path]:
    """Return where Fashion-MNIST is looked for."""
    return [root / "fashion-mnist", root / "FashionMNIST" / "raw", DEBIAN_FOLDER]


def _find(folders: list[Path]) -> dict[str, Path] | None:
    """Return the four files from the first folder that has them all, each gzipped or not."""
    for folder in folders:
        found = {name: path for name in SIZES if (path := find_in(folder, name)) is not None}
        if len(found) == len(SIZES):
            return found
    return None


def _problems(name: str, folders: list[Path], md5: dict[str, str], hint: str) -> list[str]:
    found = _find(folders)
    if found is None:
        sums = ", ".join(f"{file} {digest}" for file, digest in md5.items())
        return [
            f"{name}: no folder holds all four IDX files, gzipped (.gz) or not; looked in {places(folders)}. "
            f"{hint} MD5 of the uncompressed files: {sums}"
        ]
    return [
        f"{name}: {path} holds {size:,} bytes uncompressed, expected {SIZES[file]:,}; fetch it again"
        for file, path in found.items()
        if (size := uncompressed_size(path)) != SIZES[file]
    ]


def parse_idx(data: bytes, what: str) -> npt.NDArray[np.uint8]:
    """Return the uint8 array of an IDX file's content; raise ``DataError`` if it is not one."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{what} is not an IDX file of bytes (it starts with {data[:4].hex()})")
    shape = tuple(int(length) for length in np.frombuffer(data, dtype=">i4", count=data[3], offset=4))
    start = 4 + 4 * data[3]
    if len(data) - start != int(np.prod(shape)):
        raise DataError(f"{what} says that it holds an array of shape {shape}, but has {len(data) - start:,} bytes")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _read(name: str, folders: list[Path], md5: dict[str, str], labels: tuple[str, ...]) -> Dataset:
    found = _find(folders)
    if found is None:
        raise DataError(f"{name}: the files are gone from {places(folders)}")
    arrays = {}
    for file, path in found.items():
        data = read_uncompressed(path)
        check_digest(hashlib.md5(data, usedforsecurity=False).hexdigest(), md5[file], f"{name}: md5 of {path}")
        arrays[file] = parse_idx(data, f"{name}: {path}")
    return Dataset(
        name,
        scaled(arrays[TRAIN_IMAGES][:, None]),
        arrays[TRAIN_LABELS].astype(np.int64),
        scaled(arrays[TEST_IMAGES][:, None]),
        arrays[TEST_LABELS].astype(np.int64),
        labels,
    )


def _mnist_problems(parameters: MnistParameters, root: Path) -> list[str]:
    folders = mnist_folders(root)
    return _problems("mnist", folders, MNIST_MD5, f"Put them into {folders[0]}, or set CODISTILL_DATA.")


def _mnist_files(parameters: MnistParameters, root: Path) -> list[Path]:
    return list((_find(mnist_folders(root)) or {}).values())


@add_source("mnist", MnistParameters, _mnist_problems, _mnist_files)
def read_mnist(parameters: MnistParameters, root: Path) -> Dataset:
    """MNIST: 60,000 + 10,000 handwritten digits of 28x28, from its IDX files, checked by MD5."""
    return _read("mnist", mnist_folders(root), MNIST_MD5, DIGITS)


def _fashion_problems(parameters: MnistParameters, root: Path) -> list[str]:
    folders = fashion_folders(root)
    hint = f"Install Debian's package dataset-fashion-mnist, put them into {folders[0]}, or set CODISTILL_DATA."
    return _problems("fashion-mnist", folders, FASHION_MD5, hint)


def _fashion_files(parameters: MnistParameters, root: Path) -> list[Path]:
    return list((_find(fashion_folders(root)) or {}).values())


@add_source("fashion-mnist", MnistParameters, _fashion_problems, _fashion_files)
def read_fashion_mnist(parameters: MnistParameters, root: Path) -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28, from its IDX files, checked by MD5."""
    return _read("fashion-mnist", fashion_folders(root), FASHION_MD5, CLOTHES)
