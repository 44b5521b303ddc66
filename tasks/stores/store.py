"""A store: a bounded table of entries on disk that says of every row who contributed it, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..late import late
from . import search, summary
from .columns import Layout
from .contents import Contents, load, save
from .declaration import Declaration
from .entries import Entries, Statistics, Stored, check, nothing
from .errors import MissingError, StoreError
from .intake import draws, encoded, fresh, last_of_each, layout_for, make_room, places_of
from .means import mean_of
from .search import Found, Similarity
from .table import Part
from .writing import Names, spill, used_contributors

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

BOUND = 2**27
"""Bytes of entries that wait in memory before they spill, and that a segment holds at most."""


class Store:
    """Entries of one form, held as its declaration says. Equal calls give equal bytes on disk.

    What was put since the last write is in memory; beyond ``bound`` bytes it spills to segments in the folder
    ``spill``, which exists and is this store's alone (None: nothing spills). What lies in segments is mapped, never
    loaded. A write makes new files and then puts the manifest in place: a process killed at any moment leaves the store
    as it was before or after. (After a loss of power, what the file system kept.)
    """

    def __init__(self, contents: Contents, spill: Path | None, bound: int) -> None:
        self._held = contents
        self._table = contents.table
        self._spill = spill
        self._spilled = 0
        self._bound = bound

    @classmethod
    def create(cls, declaration: Declaration, name: str, *, spill: Path | None = None, bound: int = BOUND) -> Store:
        """Return an empty store; ``name`` is what messages call it."""
        return cls(Contents(declaration, name), spill, bound)

    @classmethod
    def open(cls, manifest: Path, *, spill: Path | None = None, bound: int = BOUND) -> Store:
        """Return the store of a manifest. Only marks are read; entries stay on disk until they are asked for.

        Raises ``StoreError`` where a file is missing, truncated, of an unknown version or of another schema.
        """
        return cls(load(manifest), spill, bound)

    def __len__(self) -> int:
        return self._table.living

    @property
    def declaration(self) -> Declaration:
        """How the store was declared."""
        return self._held.declaration

    @property
    def name(self) -> str:
        """What messages call the store."""
        return self._held.name

    def put(self, given: Entries, round: int, stream: np.random.Generator | None = None) -> Stored:
        """Take in entries, in their order, in ``round``, and let others leave where the store is full.

        Rows with a NaN or an infinity in values, keys, weight or confidence, or too large for the encoding, are
        refused. Where the declaration says ``replace``, an entry takes the place of that of the same id and
        contributor, and counts as new. Keys are dropped by a store that holds none; a reservoir alone draws from
        ``stream``. Raises ``StoreError`` where widths differ from what is held, or keys or the stream are missing.
        """
        check(given)
        if not len(given):
            return Stored(0, 0, 0, 0)
        if draws(self.declaration) and stream is None:
            raise StoreError(f"store {self.name!r}: a reservoir draws who stays; give put a stream")
        layout = self._held.layout = layout_for(given, self.declaration, self.name, self._held.layout)
        block, places = encoded(given, layout)
        block = block.owned(places_of(given.contributors, block.owners, self._table))
        taken, replaced = len(block), 0
        if self.declaration.replace:
            last = last_of_each(block)
            if len(last) < taken:
                block, places = block.part(last), places[last]
            older, _ = self._table.find(block.ids, block.owners)
            self._table.kill(older)
            replaced = taken - len(last) + len(older)
        counted = self._held.counted
        counted["sequence"] += taken
        if taken:
            drawn = stream.random(len(block)) if stream is not None and draws(self.declaration) else None
            marks = fresh(given.confidence[places], round, counted["sequence"] - len(block), drawn)
            self._table.append(block, marks)
        evicted, refused = make_room(self._table, layout), len(given) - taken
        counted["refused"] += refused
        counted["evicted"] += evicted
        self._table.tidy()
        self._spill_over(layout)
        return Stored(taken, replaced, evicted, refused)

    def get(
        self,
        ids: np.ndarray | Sequence[int],
        contributor: str | None = None,
        *,
        round: int | None = None,
        missing: Literal["raise", "skip"] = "raise",
    ) -> Entries:
        """Return the entries with ``ids`` (of one contributor, or of all), decoded.

        In the order of the ids, and within an id in the order in which entries came. ``round`` is now: entries are
        marked as used in it, and counted; None looks without a trace. Raises ``MissingError`` where ids are not there,
        which ``missing="skip"`` leaves out.
        """
        asked = np.asarray(ids, dtype=np.int64).reshape(-1)
        owners = None if contributor is None else np.full(len(asked), self._table.place(contributor), np.int32)
        rows, which = self._table.find(asked, owners)
        there = np.zeros(len(asked), dtype=bool)
        there[which] = True
        if round is not None:
            self._use(rows, round, int(np.count_nonzero(there)), int(np.count_nonzero(~there)))
        if missing == "raise" and not there.all():
            raise MissingError(self.name, list(dict.fromkeys(asked[~there].tolist())), contributor)
        return self.at(rows)

    def of_class(self, label: int, *, round: int | None = None) -> Entries:
        """Return the entries of a class in the order in which they came; ``round`` as in :meth:`get`."""
        rows = self._table.rows(lambda part: part.block.classes == label)
        if round is not None:
            self._use(rows, round, len(rows), int(not len(rows)))
        return self.at(rows)

    def all(self) -> Entries:
        """Return all entries in the order in which they came, without a trace. It may not fit in memory."""
        return self.at(self._table.rows())

    def at(self, rows: np.ndarray | torch.Tensor) -> Entries:
        """Return the entries at ``rows`` int64 [N], as :class:`Found` names them, until the store changes."""
        places = np.asarray(rows, dtype=np.int64)
        names = tuple(self._table.contributors)
        if not len(places) or self._held.layout is None:
            layout = self._held.layout
            return nothing(names, layout.width if layout else 0, layout.key_width if layout else 0)
        block = self._table.gather(places)
        return Entries(
            block.ids,
            np.ascontiguousarray(self._held.layout.values(block.values)),
            block.classes,
            names,
            block.owners.astype(np.int64),
            block.rounds,
            block.weights,
            self._table.confidence(places),
            self._held.layout.keys(block.keys),
        )

    def contributors(self) -> tuple[str, ...]:
        """Return who contributed what is held, by name."""
        return tuple(sorted(used_contributors(self._table)[0]))

    def count(self, contributor: str) -> int:
        """Return how many entries a contributor has."""
        place = self._table.place(contributor)
        return len(self._table.rows(lambda part: part.block.owners == place))

    def classes(self) -> tuple[int, ...]:
        """Return the classes of what is held, rising, without "not known"."""
        found = {int(label) for part in self._table.parts for label in np.unique(part.block.classes[part.marks.alive])}
        return tuple(sorted(found - {-1}))

    def nearest(
        self,
        queries: torch.Tensor | np.ndarray,
        k: int,
        similarity: Similarity = "cosine",
        *,
        round: int,
        not_mine: str | Sequence[str] | None = None,
        same_class: torch.Tensor | np.ndarray | None = None,
        max_age: int | None = None,
        scale: float = 1.0,
        temperature: float = 1.0,
    ) -> Found:
        """Return the k entries nearest to each of ``queries`` float32 [Q, K], by their keys, or else by their values.

        ``not_mine``: who asks, one name or one a query; what they contributed is left out. ``same_class`` int64 [Q]:
        only entries of that class. ``max_age``: only entries made in the last so many rounds before ``round``, which is
        now; entries found are marked as used in it and counted. Scores, masks and ties as in
        :func:`codistill.kernels.retrieve`. Raises ``StoreError`` where the queries have another width than the keys.
        """
        layout = self._held.layout
        search.check(self.name, queries, k, layout)
        asked = search.question(
            self._table, queries, k, similarity, scale, temperature, not_mine, same_class, max_age, round
        )
        found = search.nearest(self._table, layout or Layout(self.declaration, 0, 0), asked)
        there = found.rows >= 0
        hits = int(there.any(1).sum())
        self._use(found.rows[there].numpy(), round, hits, len(there) - hits)
        return found

    def mean_of(self, ids: torch.Tensor | np.ndarray, *, round: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean value over the entries with ``ids`` int64 [Q, R] of each of Q, and how many these are.

        float32 [Q, W], zero where there is none, and int64 [Q]. For neighbours that are known, such as those of
        FedCache (Wu et al. 2024): -1 is nobody, and ids that are not held are left out. ``round`` as in :meth:`get`.
        """
        asked, layout = np.asarray(ids, dtype=np.int64), self._held.layout
        if asked.ndim != 2:
            raise StoreError(f"store {self.name!r}: ids have shape {asked.shape}; expected [Q, R]")
        if layout is None or not asked.size:
            return torch.zeros(len(asked), layout.width if layout else 0), torch.zeros(len(asked), dtype=torch.int64)
        means, counts, rows, times = mean_of(self._table, layout, asked)
        hits = int((counts > 0).sum())
        self._use(rows, round, hits, len(asked) - hits, times)
        return means, counts

    def forget(
        self,
        *,
        older_than: int | None = None,
        contributor: str | None = None,
        ids: np.ndarray | Sequence[int] | None = None,
    ) -> int:
        """Forget what fits all that is said: made before round ``older_than``, by ``contributor``, with one of ``ids``.

        Nothing said: all. Returns how many entries went. What a contributor gave is not only dead: the next write
        leaves no file that holds it among :meth:`files`, nor its name.
        """
        place = None if contributor is None else self._table.place(contributor)
        self._held.purge |= place is not None and place >= 0
        return self._drop(lambda part: part.fitting(older_than, place, ids))

    def decay(self, factor: float, floor: float) -> int:
        """Multiply every entry's strength by ``factor``; forget what falls below ``floor`` and return how many did."""
        for part in self._table.parts:
            part.marks.strength[:] *= np.float32(factor)
        return self._drop(lambda part: part.marks.strength < floor)

    def class_means(self, by_contributor: bool = True) -> summary.Sums:
        """Return weighted sums by class and contributor, of which :func:`consolidated` makes the means of classes."""
        return summary.class_sums(self._table, self._held.layout or Layout(self.declaration, 0, 0), by_contributor)

    @property
    def statistics(self) -> Statistics:
        """What is held, and how the store served since :meth:`begin_statistics`."""
        return self._held.statistics()

    def begin_statistics(self) -> None:
        """Count hits, misses, ages, refusals and evictions anew, as at the start of a round."""
        self._held.counted |= dict.fromkeys(("hits", "misses", "retrieved", "ages", "refused", "evicted"), 0)

    def write(self, folder: Path, stem: str) -> Path:
        """Write what changed to new files in ``folder``, which exists, and then the manifest ``<stem>.json``.

        Returns the manifest's path. Files of earlier writes are neither changed nor deleted: :meth:`files` says which
        are still needed, wherever they lie. Compacts where more than half of the rows on disk are dead.
        """
        return save(self._held, folder, stem, self._bound)

    def files(self) -> set[Path]:
        """Return the files that the manifest last written or opened refers to, and itself."""
        return set(self._held.files)

    def _drop(self, which: Callable[[Part], np.ndarray]) -> int:
        rows = self._table.rows(which)
        self._table.kill(rows)
        self._table.tidy()
        return len(rows)

    def _spill_over(self, layout: Layout) -> None:
        if self._spill is not None:
            names = Names(self._spill.resolve(), f"{self.name}.spill", self._spilled)
            spill(self._table, layout, names, self._bound)
            self._spilled = names.next

    def _use(self, rows: np.ndarray, round: int, hits: int, misses: int, times: np.ndarray | None = None) -> None:
        counted = self._held.counted
        counted["hits"] += hits
        counted["misses"] += misses
        counted["retrieved"] += len(rows) if times is None else int(times.sum())
        counted["ages"] += self._table.use(rows, round, times)
