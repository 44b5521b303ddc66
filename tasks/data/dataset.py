"""What a source of data gives: arrays for training and testing, the names of the classes, and further columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]


class DataError(ValueError):
    """Data are not there or not what they should be; the message says what was expected and what to do."""


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their classes, cut into a train and a test part; every array is read-only.

    ``x_train`` and ``x_test`` are float32 [N, ...]: images [N, channels, height, width] in [-1, 1], tables
    [N, features]. ``y_train`` and ``y_test`` are int64 [N], positions in ``labels``. The columns hold one value
    per sample (numbers, booleans or text; never Python objects), for instance the hospital it came from.
    The id of a sample is its position in the train (or test) part.

    Raises ``DataError`` for a wrong dtype, parts without samples, unequal lengths or a class outside ``labels``.
    """

    name: str
    x_train: Values
    y_train: Ids
    x_test: Values
    y_test: Ids
    labels: tuple[str, ...]
    columns_train: Columns = field(default_factory=dict)
    columns_test: Columns = field(default_factory=dict)

    kind: ClassVar[str] = "samples"
    """The name of what is particular to such data, in :data:`..kinds.DATA_KINDS`."""

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            self._check_part(part, x, y)
            object.__setattr__(self, f"x_{part}", _read_only(x))
            object.__setattr__(self, f"y_{part}", _read_only(y))
            columns = getattr(self, f"columns_{part}")
            for name, column in columns.items():
                if column.dtype.hasobject or column.shape != y.shape:
                    raise DataError(
                        f"{self.name}: column {name!r} of the {part} part is {column.dtype} {list(column.shape)}; "
                        f"numbers, booleans or text of shape {list(y.shape)} are needed"
                    )
            object.__setattr__(self, f"columns_{part}", {name: _read_only(columns[name]) for name in columns})
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(
                f"{self.name}: a train sample has shape {self.x_train.shape[1:]}, a test sample {self.x_test.shape[1:]}"
            )
        if list(self.columns_train) != list(self.columns_test):
            raise DataError(
                f"{self.name}: the train part has the columns {list(self.columns_train)}, "
                f"the test part {list(self.columns_test)}"
            )

    def _check_part(self, part: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        if x.dtype != np.float32 or y.dtype != np.int64:
            raise DataError(f"{self.name}: x_{part} is {x.dtype} and y_{part} {y.dtype}; float32 and int64 are needed")
        if x.ndim < 2 or y.shape != x.shape[:1]:
            raise DataError(
                f"{self.name}: x_{part} has shape {x.shape} and y_{part} {y.shape}; [N, ...] and [N] are needed"
            )
        if len(y) == 0:
            raise DataError(f"{self.name}: the {part} part has no samples")
        if y.min() < 0 or y.max() >= len(self.labels):
            raise DataError(
                f"{self.name}: y_{part} holds classes {y.min()} to {y.max()}, but there are {len(self.labels)} labels"
            )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x_train.shape[1:])

    def part(self, train: Ids | None, test: Ids | None) -> Dataset:
        """Return the samples at some positions of the train and of the test part; None takes all."""
        made = self
        if train is not None:
            columns = {name: column[train] for name, column in self.columns_train.items()}
            made = replace(made, x_train=self.x_train[train], y_train=self.y_train[train], columns_train=columns)
        if test is not None:
            columns = {name: column[test] for name, column in self.columns_test.items()}
            made = replace(made, x_test=self.x_test[test], y_test=self.y_test[test], columns_test=columns)
        return made

    def arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield every array with its name, in a fixed order; a column is named ``columns_train.<name>``."""
        for name in ("x_train", "y_train", "x_test", "y_test"):
            yield name, getattr(self, name)
        for part in ("columns_train", "columns_test"):
            columns: Columns = getattr(self, part)
            for name in sorted(columns):
                yield f"{part}.{name}", columns[name]

    @cached_property
    def _digest(self) -> str:
        return content_digest(self)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of labels and arrays, not of the name; computed once."""
        return self._digest


class Prepared(Protocol):
    """A data set of any kind, as it is kept on disk."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels."""

    def arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield every array with its name, in a fixed order."""


def content_digest(dataset: Prepared) -> str:
    """Return the SHA-256 (hex) over the labels and each array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(repr(dataset.labels).encode())
    for name, array in dataset.arrays():
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.dtype.kind != "U" else array.tobytes())
    return digest.hexdigest()


_BYTE_VALUES = ((np.arange(256, dtype=np.float32) / np.float32(255)) - np.float32(0.5)) / np.float32(0.5)


def scaled(pixels: npt.NDArray[np.uint8]) -> Values:
    """Return uint8 ``pixels`` as float32 in [-1, 1], (v / 255 - 0.5) / 0.5, in the same shape."""
    return _BYTE_VALUES[pixels]
