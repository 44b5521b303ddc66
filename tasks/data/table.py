"""Tables of your own: CSV or Parquet, one row per sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..parameters import Parameters
from .dataset import Columns, DataError, Dataset, Ids
from .files import candidates, expand, places
from .registry import add_source
from .stratify import split_test
from .table_files import as_text, column_names, missing, read_tables


class TableParameters(Parameters):
    """Where the table lies, which column is the class, and how the features are prepared."""

    path: str | list[str] = Field(
        description="A file, a glob, or a list of them (.parquet or .pq; everything else is read as CSV); relative "
        "to the data root, then to the working folder."
    )
    label: str = Field(description="The column with the class.")
    label_above: float | None = Field(
        None, description="Make two classes of a column of numbers: 1 above this value, else 0."
    )
    features: list[str] | None = Field(
        None, min_length=1, description="The columns to learn from, numbers; without it all but label and keep."
    )
    keep: list[str] = Field([], description="Columns that are kept to divide the data by, such as a hospital.")
    test_share: float = Field(0.2, gt=0, lt=1, description="Share of each class set aside for testing.")
    standardise: bool = Field(True, description="Mean 0 and deviation 1 for each feature, by the train part.")
    missing: Literal["refuse", "drop", "mean"] = Field(
        "refuse",
        description="What to do about missing features: say so and stop, drop the row, or take the mean of the train "
        "part. A row without label or kept column is dropped by drop, and refused otherwise.",
    )
    names: list[str] | None = Field(None, description="The columns of CSV files that have no header.")
    file_column: str | None = Field(None, description="Add a column of this name with each row's file name.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="What stands between CSV columns.")


def _stated(parameters: TableParameters) -> list[str]:
    return [parameters.path] if isinstance(parameters.path, str) else parameters.path


def _files(parameters: TableParameters, root: Path) -> list[Path]:
    return [file for stated in _stated(parameters) for file in expand(stated, root)]


def _problems(parameters: TableParameters, root: Path) -> list[str]:
    problems = [
        f"table: no file at {places(candidates(stated, root))}"
        for stated in _stated(parameters)
        if not expand(stated, root)
    ]
    if not _stated(parameters):
        problems.append("table: path is an empty list; give at least one file")
    features = parameters.features or []
    twice = sorted({name for name in features if name == parameters.label or features.count(name) > 1})
    if twice:
        problems.append(f"table: {twice} would be learned from and be the label, or be learned from twice")
    files = _files(parameters, root)
    again = sorted({str(file) for file in files if files.count(file) > 1})
    if again:
        problems.append(f"table: {', '.join(again)} would be read twice; its rows would be in train and test alike")
    if not problems:
        try:
            _check_columns(column_names(files[0], parameters.names, parameters.delimiter), parameters)
        except DataError as error:
            problems.append(str(error))
    return problems


def _check_columns(there: list[str], parameters: TableParameters) -> None:
    """Raise ``DataError`` if a column that is asked for is not there."""
    known = [*there, *([parameters.file_column] if parameters.file_column else [])]
    absent = [name for name in (parameters.label, *parameters.keep, *(parameters.features or [])) if name not in known]
    if absent:
        raise DataError(f"table: no column {', '.join(map(repr, absent))}; there are {', '.join(map(repr, known))}")


def _pick(columns: dict[str, npt.NDArray[Any]], parameters: TableParameters) -> list[str]:
    """Return the names of the features; raise ``DataError`` for a column that is not there or not of numbers."""
    _check_columns(list(columns), parameters)
    aside = {parameters.label, *parameters.keep, parameters.file_column}
    features = parameters.features or [name for name in columns if name not in aside]
    text = [name for name in features if columns[name].dtype.kind == "U"]
    if text:
        raise DataError(f"table: {', '.join(text)} hold text; list them in keep, or list only numbers in features")
    if not features:
        raise DataError(f"table: no column is left to learn from besides {', '.join(map(str, aside))}")
    return features


def _classes(column: npt.NDArray[Any], parameters: TableParameters) -> tuple[Ids, tuple[str, ...]]:
    """Return the class of each row and the names of the classes."""
    name = parameters.label
    if parameters.label_above is not None:
        if column.dtype.kind == "U":
            raise DataError(f"table: {name!r} holds text, so label_above cannot be applied")
        above = f"{parameters.label_above:g}"
        return (column > parameters.label_above).astype(np.int64), (f"{name} <= {above}", f"{name} > {above}")
    values, classes = np.unique(column, return_inverse=True)
    if column.dtype.kind != "U" and not np.all(values == np.round(values)):
        raise DataError(f"table: {name!r} holds fractions, a measurement and no class; label_above makes two classes")
    if len(values) < 2:
        raise DataError(f"table: {name!r} has {len(values)} different values; at least 2 classes are needed")
    labels = tuple(str(value) if column.dtype.kind == "U" else as_text(value) for value in values)
    return classes.astype(np.int64), labels


def _rows(columns: dict[str, npt.NDArray[Any]], features: list[str], parameters: TableParameters) -> Ids:
    """Return the rows that stay; raise ``DataError`` where missing values are not allowed."""
    may_fill = set(features) if parameters.missing == "mean" else set()
    needed = list(dict.fromkeys([parameters.label, *parameters.keep, *features]))
    holes = {name: missing(columns[name]) for name in needed if name not in may_fill}
    if parameters.missing != "drop":
        counts = [f"{name} ({int(hole.sum())})" for name, hole in holes.items() if hole.any()]
        if counts:
            raise DataError(
                f"table: values are missing in {', '.join(counts)} of {len(columns[parameters.label])} rows; say "
                "missing: drop or missing: mean (which fills features only)"
            )
    stay = ~np.any(np.stack(list(holes.values())), axis=0)
    if stay.sum() < 2:
        raise DataError(f"table: {int(stay.sum())} of {len(stay)} rows are left once those with gaps are dropped")
    return np.flatnonzero(stay)


def _prepared(
    x: npt.NDArray[np.float64], train: Ids, features: list[str], parameters: TableParameters
) -> npt.NDArray[np.float64]:
    """Return ``x`` [N, features] with gaps filled and scales evened out, by the ``train`` rows alone."""
    counts = np.sum(~np.isnan(x[train]), axis=0)
    empty = [name for name, count in zip(features, counts.tolist(), strict=True) if count == 0]
    if empty:
        raise DataError(f"table: {', '.join(empty)} have no value at all in the train part; leave them out of features")
    x = np.where(np.isnan(x), np.nanmean(x[train], axis=0), x)
    if parameters.standardise:
        deviation = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    if not np.isfinite(x).all():
        raise DataError("table: the features hold infinite values")
    return x


@add_source("table", TableParameters, _problems, _files)
def read_table(parameters: TableParameters, root: Path) -> Dataset:
    """Tables of your own, CSV or Parquet: one row per sample, one column its class.

    Rows keep their order, file by file. Classes are the values in order, as 0 .. C-1; features are float32.
    Raises ``DataError`` for columns that are not there, text among the features, or missing values.
    """
    columns = read_tables(_files(parameters, root), parameters.names, parameters.delimiter, parameters.file_column)
    features = _pick(columns, parameters)
    rows = _rows(columns, features, parameters)
    y, labels = _classes(columns[parameters.label][rows], parameters)
    train, test = split_test(y, parameters.test_share)
    x = np.stack([columns[name][rows] for name in features], axis=1)
    x = _prepared(x, train, features, parameters).astype(np.float32)
    kept: Columns = {name: columns[name][rows] for name in parameters.keep}
    return Dataset(
        "table",
        x[train],
        y[train],
        x[test],
        y[test],
        labels,
        {name: column[train] for name, column in kept.items()},
        {name: column[test] for name, column in kept.items()},
    )
