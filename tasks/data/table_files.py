"""Reading CSV and Parquet files into columns of numbers and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .dataset import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = frozenset({".parquet", ".pq"})
NOTHING = ["", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


def read_tables(
    files: Sequence[Path], names: list[str] | None, delimiter: str, file_column: str | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of all files, one below the other: float64 with NaN, or text with "" for what is missing.

    A column is text if it is in one file. ``names`` are the columns of CSV files without a header;
    ``file_column`` adds a column with the file's name without its ending. Raises ``DataError`` for a file that
    cannot be parsed or has other columns than the first.
    """
    tables = [_read(file, names, delimiter) for file in files]
    for file, table in zip(files, tables, strict=True):
        if table.column_names != tables[0].column_names:
            raise DataError(
                f"table: {file} has the columns {table.column_names}, {files[0]} has {tables[0].column_names}"
            )
    pairs = list(zip(files, tables, strict=True))
    columns = {
        name: _merged([_values(table.column(name), f"{file}: {name}") for file, table in pairs])
        for name in tables[0].column_names
    }
    if file_column is not None:
        if file_column in columns:
            raise DataError(f"table: the files have a column {file_column!r} already; give file_column another name")
        columns[file_column] = np.repeat(np.array([file.stem for file in files]), [table.num_rows for table in tables])
    return columns


def column_names(file: Path, names: list[str] | None, delimiter: str) -> list[str]:
    """Return the columns of a file by its first bytes; raise ``DataError`` if it cannot be parsed."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if file.suffix.lower() in PARQUET:
            with parquet.ParquetFile(file) as opened:
                return list(opened.schema_arrow.names)
        with csv.open_csv(file, **_csv_options(names, delimiter)) as opened:
            return list(opened.schema.names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"table: {file} cannot be read: {error}") from error


def _csv_options(names: list[str] | None, delimiter: str) -> dict[str, Any]:
    from pyarrow import csv

    return {
        "read_options": csv.ReadOptions(column_names=names, use_threads=False),
        "parse_options": csv.ParseOptions(delimiter=delimiter),
        "convert_options": csv.ConvertOptions(null_values=NOTHING, strings_can_be_null=True),
    }


def _read(file: Path, names: list[str] | None, delimiter: str) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if file.suffix.lower() in PARQUET:
            with parquet.ParquetFile(file) as opened:
                table = opened.read()
        else:
            table = csv.read_csv(file, **_csv_options(names, delimiter))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"table: {file} cannot be read: {error}") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"table: {file} has columns of the same name: {twice}")
    return table


def _values(column: pa.ChunkedArray, what: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    try:
        return np.array(["" if value is None else value for value in column.cast(pa.string()).to_pylist()], dtype=str)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"table: {what} holds {kind}; only numbers, booleans, dates and text are read") from error


def _merged(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if any(part.dtype.kind == "U" for part in parts):
        parts = [part if part.dtype.kind == "U" else np.array([as_text(value) for value in part]) for part in parts]
    return np.concatenate(parts)


def as_text(value: float) -> str:
    """Return a number as text: whole numbers without a point, nothing for NaN."""
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else str(float(value))


def missing(column: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where a column has no value."""
    return np.asarray(column == "" if column.dtype.kind == "U" else np.isnan(column), dtype=np.bool_)
