"""How entries lie in memory and on disk. This is the one place that knows the Arrow schemas of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa

from ..encoding import Columns, Plain, int8, restore
from .declaration import HELD, Declaration
from .errors import StoreError

VERSION = "1"

PROVENANCE = 8 + 8 + 4 + 4 + 1 + 1 + 8
"""Bytes of an entry besides its values and keys: id, class, contributor, round, form, encoding and weight."""


@dataclass(frozen=True)
class Block:
    """N entries as encoded; nobody changes them.

    ``ids`` int64 [N], ``classes`` int64 [N], ``owners`` int32 [N] (places among the store's contributors), ``rounds``
    int32 [N], ``weights`` float64 [N]; ``values`` and ``keys``: columns [N, width] by name, as an encoding makes them.
    """

    ids: np.ndarray
    classes: np.ndarray
    owners: np.ndarray
    rounds: np.ndarray
    weights: np.ndarray
    values: Columns
    keys: Columns

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, some: np.ndarray | slice) -> Block:
        """Return some of the entries: a mask, places or a slice."""
        return Block(
            self.ids[some],
            self.classes[some],
            self.owners[some],
            self.rounds[some],
            self.weights[some],
            {name: column[some] for name, column in self.values.items()},
            {name: column[some] for name, column in self.keys.items()},
        )

    def owned(self, places: np.ndarray) -> Block:
        """Return the entries with every owner replaced by ``places[owner]``."""
        return replace(self, owners=places[self.owners])


def joined(blocks: Sequence[Block]) -> Block:
    """Return the entries of one or more blocks, one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    plain = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in ("ids", "classes", "owners", "rounds", "weights")
    }
    first = blocks[0]
    values = {name: np.concatenate([block.values[name] for block in blocks]) for name in first.values}
    keys = {name: np.concatenate([block.keys[name] for block in blocks]) for name in first.keys}
    return Block(**plain, values=values, keys=keys)


@dataclass(frozen=True)
class Marks:
    """What changes about N entries; the arrays are written in place.

    ``alive`` bool; ``last_used`` int32, a round; ``hits`` int32, how often it was retrieved; ``confidence`` float32;
    ``strength`` float32, 1 when new, lowered by decay; ``sequence`` int64, its place among all that ever came;
    ``draws`` float64, what it drew for the reservoir, or 0.
    """

    alive: np.ndarray
    last_used: np.ndarray
    hits: np.ndarray
    confidence: np.ndarray
    strength: np.ndarray
    sequence: np.ndarray
    draws: np.ndarray

    def __len__(self) -> int:
        return len(self.alive)

    def part(self, some: np.ndarray | slice) -> Marks:
        """Return a copy of the marks of some entries: a mask, places or a slice."""
        return Marks(**{one.name: getattr(self, one.name)[some].copy() for one in fields(self)})


MARKS: Mapping[str, type] = {
    "alive": np.uint8,
    "last_used": np.int32,
    "hits": np.int32,
    "confidence": np.float32,
    "strength": np.float32,
    "sequence": np.int64,
    "draws": np.float64,
}
"""The columns of a marks file."""


def joined_marks(marks: Sequence[Marks]) -> Marks:
    """Return the marks of several runs of entries, one after the other; none for none."""
    columns: dict[str, np.ndarray] = {}
    for name, dtype in MARKS.items():
        none: np.ndarray = np.empty(0, np.bool_ if name == "alive" else dtype)
        columns[name] = np.concatenate([none, *(getattr(one, name) for one in marks)])
    return Marks(**columns)


@dataclass(frozen=True)
class Layout:
    """How the entries of one store are encoded: its declaration, and how many numbers values and keys have."""

    declaration: Declaration
    width: int
    key_width: int

    def encoded(self, values: np.ndarray, keys: np.ndarray | None) -> tuple[Columns, Columns]:
        """Return the columns of values [N, W] and of keys [N, K]."""
        encoding = self.declaration.encoding
        made = HELD[encoding.name].function(encoding.parameters, values)
        if keys is None:
            return made, {}
        return made, int8(Plain(), keys) if self.declaration.keys == "int8" else {"values": keys}

    def values(self, columns: Columns) -> np.ndarray:
        """Return float32 [N, W]."""
        encoding = self.declaration.encoding
        return restore(encoding.name, encoding.parameters, columns, self.width)

    def keys(self, columns: Columns) -> np.ndarray | None:
        """Return float32 [N, K], or None where entries have no keys."""
        return restore(self.declaration.keys, Plain(), columns, self.key_width) if columns else None

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry as encoded."""
        fields = self._numbers()
        numbers = sum(field.type.value_type.bit_width // 8 * field.type.list_size for field in fields)
        return PROVENANCE + int(numbers)

    def _numbers(self) -> list[pa.Field]:
        """Return the Arrow fields of value and key columns, as the encodings make them of a single row."""
        keys = np.zeros((1, self.key_width), np.float32) if self.declaration.keys != "none" else None
        values, held = self.encoded(np.zeros((1, self.width), np.float32), keys)
        named = {f"value.{name}": one for name, one in values.items()}
        named |= {f"key.{name}": one for name, one in held.items()}
        return [
            pa.field(name, pa.list_(pa.field("item", pa.from_numpy_dtype(one.dtype)), one.shape[1]))
            for name, one in named.items()
        ]

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of a segment."""
        text, short = pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.string())
        plain = [
            ("id", pa.int64()),
            ("class", pa.int64()),
            ("contributor", text),
            ("round", pa.int32()),
            ("form", short),
            ("encoding", short),
            ("weight", pa.float64()),
        ]
        encoding = self.declaration.encoding
        head = {
            "codistill.store": VERSION,
            "settings": encoding.parameters.model_dump_json(),
            "width": str(self.width),
            "key_width": str(self.key_width),
        }
        return pa.schema([pa.field(*one) for one in plain] + self._numbers(), metadata=head)


