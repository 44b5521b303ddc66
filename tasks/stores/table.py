"""The rows of a store: parts one after the other, those on disk first, and how a row is found by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .columns import Block, Marks, joined, joined_marks


@dataclass
class Part:
    """A run of rows: a mapped segment at ``path`` of ``size`` bytes, or rows in memory where ``path`` is None."""

    block: Block
    marks: Marks
    path: Path | None = None
    size: int = 0

    def __len__(self) -> int:
        return len(self.block)

    @property
    def living(self) -> int:
        """How many rows are alive."""
        return int(np.count_nonzero(self.marks.alive))

    @cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.block.ids, kind="stable")
        return order, self.block.ids[order]

    def find(self, ids: np.ndarray, owners: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of living rows with ``ids`` [M] (and ``owners`` [M]), and which of the M each answers."""
        order, ordered = self._by_id
        first = np.searchsorted(ordered, ids, "left")
        counts = np.searchsorted(ordered, ids, "right") - first
        which = np.repeat(np.arange(len(ids)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = order[first[which] + within]
        right = self.marks.alive[places]
        if owners is not None:
            right &= self.block.owners[places] == owners[which]
        return places[right], which[right]

    def fitting(self, older_than: int | None, owner: int | None, ids: np.ndarray | Sequence[int] | None) -> np.ndarray:
        """Return which rows fit all that is said: made before a round, by an owner, with one of ``ids``. bool [N]."""
        some = np.ones(len(self), dtype=bool)
        if older_than is not None:
            some &= self.block.rounds < older_than
        if owner is not None:
            some &= self.block.owners == owner
        if ids is not None:
            some &= np.isin(self.block.ids, np.asarray(ids, dtype=np.int64))
        return some


class Table:
    """Parts in the order in which their rows came. A row is a place in all of them; appending may renumber rows."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.contributors: list[str] = []

    @property
    def starts(self) -> np.ndarray:
        """The first row of each part, and the number of rows: int64 [parts + 1]."""
        return np.cumsum([0, *map(len, self.parts)], dtype=np.int64)

    @property
    def living(self) -> int:
        """How many rows are alive."""
        return sum(part.living for part in self.parts)

    def rows(self, where: Callable[[Part], np.ndarray] | None = None) -> np.ndarray:
        """Return the rows that are alive, int64, rising; ``where`` says of a part's rows which are wanted."""
        found = [np.empty(0, np.int64)]
        for start, part in zip(self.starts, self.parts, strict=False):
            wanted = part.marks.alive if where is None else part.marks.alive & where(part)
            found.append(start + np.flatnonzero(wanted))
        return np.concatenate(found)

    def column(self, take: Callable[[Part], np.ndarray]) -> np.ndarray:
        """Return what ``take`` picks of each part, [rows of the part], for all rows that are alive."""
        return np.concatenate([take(part)[part.marks.alive] for part in self.parts])

    def find(self, ids: np.ndarray, owners: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the living rows with ``ids`` [M] (and ``owners`` [M]), and which of the M each answers.

        Both int64; in the order of the M, and for each in the order in which rows came.
        """
        rows, which = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start, part in zip(self.starts, self.parts, strict=False):
            places, answered = part.find(ids, owners)
            rows.append(start + places)
            which.append(answered)
        found, answers = np.concatenate(rows), np.concatenate(which)
        order = np.lexsort((found, answers))
        return found[order], answers[order]

    def split(self, rows: np.ndarray) -> Iterator[tuple[Part, np.ndarray, np.ndarray]]:
        """Yield each part that has some of ``rows``, the places in it, and where among ``rows`` they stood."""
        starts = self.starts
        of = np.searchsorted(starts, rows, "right") - 1
        for number in np.flatnonzero(np.bincount(of)):
            where = np.flatnonzero(of == number)
            yield self.parts[number], rows[where] - starts[number], where

    def gather(self, rows: np.ndarray) -> Block:
        """Return copies of one or more rows, in their order."""
        found = list(self.split(rows))
        block = joined([part.block.part(places) for part, places, _ in found])
        order = np.concatenate([where for _, _, where in found])
        return block if (order[1:] > order[:-1]).all() else block.part(np.argsort(order))

    def confidence(self, rows: np.ndarray) -> np.ndarray:
        """Return how sure the makers of rows were, float32 [N]."""
        found = np.empty(len(rows), np.float32)
        for part, places, where in self.split(rows):
            found[where] = part.marks.confidence[places]
        return found

    def kill(self, rows: np.ndarray) -> None:
        """Let rows be dead: nothing finds them, and a later write leaves them out."""
        for part, places, _ in self.split(rows):
            part.marks.alive[places] = False

    def use(self, rows: np.ndarray, round: int, times: np.ndarray | None = None) -> int:
        """Mark rows as retrieved in ``round``, each so many ``times`` (or once for each time that it is named).

        Returns the sum of their ages over all times.
        """
        ages = 0
        often = np.ones(len(rows), np.int64) if times is None else times
        for part, places, where in self.split(rows):
            np.add.at(part.marks.hits, places, often[where].astype(np.int32))
            part.marks.last_used[places] = np.maximum(part.marks.last_used[places], round)
            ages += int(((round - part.block.rounds[places].astype(np.int64)) * often[where]).sum())
        return ages

    def place(self, contributor: str) -> int:
        """Return the place of a contributor, or -1 where it is not known."""
        return self.contributors.index(contributor) if contributor in self.contributors else -1

    def append(self, block: Block, marks: Marks) -> None:
        """Add rows, in memory. Runs in memory are joined as they grow, so that there are never many of them."""
        self.parts.append(Part(block, marks))
        while len(self.parts) > 1 and self.parts[-2].path is None and len(self.parts[-2]) <= len(self.parts[-1]):
            self._join(len(self.parts) - 2)

    def tidy(self) -> None:
        """Drop what is dead in memory, once it is more than what is alive there."""
        pending = self.pending
        if pending and sum(map(len, pending)) > 2 * sum(part.living for part in pending):
            self._join(len(self.parts) - len(pending))

    @property
    def pending(self) -> list[Part]:
        """The parts in memory."""
        return [part for part in self.parts if part.path is None]

    def _join(self, first: int) -> None:
        """Make one part of what is alive from part ``first`` on."""
        some = [part for part in self.parts[first:] if part.living]
        del self.parts[first:]
        if some:
            block = joined([part.block.part(part.marks.alive) for part in some])
            self.parts.append(Part(block, joined_marks([part.marks.part(part.marks.alive) for part in some])))
