"""The Parquet tables of a run, assembled from its committed rounds. Same rows, same bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .folder import RunFolder, replacing
from .plan import Plan
from .rounds import Cost, cost

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

METRICS = pa.schema(
    [
        ("round", pa.int32()),
        ("agent", pa.string()),
        ("group", pa.string()),
        ("role", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("weight", pa.int64()),
    ]
)
LEDGER = pa.schema(
    [
        ("round", pa.int32()),
        ("exchange", pa.int32()),
        ("from", pa.string()),
        ("to", pa.string()),
        ("form", pa.string()),
        ("encoding", pa.string()),
        ("items", pa.int64()),
        ("bytes", pa.int64()),
        ("raw_bytes", pa.int64()),
        ("status", pa.string()),
    ]
)
MEMORY = pa.schema(
    [
        ("round", pa.int32()),
        ("agent", pa.string()),
        ("role", pa.string()),
        ("kind", pa.string()),
        ("items", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
CLOCK = pa.schema(
    [
        ("round", pa.int32()),
        ("agent", pa.string()),
        ("compute_seconds", pa.float64()),
        ("transfer_seconds", pa.float64()),
        ("status", pa.string()),
        ("round_end", pa.float64()),
    ]
)
TIMINGS = pa.schema(
    [
        ("round", pa.int32()),
        ("stage", pa.string()),
        ("cohort", pa.string()),
        ("started", pa.float64()),
        ("seconds", pa.float64()),
        ("cpu_seconds", pa.float64()),
    ]
)


STORES = pa.schema(
    [
        ("round", pa.int32()),
        ("agent", pa.string()),
        ("role", pa.string()),
        ("store", pa.string()),
        ("kind", pa.string()),
        ("items", pa.int64()),
        ("bytes", pa.int64()),
        ("hits", pa.int64()),
        ("misses", pa.int64()),
        ("mean_age", pa.float64()),
        ("refused", pa.int64()),
        ("evicted", pa.int64()),
    ]
)
EVENTS = pa.schema(
    [
        ("round", pa.int32()),
        ("agent", pa.string()),
        ("step", pa.string()),
        ("what", pa.string()),
        ("about", pa.string()),
        ("count", pa.int64()),
        ("sentence", pa.string()),
    ]
)
EMBEDDINGS = pa.schema(
    [
        ("round", pa.int32()),
        ("agent", pa.string()),
        ("entity", pa.string()),
        ("values", pa.list_(pa.float32())),
    ]
)

SCHEMAS = {
    "metrics": METRICS,
    "ledger": LEDGER,
    "memory": MEMORY,
    "stores": STORES,
    "events": EVENTS,
    "clock": CLOCK,
    "timings": TIMINGS,
    "embeddings": EMBEDDINGS,
}
WHERE_ANY = frozenset({"embeddings"})
"""Tables that are left out where they have no row."""


def as_text(values: torch.Tensor) -> str:
    """Return float32 numbers as text, to the bit; see :func:`from_text`."""
    return base64.b64encode(values.cpu().numpy().astype("<f4").tobytes()).decode()


def from_text(text: str) -> npt.NDArray[np.float32]:
    """Return the numbers, float32 [n], that :func:`as_text` wrote."""
    return np.frombuffer(base64.b64decode(text), "<f4")


def write_tables(folder: RunFolder, plan: Plan) -> float:
    """Write the tables of the rounds that are committed; return the seconds that these rounds took."""
    last, seconds = folder.committed(), 0.0
    writers = {name: _Writer(folder, name, schema) for name, schema in SCHEMAS.items()}
    for number in range(last + 1):
        rows = json.loads(folder.rows(number).read_text(encoding="utf-8"))
        agents = plan.agents
        writers["metrics"].add(
            [number, agents[p].name, agents[p].group, agents[p].role, metric, value, weight]
            for p, metric, value, weight in rows["metrics"]
        )
        writers["ledger"].add(
            [number, exchange, agents[sender].name, agents[receiver].name, *rest]
            for sender, receiver, exchange, *rest in rows["ledger"]
        )
        writers["memory"].add([number, agents[p].name, agents[p].role, *rest] for p, *rest in rows["memory"])
        writers["stores"].add([number, agents[p].name, agents[p].role, *rest] for p, *rest in rows.get("stores", []))
        writers["events"].add([number, agents[p].name, *rest] for p, *rest in rows.get("events", []))
        writers["embeddings"].add(
            [number, agents[p].name, entity, from_text(values)] for p, entity, values in rows.get("embeddings", [])
        )
        if number > 0:
            writers["clock"].add(clock_rows(plan, number, rows["ledger"]))
        writers["timings"].add([number, *row] for row in rows["timings"])
        seconds += rows["seconds"]
    for name, writer in writers.items():
        if writer.rows or name not in WHERE_ANY:
            writer.close()
    return seconds


def clock_rows(plan: Plan, number: int, ledger: list[list[Any]]) -> Iterator[list[Any]]:
    """Yield each learner's simulated seconds in a round, from the bytes that it really sent and received."""
    said = plan.round(number)
    sent: dict[int, int] = {}
    received: dict[int, int] = {}
    for sender, receiver, _, _, _, _, size, *_ in ledger:
        sent[sender] = sent.get(sender, 0) + size
        received[receiver] = received.get(receiver, 0) + size
    chosen, late, absent = set(plan.taking_part(number)), set(said.late), set(said.absent)
    for place, agent in enumerate(plan.agents[: plan.learners]):
        spent = Cost(0.0, 0.0)
        status = "absent" if place in absent else "resting"
        if place in chosen:
            spent = cost(agent, sent.get(place, 0), received.get(place, 0))
            status = "late" if place in late else "took part"
        yield [number, agent.name, spent.compute, spent.transfer, status, said.ends]


class _Writer:
    """Collects rows by column and writes one Parquet file, whole or not at all."""

    def __init__(self, folder: RunFolder, name: str, schema: pa.Schema) -> None:
        self._path = folder.table(name)
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self.rows = 0

    def add(self, rows: Iterator[list[Any]]) -> None:
        columns = list(zip(*rows, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self.rows += len(columns[0])
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        with replacing(self._path) as temporary:
            pq.write_table(pa.Table.from_batches(self._batches, self._schema).combine_chunks(), temporary)
