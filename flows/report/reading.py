"""Reading the files of a run folder: tables with the contract's columns, JSON, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

COLUMNS: dict[str, tuple[str, ...]] = {
    "metrics": ("round", "agent", "group", "role", "metric", "value", "weight"),
    "control": ("round", "agent", "group", "role", "metric", "value", "weight"),
    "ledger": ("round", "exchange", "from", "to", "form", "encoding", "items", "bytes", "raw_bytes", "status"),
    "memory": ("round", "agent", "role", "kind", "items", "bytes"),
    "stores": (
        "round",
        "agent",
        "role",
        "store",
        "kind",
        "items",
        "bytes",
        "hits",
        "misses",
        "mean_age",
        "refused",
        "evicted",
    ),
    "events": ("round", "agent", "step", "what", "about", "count", "sentence"),
    "privacy": ("agent", "steps", "noise", "rate", "delta", "epsilon"),
    "partition": ("agent", "split", "label", "count"),
    "clock": ("round", "agent", "compute_seconds", "transfer_seconds", "status", "round_end"),
    "timings": ("round", "stage", "cohort", "started", "seconds", "cpu_seconds"),
}
DRAWN: dict[str, tuple[str, ...]] = {"embeddings": ("round", "agent", "entity", "values")}
"""Tables that one picture alone reads."""
LIST_COLUMNS = frozenset({"values"})
WHOLE_COLUMNS = frozenset(
    {
        *("round", "weight", "exchange", "items", "bytes", "raw_bytes", "count"),
        *("hits", "misses", "refused", "evicted", "steps"),
    }
)
FLOAT_COLUMNS = frozenset(
    {
        *("value", "mean_age", "noise", "rate", "delta", "epsilon"),
        *("compute_seconds", "transfer_seconds", "round_end", "started", "seconds", "cpu_seconds"),
    }
)


class NotARunError(ValueError):
    """The folder is not a run, or one of its files cannot be read."""


def columns_of(name: str) -> tuple[str, ...]:
    """Return the columns of a table that a run may hold."""
    return COLUMNS.get(name) or DRAWN[name]


def _empty(name: str) -> pa.Table:
    types = {column: pa.int64() for column in WHOLE_COLUMNS} | {column: pa.float64() for column in FLOAT_COLUMNS}
    types |= {column: pa.list_(pa.float32()) for column in LIST_COLUMNS}
    return pa.table({column: pa.array([], types.get(column, pa.string())) for column in columns_of(name)})


def read_table(folder: Path, name: str) -> pa.Table:
    """Read one of the contract's tables; an empty one where the file is missing."""
    path = folder / f"{name}.parquet"
    if not path.is_file():
        return _empty(name)
    try:
        table = parquet.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as problem:
        raise NotARunError(f"{path} cannot be read as a Parquet table: {problem}") from problem
    columns = columns_of(name)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise NotARunError(f"{path} has no column {', '.join(missing)}.")
    table = table.select(list(columns))
    for index, column in enumerate(columns):
        if column not in WHOLE_COLUMNS | FLOAT_COLUMNS | LIST_COLUMNS and not pa.types.is_string(
            table.schema.field(index).type
        ):
            table = table.set_column(index, column, table.column(column).cast(pa.string()))
    return table


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where the file is missing."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise NotARunError(f"{path} cannot be read as JSON: {problem}") from problem
    return content if isinstance(content, dict) else {}
