"""Lines of tab-separated names: read at once, and line by line only when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from ...tasks.data.dataset import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TRIPLE = ("head", "relation", "tail")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Row: TypeAlias = tuple[str, ...]


def numbered_rows(data: bytes, columns: Row, label: str) -> Iterator[tuple[int, Row]]:
    """Yield the number of each line that is not empty, from 1, and its names.

    Lines may end in LF, CR or CR LF. Raises ``DataError`` with file and line for bytes that are not UTF-8, another
    number of names than of ``columns``, or an empty name.
    """
    expected = " TAB ".join(columns)
    for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).splitlines(), 1):
        if not line:
            continue
        where = f"{label}, line {number}"
        try:
            row = tuple(line.decode("utf-8").split("\t"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: the byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8; "
                "save the file as UTF-8 (iconv does it)"
            ) from error
        if len(row) != len(columns):
            raise DataError(
                f"{where}: {len(row)} column{'s' if len(row) > 1 else ''}, expected {len(columns)}: {expected}; "
                "put one tab between two names, or delete the line"
            )
        if "" in row:
            raise DataError(
                f"{where}: the {columns[row.index('')]} is empty, expected {expected}; name it, or delete the line"
            )
        yield number, row


def read_rows(data: bytes, columns: Row, label: str) -> pa.Table:
    """Return a table of text with ``columns``, a row for each line that is not empty.

    Nothing is quoted, escaped or taken for a number or for missing. Raises ``DataError`` as ``numbered_rows`` does.
    """
    import pyarrow as pa
    from pyarrow import compute, csv

    if data.strip(b"\r\n"):
        try:
            table = csv.read_csv(
                pa.BufferReader(data),
                csv.ReadOptions(column_names=columns, use_threads=False),
                csv.ParseOptions(delimiter="\t", quote_char=False),
                csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
            )
            if not any(compute.any(compute.equal(column, "")).as_py() for column in table.columns):
                return table
        except pa.ArrowInvalid:
            pass  # told below with its line; what is only too long for a block of pyarrow's is read below
    rows = [row for _, row in numbered_rows(data, columns, label)]
    return pa.table({name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(columns)})


def find_row(data: bytes, columns: Row, label: str, wanted: Callable[[Row], bool]) -> tuple[int, Row] | None:
    """Return the first line whose names are ``wanted``, with its number."""
    return next((found for found in numbered_rows(data, columns, label) if wanted(found[1])), None)
