"""CIFAR-10 in its published binary version."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from ..parameters import Parameters
from .dataset import DataError, Dataset, Ids, Values, scaled
from .files import check_file, places
from .registry import add_source

ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py")
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
RECORD_BYTES = 1 + 3 * 32 * 32
RECORDS = 10_000
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10Parameters(Parameters):
    """Nothing can be chosen: 50,000 train and 10,000 test images as published."""


def _homes(root: Path) -> list[Path]:
    return [root / "cifar10", root]


def _find(root: Path) -> Path | None:
    """Return the archive or the unpacked folder, whichever comes first."""
    paths = [home / name for home in _homes(root) for name in (ARCHIVE, FOLDER)]
    return next((path for path in paths if path.exists()), None)


def _problems(parameters: Cifar10Parameters, root: Path) -> list[str]:
    found = _find(root)
    if found is None:
        pickled = [home / name for home in _homes(root) for name in PICKLED if (home / name).exists()]
        said = (
            f" {pickled[0]} is the Python version: it is pickled, so that opening it can run code, and is not read."
            if pickled
            else ""
        )
        looked = [home / name for home in _homes(root) for name in (ARCHIVE, FOLDER)]
        return [
            f"cifar10: nothing at {places(looked)}.{said} Get the binary version, {ARCHIVE} "
            f"(md5 {ARCHIVE_MD5}), and put it into {_homes(root)[0]}, or set CODISTILL_DATA"
        ]
    if found.name == ARCHIVE:
        return []
    problems = []
    for name in (*TRAIN_FILES, TEST_FILE):
        path = found / name
        if not path.is_file():
            problems.append(f"cifar10: {path} is missing; unpack {ARCHIVE} again")
        elif path.stat().st_size != RECORDS * RECORD_BYTES:
            problems.append(
                f"cifar10: {path} has {path.stat().st_size:,} bytes, expected {RECORDS:,} records of "
                f"{RECORD_BYTES:,} bytes; unpack {ARCHIVE} again"
            )
    return problems


def _files(parameters: Cifar10Parameters, root: Path) -> list[Path]:
    found = _find(root)
    if found is None or found.name == ARCHIVE:
        return [] if found is None else [found]
    return [found / name for name in (*TRAIN_FILES, TEST_FILE)]


def _contents(found: Path) -> dict[str, bytes]:
    """Return the bytes of the six files, from the archive (whose MD5 is checked) or from the unpacked folder."""
    names = (*TRAIN_FILES, TEST_FILE)
    if found.name != ARCHIVE:
        return {name: (found / name).read_bytes() for name in names}
    check_file(found, "md5", ARCHIVE_MD5)
    contents = {}
    with tarfile.open(found, "r:gz") as archive:  # read member by member, never unpacked
        for member in archive:
            name = member.name.rpartition("/")[2]
            stream = archive.extractfile(member) if name in names else None
            if stream is not None:
                contents[name] = stream.read()
    return contents


def _parse(data: bytes, name: str) -> tuple[Values, Ids]:
    if len(data) != RECORDS * RECORD_BYTES:
        raise DataError(f"cifar10: {name} has {len(data):,} bytes, expected {RECORDS:,} x {RECORD_BYTES:,}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(RECORDS, RECORD_BYTES)
    classes = records[:, 0].astype(np.int64)
    if classes.max() >= len(THINGS):
        raise DataError(f"cifar10: {name} holds the class {classes.max()}; the file is damaged")
    return scaled(records[:, 1:].reshape(RECORDS, 3, 32, 32)), classes


@add_source("cifar10", Cifar10Parameters, _problems, _files)
def read_cifar10(parameters: Cifar10Parameters, root: Path) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 colour pictures of 32x32, from the published binary version.

    The archive is checked by its published MD5. Of the unpacked files only the record sizes and classes are
    checked: no content hash of them was at hand when this was written. Raises ``DataError`` if a check fails.
    """
    found = _find(root)
    if found is None:
        raise DataError(f"cifar10: the files are gone from {places(_homes(root))}")
    contents = _contents(found)
    missing = [name for name in (*TRAIN_FILES, TEST_FILE) if name not in contents]
    if missing:
        raise DataError(f"cifar10: {found} does not hold {', '.join(missing)}")
    parts = [_parse(contents[name], name) for name in TRAIN_FILES]
    x_test, y_test = _parse(contents[TEST_FILE], TEST_FILE)
    x_train = np.concatenate([x for x, _ in parts])
    y_train = np.concatenate([y for _, y in parts])
    return Dataset("cifar10", x_train, y_train, x_test, y_test, THINGS)
