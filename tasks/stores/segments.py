"""Files of a store: written whole under another name and put in place, and read as maps of memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from .columns import Block, Layout, Marks, marks_batch, marks_of, segment_batch, segment_block
from .errors import StoreError

T = TypeVar("T")

BROKEN = "restore it from where the store was copied from, or go back to an older round"


def write_segment(path: Path, block: Block, layout: Layout, contributors: Sequence[str]) -> None:
    """Write entries to a new segment at ``path``; a file of that name is left to who has it mapped."""
    _write(path, segment_batch(block, layout, contributors))


def read_segment(path: Path, layout: Layout, contributors: Sequence[str], rows: int, size: int) -> Block:
    """Return the entries of a segment as views of the mapped file.

    Raises ``StoreError`` where the file is missing, truncated or no segment of such a store.
    """
    return _read(path, rows, size, lambda batch: segment_block(batch, layout, contributors))


def write_marks(path: Path, marks: Marks) -> None:
    """Write the marks of all entries to a new file at ``path``."""
    _write(path, marks_batch(marks))


def read_marks(path: Path, rows: int, size: int) -> Marks:
    """Return the marks in a file. Raises ``StoreError`` as :func:`read_segment` does."""
    return _read(path, rows, size, marks_of)


def put_in_place(path: Path, content: bytes) -> None:
    """Write a small file at once: who reads ``path`` finds the old content or the new."""
    temporary = _temporary(path)
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _write(path: Path, batch: pa.RecordBatch) -> None:
    temporary = _temporary(path)
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    os.replace(temporary, path)


def _read(path: Path, rows: int, size: int, take: Callable[[pa.RecordBatch], T]) -> T:
    if not path.is_file():
        raise StoreError(f"{path}: a store's manifest names this file, and it is missing; {BROKEN}")
    there = path.stat().st_size
    if there != size:
        raise StoreError(f"{path}: has {there} bytes and its manifest says {size}: truncated, or another; {BROKEN}")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = reader.num_record_batches
        batch = reader.get_batch(0) if batches == 1 else None
        if batch is not None:
            batch.validate()
    except (pa.ArrowException, OSError) as problem:
        raise StoreError(f"{path}: is no Arrow file that can be read ({problem}); {BROKEN}") from None
    if batch is None or batch.num_rows != rows:
        found = f"{batches} batches" if batch is None else f"{batch.num_rows} rows"
        raise StoreError(f"{path}: has {found} and its manifest says one batch of {rows} rows; {BROKEN}")
    try:
        return take(batch)
    except StoreError as problem:
        raise StoreError(f"{path}: {problem}; {BROKEN}") from None