def segment_batch(block: Block, layout: Layout, contributors: Sequence[str]) -> pa.RecordBatch:
    """Return entries as the one record batch of a segment; numbers are not copied."""

    def constant(word: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(block), np.int8)), pa.array([word]))

    columns = [
        pa.array(block.ids),
        pa.array(block.classes),
        pa.DictionaryArray.from_arrays(pa.array(block.owners), pa.array(list(contributors), pa.string())),
        pa.array(block.rounds),
        constant(layout.declaration.holds),
        constant(layout.declaration.encoding.name),
        pa.array(block.weights),
    ]
    schema = layout.schema()
    numbers = {f"value.{name}": one for name, one in block.values.items()}
    numbers |= {f"key.{name}": one for name, one in block.keys.items()}
    for field in schema:
        if field.name in numbers:
            flat = pa.array(np.ascontiguousarray(numbers[field.name]).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def segment_block(batch: pa.RecordBatch, layout: Layout, contributors: Sequence[str]) -> Block:
    """Return the entries of a segment as views of its buffers.

    Raises ``StoreError``, to which the caller adds the file, where its schema or its words are not those of the store.
    """
    schema = layout.schema()
    if not batch.schema.equals(schema, check_metadata=True):
        raise StoreError(f"has the schema {_said(batch.schema)}; expected {_said(schema)}")
    if any(column.null_count for column in batch.columns):
        raise StoreError("has missing values, which a store never writes")
    encoding = layout.declaration.encoding.name
    for name, word in (("form", layout.declaration.holds), ("encoding", encoding)):
        if batch.column(name).dictionary.to_pylist() != [word]:
            raise StoreError(f"has the {name} {batch.column(name).dictionary.to_pylist()}; expected {word}")
    names = batch.column("contributor").dictionary.to_pylist()
    if names != list(contributors[: len(names)]):
        raise StoreError("has other contributors than its manifest")
    owners = batch.column("contributor").indices.to_numpy()
    if len(owners) and not (owners.min() >= 0 and owners.max() < len(names)):
        raise StoreError("has rows of contributors that it does not name")
    numbers: dict[str, Columns] = {"value": {}, "key": {}}
    for field in schema:
        group, _, name = field.name.partition(".")
        if name:
            flat = batch.column(field.name).flatten().to_numpy()
            numbers[group][name] = flat.reshape(batch.num_rows, field.type.list_size)
    return Block(
        batch.column("id").to_numpy(),
        batch.column("class").to_numpy(),
        owners,
        batch.column("round").to_numpy(),
        batch.column("weight").to_numpy(),
        numbers["value"],
        numbers["key"],
    )


def marks_schema() -> pa.Schema:
    """Return the Arrow schema of a marks file."""
    return pa.schema(
        [(name, pa.from_numpy_dtype(dtype)) for name, dtype in MARKS.items()], metadata={"codistill.marks": VERSION}
    )


def marks_batch(marks: Marks) -> pa.RecordBatch:
    """Return marks as the one record batch of a marks file."""
    columns = [pa.array(getattr(marks, name).astype(dtype, copy=False)) for name, dtype in MARKS.items()]
    return pa.RecordBatch.from_arrays(columns, schema=marks_schema())


def marks_of(batch: pa.RecordBatch) -> Marks:
    """Return the marks of a file, copied so that they can change; ``StoreError`` for another schema."""
    if not batch.schema.equals(marks_schema(), check_metadata=True):
        raise StoreError(f"has the schema {_said(batch.schema)}; expected {_said(marks_schema())}")
    columns = {name: batch.column(name).to_numpy().copy() for name in MARKS}
    return Marks(**columns | {"alive": columns["alive"].astype(np.bool_)})


def _said(schema: pa.Schema) -> str:
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    head = ", ".join(f"{key.decode()}={value.decode()}" for key, value in sorted((schema.metadata or {}).items()))
    return f"({columns}; {head})"
