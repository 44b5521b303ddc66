"""Sums over the rows of tables: by keys, by one key within another, and who holds how many samples of what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as compute

from .text import natural_key


@dataclass(frozen=True)
class PartitionCounts:
    """How many samples of each label each agent holds: `counts[agent][label]`."""

    agents: list[str]
    labels: list[str]
    counts: list[list[int]]


def summed(table: pa.Table, keys: list[str], column: str = "bytes") -> dict[tuple[Any, ...], int]:
    """Sum a column of whole numbers by the values of ``keys``, in the order of these values."""
    if table.num_rows == 0:
        return {}
    grouped = table.group_by(keys).aggregate([(column, "sum")])
    rows = zip(*(grouped.column(key).to_pylist() for key in keys), strict=True)
    sums = dict(zip(rows, grouped.column(f"{column}_sum").to_pylist(), strict=True))
    return {key: int(sums[key] or 0) for key in sorted(sums, key=lambda row: [(type(x).__name__, x) for x in row])}


def within(sums: dict[tuple[Any, ...], int]) -> dict[Any, dict[Any, int]]:
    """Turn sums by two keys into sums by the second within the first."""
    nested: dict[Any, dict[Any, int]] = {}
    for (outer, inner), value in sums.items():
        nested.setdefault(outer, {})[inner] = value
    return nested


def partition_counts(table: pa.Table, split: str = "train", order: Iterable[str] = ()) -> PartitionCounts:
    """Give who holds how many samples of each label in a split of a partition table."""
    rows = table.filter(compute.equal(table.column("split"), split))
    cells = summed(rows, ["agent", "label"], "count")
    place = {name: index for index, name in enumerate(order)}
    agents = sorted({agent for agent, _ in cells}, key=lambda name: (place.get(name, len(place)), natural_key(name)))
    labels = sorted({label for _, label in cells}, key=natural_key)
    counts = [[cells.get((agent, label), 0) for label in labels] for agent in agents]
    return PartitionCounts(agents, labels, counts)
