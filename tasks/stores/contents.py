"""All that a store is, and how it comes from files and goes to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .columns import Layout, joined_marks
from .declaration import Declaration
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
    """Write what changed to new files of at most ``most_bytes`` and then put the manifest in place; return its path."""
    folder = folder.resolve()
    table, layout = contents.table, contents.layout
    names = Names(folder, stem, contents.counted["files"])
    if layout is not None:
        first = 0 if contents.purge else rewritten_from(table.parts, layout.row_bytes, most_bytes)
        kept, rest = table.parts[:first], table.parts[first:]
        contributors, places = used_contributors(table) if not first else (table.contributors, None)
        made = segments_of(rest, contributors, layout, names, most_bytes, places)
        spilled = [part.path for part in rest if part.path is not None and part.path not in contents.files]
        for part in kept:
            if part.path not in contents.files:
                move(part, names.new())
        table.parts, table.contributors = [*kept, *made], contributors
    else:
        spilled = []
    marks_path = names.new(".marks")
    write_marks(marks_path, joined_marks([part.marks for part in table.parts]))
    contents.counted["files"] = names.next
    path = folder / f"{stem}.json"
    _manifest(contents, folder, marks_path).write(path)
    contents.purge = False
    contents.remember(path, marks_path)
    for one in spilled:
        one.unlink()
    return path


def _manifest(contents: Contents, folder: Path, marks: Path) -> Manifest:
    parts, layout = contents.table.parts, contents.layout
    segments = [
        File(path=relative(part.path, folder), rows=len(part), bytes=part.size)
        for part in parts
        if part.path is not None
    ]
    return Manifest(
        version=1,
        name=contents.name,
        declaration=contents.declaration,
        width=layout.width if layout else 0,
        key_width=layout.key_width if layout else 0,
        contributors=tuple(contents.table.contributors),
        segments=tuple(segments),
        marks=File(path=relative(marks, folder), rows=sum(map(len, parts)), bytes=marks.stat().st_size),
        counters=Counters(**contents.counted),
    )
