"""USPS handwritten digits, in the files of LIBSVM or as HDF5."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..parameters import Parameters
from .dataset import DataError, Dataset, Ids, Values
from .digits import DIGITS
from .files import check_file, places, read_uncompressed
from .registry import add_source

LIBSVM_MD5 = {"usps.bz2": "ec16c51db3855ca6c91edd34d0e9b197", "usps.t.bz2": "8ea070ee2aca1ac39742fdd1ef5ed118"}
HDF5 = "usps.h5"
HDF5_SHA256 = "734f88c541104a956d88be2c95d03b4a463ffd74ccc2ba9c80841fb98e3fcb36"
SIDE = 16


class UspsParameters(Parameters):
    """Nothing can be chosen: 7,291 train and 2,007 test images as published."""


def _homes(root: Path) -> list[Path]:
    return [root / "usps", root / "USPS"]


def _find(root: Path) -> list[Path]:
    """Return the two LIBSVM files, else the HDF5 file, else nothing."""
    for home in _homes(root):
        pair = [home / name for name in LIBSVM_MD5]
        if all(path.is_file() for path in pair):
            return pair
    return [home / HDF5 for home in _homes(root) if (home / HDF5).is_file()][:1]


def _problems(parameters: UspsParameters, root: Path) -> list[str]:
    found = _find(root)
    if not found:
        sums = ", ".join(f"{name} {digest}" for name, digest in LIBSVM_MD5.items())
        return [
            f"usps: neither {' and '.join(LIBSVM_MD5)} nor {HDF5} lie in {places(_homes(root))}. Put LIBSVM's two "
            f"files (md5 {sums}) or {HDF5} (sha256 {HDF5_SHA256}) into {_homes(root)[0]}, or set CODISTILL_DATA"
        ]
    if found[0].name == HDF5 and find_spec("h5py") is None:
        return [f"usps: {found[0]} needs h5py, which is not installed: pip install 'codistill[hdf5]'"]
    return []


def _files(parameters: UspsParameters, root: Path) -> list[Path]:
    return _find(root)


def parse_libsvm(text: str, what: str) -> tuple[Values, Ids]:
    """Return images float32 [N, 1, 16, 16] in [-1, 1] and classes int64 [N] from LIBSVM lines with labels 1 to 10.

    A pixel that a line leaves out is 0. Raises ``DataError`` naming the line that does not fit.
    """
    lines = text.splitlines()
    images = np.zeros((len(lines), SIDE * SIDE), dtype=np.float32)
    classes = np.empty(len(lines), dtype=np.int64)
    for position, line in enumerate(lines):
        try:
            label, *pairs = line.split()
            classes[position] = int(float(label)) - 1
            for pair in pairs:
                index, _, value = pair.partition(":")
                if not 1 <= int(index) <= SIDE * SIDE:
                    raise ValueError(f"pixel {index}")
                images[position, int(index) - 1] = float(value)
            if not 0 <= classes[position] <= 9:
                raise ValueError(f"label {label}")
        except ValueError as error:
            raise DataError(
                f"{what}, line {position + 1}: expected a label 1 to 10 and pixels 1 to 256 as index:value ({error})"
            ) from error
    if len(lines) == 0 or np.abs(images).max() > 1:
        raise DataError(f"{what}: expected lines with values in [-1, 1]")
    return images.reshape(-1, 1, SIDE, SIDE), classes


def _read_libsvm(path: Path) -> tuple[Values, Ids]:
    check_file(path, "md5", LIBSVM_MD5[path.name])
    return parse_libsvm(read_uncompressed(path).decode("ascii"), f"usps: {path}")


def _read_hdf5(path: Path) -> dict[str, tuple[Values, Ids]]:
    import h5py

    check_file(path, "sha256", HDF5_SHA256)
    parts = {}
    with h5py.File(path, "r") as file:
        for part in ("train", "test"):
            pixels = np.asarray(file[f"{part}/data"], dtype=np.float32).reshape(-1, 1, SIDE, SIDE)
            classes = np.asarray(file[f"{part}/target"]).astype(np.int64)
            parts[part] = ((pixels - np.float32(0.5)) / np.float32(0.5), classes)
    return parts


@add_source("usps", UspsParameters, _problems, _files)
def read_usps(parameters: UspsParameters, root: Path) -> Dataset:
    """USPS: 7,291 + 2,007 handwritten digits of 16x16, from LIBSVM's files or usps.h5, checked by their hashes.

    LIBSVM's files are taken if both are there. The HDF5 file needs the extra ``hdf5``. Raises ``DataError`` if a
    hash differs.
    """
    found = _find(root)
    if not found:
        raise DataError(f"usps: the files are gone from {places(_homes(root))}")
    if found[0].name == HDF5:
        parts = _read_hdf5(found[0])
    else:
        parts = {"train": _read_libsvm(found[0]), "test": _read_libsvm(found[1])}
    return Dataset("usps", *parts["train"], *parts["test"], DIGITS)
