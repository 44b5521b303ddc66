"""What a packet must be before anything reads it: of the form, encoding, sender and round that the plan expects."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

import pyarrow as pa

from ...tasks.encoding import ENCODINGS
from ...tasks.packet import KEY


class UnfitPacketError(ValueError):
    """A packet is not as the plan expects it; the sentence says in what."""


@dataclass(frozen=True)
class Expected:
    """What the plan says of a packet."""

    sender: str
    round: int
    exchange: int
    forms: Collection[str]
    encodings: Collection[str]


_NUMBERS = {"float32": 4, "float16": 2, "int64": 8}
"""Numbers of models, and the bytes of one."""
_VALUES = {
    "float32": {"values": pa.float32()},
    "float16": {"values": pa.float16()},
    "int8": {"codes": pa.int8(), "scale": pa.float32()},
    "bits": {"packed": pa.uint8()},
    "top-k": {"chosen": pa.int32(), "values": pa.float16()},
}
_BESIDE = {"weight": pa.float64(), "class": pa.int32(), "owner": pa.int32()}
_MODELS = {
    "architecture": pa.string(),
    "samples": pa.float64(),
    "name": pa.string(),
    "part": pa.string(),
    "shape": pa.list_(pa.int64()),
    "dtype": pa.string(),
    "values": pa.large_binary(),
}


def inspect(message: pa.Buffer, expected: Expected) -> None:
    """Return if ``message`` is a packet as ``expected``. Raises ``UnfitPacketError``.

    Everything that :func:`...tasks.packet.decode` relies on is looked at: types and lengths of all columns, no nulls,
    ids and owners that there can be, and that tensors have the bytes that their shapes say.
    """
    stream = pa.BufferReader(message)
    try:
        table, head = _table(stream)
        _label(head, expected)
        if head["form"] == "parameters":
            _models(table)
        else:
            _rows(table, head)
            if "attached" in head:
                attached, said = _table(stream)
                _require(said.get("form") == "parameters", "what travels with its rows are no models")
                _models(attached)
        _require(stream.tell() == stream.size(), "something follows after its end")
    except UnfitPacketError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnfitPacketError(f"it is no packet ({reason})") from None


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UnfitPacketError(otherwise)


def _table(stream: pa.BufferReader) -> tuple[pa.Table, dict[str, str]]:
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    return table, {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def _label(head: Mapping[str, str], expected: Expected) -> None:
    is_from = (head["sender"], int(head["round"]), int(head["exchange"]))
    meant = (expected.sender, expected.round, expected.exchange)
    _require(is_from == meant, f"it is labelled {is_from}, and {meant} is expected")
    said = head["form"]
    _require(said in expected.forms, f"it holds {said}, and {' or '.join(sorted(expected.forms))} is expected")
    said = head["encoding"]
    _require(said in expected.encodings, f"it is written as {said}, not {' or '.join(sorted(expected.encodings))}")
    ENCODINGS[said].parameters.model_validate_json(head["settings"])


def _rows(table: pa.Table, head: Mapping[str, str]) -> None:
    beside = "float32" if head["encoding"] not in ("float16", "int8") else head["encoding"]
    values = _VALUES[head["encoding"]]
    keys = {f"{KEY}{name}": kind for name, kind in _VALUES[beside].items()}
    there = set(table.column_names)
    _require(len(there) == len(table.column_names), "it has two columns of one name")
    needed = {"id", *values} | (set(keys) if "key_width" in head else set())
    _require(needed <= there <= needed | set(_BESIDE), f"its columns are {', '.join(table.column_names)}")
    for name in there:
        kind, column = table.schema.field(name).type, table.column(name)
        _require(column.null_count == 0, f"its column {name} has nulls")
        if name == "id":
            _require(kind == pa.int32(), f"its ids are {kind}")
        elif name in _BESIDE:
            _require(kind == _BESIDE[name], f"its column {name} is {kind}")
        else:
            inner = {**values, **keys}[name]
            fits = pa.types.is_fixed_size_list(kind) and kind.value_type == inner
            _require(fits, f"its column {name} is {kind}")
            flat = column.combine_chunks()
            whole = flat.null_count == 0 and flat.flatten().null_count == 0
            _require(whole, f"its column {name} has nulls")
    _require(int(head["width"]) >= 1 and float(head["samples"]) >= 0, "its label has numbers that cannot be")
    _widths(table, head, values)
    names = json.loads(head.get("contributors", "[]"))
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    _require(known and ("owner" in there) == ("contributors" in head), "its contributors are not as they should be")
    if len(table) and "owner" in there:
        owners = table.column("owner").to_numpy()
        _require(owners.min() >= 0 and owners.max() < len(names), "it names owners that it does not tell")


def _widths(table: pa.Table, head: Mapping[str, str], values: Mapping[str, pa.DataType]) -> None:
    width = {name: table.schema.field(name).type.list_size for name in values}
    said = int(head["width"])
    if head["encoding"] == "bits":
        depth = int(json.loads(head["settings"]).get("bits", 1))
        _require(width["packed"] == -(-said * depth // 8), "its rows are not as wide as it says")
    elif head["encoding"] == "top-k":
        _require(1 <= width["values"] == width["chosen"] <= said, "its rows are not as wide as it says")
        chosen = table.column("chosen").combine_chunks().flatten().to_numpy()
        _require(not len(chosen) or 0 <= chosen.min() <= chosen.max() < said, "it chooses scores that there are not")
    else:
        main = "codes" if head["encoding"] == "int8" else "values"
        _require(width[main] == said and width.get("scale", 1) == 1, "its rows are not as wide as it says")


def _models(table: pa.Table) -> None:
    there = set(table.column_names)
    _require(set(_MODELS) <= there <= {*_MODELS, "labels"}, f"its columns are {', '.join(table.column_names)}")
    for name, kind in _MODELS.items():
        is_kind, column = table.schema.field(name).type, table.column(name)
        _require(is_kind == kind and column.null_count == 0, f"its column {name} is {is_kind}, or has nulls")
    sizes = [len(value.as_buffer()) for value in table.column("values")]
    before = None
    for row, size in zip(table.drop_columns(["values"]).to_pylist(), sizes, strict=True):
        shape, about = row["shape"], f"its tensor {row['name']}"
        _require(row["dtype"] in _NUMBERS, f"{about} holds {row['dtype']}")
        _require(all(one is not None and one >= 0 for one in shape), f"{about} has the shape {shape}")
        held = shape if row["part"] == "whole" else shape[:2]
        _require(size == prod(held) * _NUMBERS[row["dtype"]], f"{about} has {size} bytes for the shape {shape}")
        if row["part"] == "right":
            paired = before is not None and before["part"] == "left" and before["name"] == row["name"]
            _require(paired, f"{about} has a right factor without a left one")
        else:
            _require(row["part"] in ("whole", "left"), f"{about} has a part {row['part']!r}")
        before = row
