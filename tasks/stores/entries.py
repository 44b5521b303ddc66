"""What goes into a store and what comes out of it, in plain float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import StoreError


@dataclass(frozen=True)
class Entries:
    """N entries with their provenance.

    ``ids`` int64 [N] (of samples, classes or entities), ``values`` float32 [N, W], ``classes`` int64 [N] (-1: not
    known), ``owners`` int64 [N]: who contributed each, as a place in ``contributors``; ``rounds`` int32 [N] in which
    each was made, ``weights`` float64 [N]: how much stands behind each, ``confidence`` float32 [N]: how sure its maker
    was, and ``keys`` float32 [N, K] that entries are found by, or None.
    """

    ids: np.ndarray
    values: np.ndarray
    classes: np.ndarray
    contributors: tuple[str, ...]
    owners: np.ndarray
    rounds: np.ndarray
    weights: np.ndarray
    confidence: np.ndarray
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def entries(
    ids: np.ndarray,
    values: np.ndarray,
    contributors: str | Sequence[str],
    round: int | np.ndarray,
    *,
    owners: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    keys: np.ndarray | None = None,
) -> Entries:
    """Return entries with what is not said filled in: no class, weight 1, confidence 1, all of the first contributor.

    Arguments are arrays or anything that ``numpy.asarray`` takes without a copy (torch tensors on a CPU). Raises
    ``StoreError`` where their lengths differ.
    """
    count = len(ids)
    names = (contributors,) if isinstance(contributors, str) else tuple(contributors)

    def column(given: object, default: float, dtype: type) -> np.ndarray:
        return np.full(count, default, dtype) if given is None else np.asarray(given).astype(dtype, copy=False)

    made = Entries(
        np.asarray(ids).astype(np.int64, copy=False),
        np.asarray(values).astype(np.float32, copy=False),
        column(classes, -1, np.int64),
        names,
        column(owners, 0, np.int64),
        np.broadcast_to(np.asarray(round, dtype=np.int32), (count,)),
        column(weights, 1, np.float64),
        column(confidence, 1, np.float32),
        None if keys is None else np.asarray(keys).astype(np.float32, copy=False),
    )
    check(made)
    return made


def nothing(contributors: tuple[str, ...], width: int, key_width: int) -> Entries:
    """Return no entries, of ``width`` values and, unless 0, keys of ``key_width`` numbers."""
    return Entries(
        np.empty(0, np.int64),
        np.empty((0, width), np.float32),
        np.empty(0, np.int64),
        contributors,
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.empty(0),
        np.empty(0, np.float32),
        np.empty((0, key_width), np.float32) if key_width else None,
    )


def check(given: Entries) -> None:
    """Raise ``StoreError`` where columns differ in length or an owner is no place in ``contributors``."""
    count = len(given.ids)
    for name in ("values", "classes", "owners", "rounds", "weights", "confidence", "keys"):
        column = getattr(given, name)
        wide = name in ("values", "keys")
        if column is not None and (column.ndim != 1 + wide or len(column) != count):
            raise StoreError(
                f"entries: {name} has shape {tuple(column.shape)}; expected [{count}{', width' * wide}], one row an id"
            )
    if count and not (given.owners.min() >= 0 and given.owners.max() < len(given.contributors)):
        raise StoreError(
            f"entries: owners reach from {given.owners.min()} to {given.owners.max()}; expected places among the "
            f"{len(given.contributors)} contributors"
        )


@dataclass(frozen=True)
class Stored:
    """What became of the entries of one ``put``.

    ``stored`` came in; ``replaced`` older entries gave them their place; ``evicted`` left to keep the capacity, and may
    be of those that just came; ``refused`` were not finite.
    """

    stored: int
    replaced: int
    evicted: int
    refused: int


@dataclass(frozen=True)
class Statistics:
    """What a store holds, and how it served since the statistics were last begun anew.

    ``bytes``: what is alive, as encoded; ``bytes_on_disk``: the files that the manifest refers to, and what spilled.
    ``hits`` and ``misses``: ids, or queries, for which something was found, or nothing. ``mean_age``: rounds since the
    entries retrieved were made, 0 where none was retrieved.
    """

    items: int
    bytes: int
    bytes_on_disk: int
    hits: int
    misses: int
    mean_age: float
    refused: int
    evicted: int
