"""What travels: one Arrow IPC message a packet. This is the one place that knows its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .encoding import ENCODINGS, SingularValues, energy, factors, restore
from .knowledge import Knowledge, Models, Rows
from .late import late
from .parameters import Parameters

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

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
    knowledge: Knowledge, encoding: str, parameters: Parameters, label: Label, reference: Knowledge | None = None
) -> pa.Buffer:
    """Return the Arrow IPC stream of ``knowledge`` under ``encoding``; its size is what the ledger counts.

    ``reference``: models that sender and receiver both hold. Under ``svd`` the difference from them is factored: what
    training changed has few directions, the weights themselves have not (Wu et al. 2022 factor gradients).
    """
    head = {
        "form": knowledge.form,
        "encoding": encoding,
        "settings": parameters.model_dump_json(),
        "sender": label.sender,
        "round": str(label.round),
        "exchange": str(label.exchange),
        **label.more,
    }
    if isinstance(knowledge, Models):
        if encoding == "svd" and isinstance(reference, Models):
            knowledge = _combined(knowledge, reference, -1.0)
            head["against"] = "reference"
        batch = _models_batch(knowledge, encoding, parameters, label.progress)
    else:
        batch = _rows_batch(knowledge, encoding, parameters)
        head |= {"samples": repr(float(knowledge.samples)), "width": str(knowledge.values.shape[1])}
    sink = pa.BufferOutputStream()
    schema = batch.schema.with_metadata(head)
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(head))
    return sink.getvalue()


def decode(source: pa.Buffer | bytes, reference: Knowledge | None = None) -> tuple[Knowledge, Mapping[str, str]]:
    """Return the knowledge in an Arrow IPC stream and what is written on it.

    ``reference``: what :func:`encode` was given; ``ValueError`` where the packet needs one and there is none.
    """
    table = pa.ipc.open_stream(source).read_all()
    head = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    if head["form"] != "parameters":
        return _rows(table, head), head
    models = _models(table)
    if "against" in head:
        if not isinstance(reference, Models):
            raise ValueError(f"a packet of {head['sender']} is a difference from models that are not at hand")
        models = _combined(models, reference, 1.0)
    return models, head


def write(path: Path, buffer: pa.Buffer) -> None:
    """Write a packet to ``path``, whose folder exists."""
    with open(path, "wb") as file:
        file.write(buffer)


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
    return Models(tensors, models.samples_by)


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
    return pa.RecordBatch.from_pydict(columns)


def _rows(table: pa.Table, head: Mapping[str, str]) -> Rows:
    width, columns = int(head["width"]), {}
    for name in table.column_names:
        if name not in ("id", "weight"):
            column = table.column(name).combine_chunks()
            column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    ids = table.column("id").to_numpy().astype(np.int64)
    weights = table.column("weight").to_numpy() if "weight" in table.column_names else np.ones(len(table))
    entry = ENCODINGS[head["encoding"]]
    values = restore(entry.name, entry.parameters.model_validate_json(head["settings"]), columns, width)
    return Rows(
        head["form"],
        torch.tensor(ids),
        torch.tensor(values),
        torch.tensor(weights, dtype=torch.float64),
        float(head["samples"]),
    )


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
    pieces: list[np.ndarray] = []
    for architecture, tensors in models.tensors.items():
        for name, tensor in tensors.items():
            for part, values in _parts(tensor, encoding, share):
                shape = list(tensor.shape) if part == "whole" else [*values.shape, *tensor.shape]
                said = (architecture, models.samples_by[architecture], name, part, shape, str(values.dtype))
                for key, value in zip(rows, said, strict=True):
                    rows[key].append(value)
                pieces.append(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    columns = {key: pa.array(rows[key]) for key in rows}
    offsets = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
    data = pa.py_buffer(np.concatenate(pieces)) if pieces else pa.py_buffer(b"")
    columns["values"] = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(pieces), [None, pa.py_buffer(offsets), data]
    )
    return pa.RecordBatch.from_pydict(columns)


def _models(table: pa.Table) -> Models:
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    samples: dict[str, float] = {}
    left: torch.Tensor | None = None
    values = table.column("values").combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    rows = table.drop_columns(["values"]).to_pylist()
    for index, row in enumerate(rows):
        flat = np.frombuffer(values[index].as_buffer(), dtype=_DTYPES[row["dtype"]])
        group = tensors.setdefault(row["architecture"], {})
        samples[row["architecture"]] = row["samples"]
        shape = row["shape"]
        if row["part"] == "whole":
            group[row["name"]] = torch.tensor(flat.reshape(shape)).float()
        elif row["part"] == "left":
            left = torch.tensor(flat.reshape(shape[:2])).float()
        else:
            assert left is not None
            group[row["name"]] = (left @ torch.tensor(flat.reshape(shape[:2])).float()).reshape(shape[2:])
    return Models(tensors, samples)
