"""What travels: one Arrow IPC message a packet. This is the one place that knows its schema."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .encoding import ENCODINGS, SingularValues, energy, factors, restore
from .knowledge import Knowledge, Models, Rows
from .late import late
from .parameters import Parameters
from .provenance import COLUMNS, contributors_of, with_provenance
from .registry import Entry

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

KEY = "key."
"""What the columns of keys are called begins with this."""

_DTYPES = {"float32": np.float32, "float16": np.float16, "int64": np.int64}


@dataclass(frozen=True)
class Label:
    """What is written on a packet: who made it, when, and at which point of the run."""

    sender: str
    round: int
    exchange: int
    progress: float = 0.0
    more: Mapping[str, str] = field(default_factory=dict)


def encode(
    knowledge: Knowledge,
    encoding: str,
    parameters: Parameters,
    label: Label,
    reference: Knowledge | None = None,
    remembered: bool = False,
) -> pa.Buffer:
    """Return the Arrow IPC stream of ``knowledge`` under ``encoding``; its size is what the ledger counts.

    ``reference``: models that sender and receiver both hold. Under ``svd`` the difference from them is factored: what
    training changed has few directions, the weights themselves have not (Wu et al. 2022 factor gradients).
    ``remembered``: it is written to be kept, and every row says who contributed it, in which round, and how it is held.
    """

    def kept(batch: pa.RecordBatch, what: Knowledge, under: str) -> pa.RecordBatch:
        if not remembered:
            return batch
        return with_provenance(batch, contributors_of(what, label.sender), label.round, what.form, under)

    head = {
        "form": knowledge.form,
        "encoding": encoding,
        "settings": parameters.model_dump_json(),
        "sender": label.sender,
        "round": str(label.round),
        "exchange": str(label.exchange),
        **label.more,
    }
    sink = pa.BufferOutputStream()
    if isinstance(knowledge, Models):
        if encoding == "svd" and isinstance(reference, Models):
            knowledge = _combined(knowledge, reference, -1.0)
            head["against"] = "reference"
        batch = _models_batch(knowledge, encoding, parameters, label.progress)
        _write(sink, kept(batch, knowledge, encoding), head)
        return sink.getvalue()
    batch = _rows_batch(knowledge, encoding, parameters)
    _write(sink, kept(batch, knowledge, encoding), head | _said_of(knowledge))
    if knowledge.attached is not None:
        plain = ENCODINGS["float32"].parameters()
        batch = _models_batch(knowledge.attached, "float32", plain, label.progress)
        _write(sink, kept(batch, knowledge.attached, "float32"), {"form": "parameters"})
    return sink.getvalue()


def decode(source: pa.Buffer | bytes, reference: Knowledge | None = None) -> tuple[Knowledge, Mapping[str, str]]:
    """Return the knowledge in an Arrow IPC stream and what is written on it.

    ``reference``: what :func:`encode` was given; ``ValueError`` where the packet needs one and there is none.
    """
    stream = pa.BufferReader(source)
    table = pa.ipc.open_stream(stream).read_all()
    head = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    if head["form"] != "parameters":
        rows = _rows(table, head)
        if "attached" in head:
            rows = replace(rows, attached=_models(pa.ipc.open_stream(stream).read_all()))
        return rows, head
    models = _models(table)
    if "against" in head:
        if not isinstance(reference, Models):
            raise ValueError(f"a packet of {head['sender']} is a difference from models that are not at hand")
        models = _combined(models, reference, 1.0)
    return models, head


def write(path: Path, buffer: pa.Buffer) -> None:
    """Write a packet to ``path``, whose folder exists, at once: it may be read while it is written again."""
    temporary = path.with_name(f".{path.name}.writing")
    with open(temporary, "wb") as file:
        file.write(buffer)
    os.replace(temporary, path)


def read(path: Path, reference: Knowledge | None = None) -> Knowledge:
    """Return the knowledge in the packet at ``path``, with the ``reference`` that it was encoded against."""
    with pa.memory_map(str(path)) as source:
        return decode(source.read_buffer(), reference)[0]


def _combined(models: Models, reference: Models, sign: float) -> Models:
    """Return ``models`` plus ``sign`` times the reference's models of the same architecture, where it has them."""
    tensors = {
        identity: {
            name: value + sign * reference.tensors[identity][name] if identity in reference.tensors else value
            for name, value in group.items()
        }
        for identity, group in models.tensors.items()
    }
    return Models(tensors, models.samples_by, models.labels)


def _write(sink: pa.BufferOutputStream, batch: pa.RecordBatch, head: Mapping[str, str]) -> None:
    with pa.ipc.new_stream(sink, batch.schema.with_metadata(head)) as writer:
        writer.write_batch(batch.replace_schema_metadata(head))


def _said_of(rows: Rows) -> dict[str, str]:
    """Return what is written on a packet of rows besides its label; only what is so is said."""
    said = {"samples": repr(float(rows.samples)), "width": str(rows.values.shape[1])}
    if rows.owners is not None:
        said["contributors"] = json.dumps(rows.contributors)
    if rows.keys is not None:
        said["key_width"] = str(rows.keys.shape[1])
    if rows.addressed:
        said["addressed"] = "yes"
    if rows.attached is not None:
        said["attached"] = "parameters"
    return said


