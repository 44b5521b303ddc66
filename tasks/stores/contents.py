"""All that a store is, and how it comes from files and goes to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .columns import Layout, joined_marks
from .declaration import Declaration
from .entries import Statistics
from .errors import StoreError
from .manifest import Counters, File, Manifest, relative
from .segments import BROKEN, read_marks, read_segment, write_marks
from .table import Part, Table
from .writing import Names, move, rewritten_from, segments_of, used_contributors


@dataclass
class Contents:
    """What one store holds. ``layout`` is None until entries came; ``counted`` as in :class:`Counters`.

    ``files``: what the manifest last written or read refers to, and itself, with sizes in bytes. ``purge``: whether the
    next write leaves no dead row in any file.
    """

    declaration: Declaration
    name: str
    table: Table = field(default_factory=Table)
    layout: Layout | None = None
    counted: dict[str, int] = field(default_factory=lambda: Counters().model_dump())
    files: dict[Path, int] = field(default_factory=dict)
    purge: bool = False

    def remember(self, manifest: Path, marks: Path) -> None:
        """Note which files are the store."""
        segments = {part.path: part.size for part in self.table.parts if part.path is not None}
        self.files = {manifest: manifest.stat().st_size, marks: marks.stat().st_size, **segments}

    def statistics(self) -> Statistics:
        """Return what is held, and what was counted."""
        counted, items = self.counted, self.table.living
        on_disk = {part.path: part.size for part in self.table.parts if part.path is not None} | self.files
        return Statistics(
            items,
            items * (self.layout.row_bytes if self.layout else 0),
            sum(on_disk.values()),
            counted["hits"],
            counted["misses"],
            counted["ages"] / counted["retrieved"] if counted["retrieved"] else 0.0,
            counted["refused"],
            counted["evicted"],
        )


def load(path: Path) -> Contents:
    """Return what a manifest refers to; ``StoreError`` where a file is missing, broken or of another store."""
    said = Manifest.read(path)
    contents = Contents(said.declaration, said.name, counted=said.counters.model_dump())
    contents.table.contributors = list(said.contributors)
    marks_path = (path.parent / said.marks.path).resolve()
    marks = read_marks(marks_path, said.marks.rows, said.marks.bytes)
    if sum(one.rows for one in said.segments) != len(marks) or (said.segments and not said.width):
        raise StoreError(f"{path}: its segments have other rows than its marks; {BROKEN}")
    if said.width:
        contents.layout = Layout(said.declaration, said.width, said.key_width)
        first = 0
        for one in said.segments:
            where = (path.parent / one.path).resolve()
            block = read_segment(where, contents.layout, said.contributors, one.rows, one.bytes)
            part = Part(block, marks.part(slice(first, first + one.rows)), where, one.bytes)
            contents.table.parts.append(part)
            first += one.rows
    contents.remember(path.resolve(), marks_path)
    return contents


def save(contents: Contents, folder: Path, stem: str, most_bytes: int) -> Path:
    """Write what changed to new files of at most ``most_bytes`` and then put the manifest in place; return its path.

    Where it fails, ``contents`` are as they were, but for the numbers of files and where spilled segments lie.
    """
    folder, path = folder.resolve(), folder.resolve() / f"{stem}.json"
    names = Names(folder, stem, contents.counted["files"])
    try:
        parts, contributors, spilled = _on_disk(contents, names, most_bytes)
        marks_path = names.new(".marks")
    finally:
        # A number is never given twice: a spilled segment may have it by now.
        contents.counted["files"] = names.next
    marks = joined_marks([part.marks for part in parts])
    write_marks(marks_path, marks)
    layout = contents.layout
    Manifest(
        version=1,
        name=contents.name,
        declaration=contents.declaration,
        width=layout.width if layout else 0,
        key_width=layout.key_width if layout else 0,
        contributors=tuple(contributors),
        segments=tuple(_file(part.path, folder, len(part)) for part in parts if part.path is not None),
        marks=_file(marks_path, folder, len(marks)),
        counters=Counters(**contents.counted),
    ).write(path)
    contents.table.parts, contents.table.contributors = parts, contributors
    contents.purge = False
    contents.remember(path, marks_path)
    for one in spilled:
        one.unlink()
    return path


def _on_disk(contents: Contents, names: Names, most_bytes: int) -> tuple[list[Part], list[str], list[Path]]:
    """Return the parts of the store, all on disk, its contributors, and spilled files that are no longer needed."""
    table, layout = contents.table, contents.layout
    if layout is None:
        return [], [], []
    first = 0 if contents.purge else rewritten_from(table.parts, layout.row_bytes, most_bytes)
    kept, rest = table.parts[:first], table.parts[first:]
    contributors, places = (table.contributors, None) if first else used_contributors(table)
    made = segments_of(rest, contributors, layout, names, most_bytes, places)
    for part in kept:
        if part.path not in contents.files:
            move(part, names.new())
    spilled = [part.path for part in rest if part.path is not None and part.path not in contents.files]
    return [*kept, *made], contributors, spilled


def _file(path: Path, folder: Path, rows: int) -> File:
    return File(path=relative(path, folder), rows=rows, bytes=path.stat().st_size)
