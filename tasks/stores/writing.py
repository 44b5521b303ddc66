"""Which rows of a store go to new files at a write, and how they get there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .columns import Block, Layout, Marks, joined, joined_marks
from .segments import read_segment, write_segment
from .table import Part, Table


def rewritten_from(parts: Sequence[Part], row_bytes: int, most_bytes: int) -> int:
    """Return the first part that a write makes anew; those in memory always are, and they come last.

    All of them where more than half of the rows on disk are dead. Else segments are joined with what follows while they
    are no larger and fit one file, so that their number grows as the logarithm of the rows and each row is seldom
    written again (O'Neil et al. 1996, log-structured merge trees).
    """
    first = sum(part.path is not None for part in parts)
    on_disk = parts[:first]
    if sum(part.living for part in on_disk) * 2 < sum(map(len, on_disk)):
        return 0
    size = sum(part.living for part in parts[first:])
    while size and first and parts[first - 1].living <= size:
        if (size + parts[first - 1].living) * row_bytes > most_bytes:
            break
        first -= 1
        size += parts[first].living
    return first


def used_contributors(table: Table) -> tuple[list[str], np.ndarray]:
    """Return the contributors that living rows name, in their order, and the new place of each old one (int32)."""
    used = np.zeros(len(table.contributors), dtype=bool)
    for part in table.parts:
        used[np.unique(part.block.owners[part.marks.alive])] = True
    return [name for name, stays in zip(table.contributors, used, strict=True) if stays], (
        np.cumsum(used, dtype=np.int32) - 1
    ).astype(np.int32)


def runs(parts: Sequence[Part], most_rows: int) -> Iterator[tuple[Block, Marks]]:
    """Yield what is alive in ``parts``, in order, in runs of ``most_rows`` rows, of which the last may be shorter."""
    blocks: list[Block] = []
    marks: list[Marks] = []
    room = most_rows
    for part in parts:
        places = np.flatnonzero(part.marks.alive)
        while len(places):
            some, places = places[:room], places[room:]
            # What lies side by side is a view: rows go from the map of one file to the next without a stop.
            beside = some[-1] - some[0] + 1 == len(some)
            blocks.append(part.block.part(slice(some[0], some[-1] + 1) if beside else some))
            marks.append(part.marks.part(some))
            room -= len(some)
            if not room:
                yield joined(blocks), joined_marks(marks)
                blocks, marks, room = [], [], most_rows
    if blocks:
        yield joined(blocks), joined_marks(marks)


@dataclass
class Names:
    """Names of new files, ``<stem>.<n>.arrow`` in ``folder``: n rises over the life of a store."""

    folder: Path
    stem: str
    next: int

    def new(self, word: str = "") -> Path:
        """Return the path of the next file."""
        self.next += 1
        return self.folder / f"{self.stem}.{self.next - 1}{word}.arrow"


def segments_of(
    parts: Sequence[Part],
    contributors: Sequence[str],
    layout: Layout,
    names: Names,
    most_bytes: int,
    places: np.ndarray | None = None,
) -> list[Part]:
    """Write what is alive in ``parts`` to segments of at most ``most_bytes`` and return these, mapped.

    ``places``: the new places of contributors, where they changed.
    """
    made = []
    for block, marks in runs(parts, max(1, most_bytes // layout.row_bytes)):
        path = names.new()
        write_segment(path, block if places is None else block.owned(places), layout, contributors)
        size = path.stat().st_size
        made.append(Part(read_segment(path, layout, contributors, len(block), size), marks, path, size))
    return made


def spill(table: Table, layout: Layout, names: Names, bound: int) -> None:
    """Write what waits in memory to segments where it is ``bound`` bytes or more."""
    pending = table.pending
    if sum(map(len, pending)) * layout.row_bytes < bound:
        return
    made = segments_of(pending, table.contributors, layout, names, bound)
    del table.parts[len(table.parts) - len(pending) :]
    table.parts += made


def move(part: Part, path: Path) -> None:
    """Give a segment another place; its map stays as it is."""
    assert part.path is not None
    try:
        os.replace(part.path, path)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        temporary = path.with_name(path.name + ".part")
        shutil.copyfile(part.path, temporary)
        os.replace(temporary, path)
        os.unlink(part.path)
    part.path = path