def _matrix(values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _rows_batch(rows: Rows, encoding: str, parameters: Parameters) -> pa.RecordBatch:
    columns = {"id": pa.array(rows.ids.numpy().astype(np.int32))}
    for name, values in ENCODINGS[encoding].function(parameters, rows.values.numpy()).items():
        columns[name] = _matrix(values)
    weights = rows.weights.numpy()
    if not (weights == 1).all():
        columns["weight"] = pa.array(weights)
    if rows.classes is not None:
        columns["class"] = pa.array(rows.classes.numpy().astype(np.int32))
    if rows.owners is not None:
        columns["owner"] = pa.array(rows.owners.numpy().astype(np.int32))
    if rows.keys is not None:
        entry = _key_encoding(encoding)
        for name, values in entry.function(entry.parameters(), rows.keys.numpy()).items():
            columns[f"{KEY}{name}"] = _matrix(values)
    return pa.RecordBatch.from_pydict(columns)


def _key_encoding(encoding: str) -> Entry[Any]:
    """Return how keys travel beside values of ``encoding``: as those do where that fits any vector, else whole."""
    return ENCODINGS[encoding if encoding in ("float16", "int8") else "float32"]


def _rows(table: pa.Table, head: Mapping[str, str]) -> Rows:
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names:
        if name not in ("id", "weight", "class", "owner", *COLUMNS):
            column = table.column(name).combine_chunks()
            column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    values = {name: column for name, column in columns.items() if not name.startswith(KEY)}
    keys = {name.removeprefix(KEY): column for name, column in columns.items() if name.startswith(KEY)}
    weights = _column(table, "weight", np.float64)
    entry, beside = ENCODINGS[head["encoding"]], _key_encoding(head["encoding"])
    settings = entry.parameters.model_validate_json(head["settings"])
    ids = _column(table, "id", np.int64)
    assert ids is not None
    return Rows(
        head["form"],
        ids,
        torch.tensor(restore(entry.name, settings, values, int(head["width"]))),
        torch.ones(len(table), dtype=torch.float64) if weights is None else weights,
        float(head["samples"]),
        _column(table, "class", np.int64),
        tuple(json.loads(head.get("contributors", "[]"))),
        _column(table, "owner", np.int64),
        torch.tensor(restore(beside.name, beside.parameters(), keys, int(head["key_width"]))) if keys else None,
        "addressed" in head,
    )


def _column(table: pa.Table, name: str, dtype: Any) -> torch.Tensor | None:
    return torch.tensor(table.column(name).to_numpy().astype(dtype)) if name in table.column_names else None


def _parts(tensor: torch.Tensor, encoding: str, share: float) -> list[tuple[str, np.ndarray]]:
    if encoding == "svd" and tensor.dim() > 1:
        pair = factors(tensor.flatten(1), share)
        if pair is not None:
            return [("left", pair[0].numpy()), ("right", pair[1].numpy())]
    values = tensor.numpy()
    return [("whole", values.astype(np.float16) if encoding == "float16" else values)]


def _models_batch(models: Models, encoding: str, parameters: Parameters, progress: float) -> pa.RecordBatch:
    if encoding not in ("float32", "float16", "svd"):
        raise TypeError(f"parameters are sent as float32, float16 or svd, not {encoding}")
    share = energy(parameters, progress) if isinstance(parameters, SingularValues) else 1.0
    rows: dict[str, list[Any]] = {key: [] for key in ("architecture", "samples", "name", "part", "shape", "dtype")}
    if models.labels:
        rows["labels"] = []
    pieces: list[np.ndarray] = []
    for architecture, tensors in models.tensors.items():
        for name, tensor in tensors.items():
            for part, values in _parts(tensor, encoding, share):
                shape = list(tensor.shape) if part == "whole" else [*values.shape, *tensor.shape]
                said = [architecture, models.samples_by[architecture], name, part, shape, str(values.dtype)]
                if models.labels:  # once for each architecture, on its first tensor
                    told = models.labels.get(architecture)
                    said.append(None if told is None or architecture in rows["architecture"] else told.tolist())
                for key, value in zip(rows, said, strict=True):
                    rows[key].append(value)
                pieces.append(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    columns = {key: pa.array(rows[key], pa.list_(pa.float64()) if key == "labels" else None) for key in rows}
    offsets = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
    data = pa.py_buffer(np.concatenate(pieces)) if pieces else pa.py_buffer(b"")
    columns["values"] = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(pieces), [None, pa.py_buffer(offsets), data]
    )
    return pa.RecordBatch.from_pydict(columns)


def _models(table: pa.Table) -> Models:
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    samples: dict[str, float] = {}
    labels: dict[str, torch.Tensor] = {}
    left: torch.Tensor | None = None
    values = table.column("values").combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    rows = table.drop_columns(["values", *(name for name in COLUMNS if name in table.column_names)]).to_pylist()
    for index, row in enumerate(rows):
        flat = np.frombuffer(values[index].as_buffer(), dtype=_DTYPES[row["dtype"]])
        group = tensors.setdefault(row["architecture"], {})
        samples[row["architecture"]] = row["samples"]
        if row.get("labels") is not None:
            labels[row["architecture"]] = torch.tensor(row["labels"], dtype=torch.float64)
        shape = row["shape"]
        if row["part"] == "whole":
            group[row["name"]] = torch.tensor(flat.reshape(shape)).float()
        elif row["part"] == "left":
            left = torch.tensor(flat.reshape(shape[:2])).float()
        else:
            assert left is not None
            group[row["name"]] = (left @ torch.tensor(flat.reshape(shape[:2])).float()).reshape(shape[2:])
    return Models(tensors, samples, labels)
