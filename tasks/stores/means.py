"""The mean of neighbours that are known by their ids, for many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..late import late
from .columns import Layout
from .table import Table

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

SPARSE = 16
"""Ids that are apart by more than this, on average, are sorted and not looked up in a table of all between them."""


def distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct of one or more ``ids`` int64 [N], rising, and the place of each of the N among them."""
    low, high = int(ids.min()), int(ids.max())
    if high - low >= SPARSE * len(ids):
        found, places = np.unique(ids, return_inverse=True)
        return found, places
    table = np.zeros(high - low + 1, np.int64)
    table[ids - low] = 1
    found = np.flatnonzero(table)
    table[found] = np.arange(len(found))
    return found + low, table[ids - low]


def mean_of(table: Table, layout: Layout, ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Return means float32 [Q, W] over the living entries with ``ids`` int64 [Q, R], and their numbers int64 [Q].

    Also the rows that were found, and how often each was asked for. -1 stands for no id.
    """
    known, places = distinct(ids.reshape(-1))
    rows, which = table.find(known)
    rows, which = rows[known[which] >= 0], which[known[which] >= 0]
    # The last column counts: it is added up with the values.
    values = np.zeros((len(known), layout.width + 1), np.float32)
    if len(rows):
        # Rows come in the order of the ids that they answer.
        first = np.flatnonzero(np.diff(which, prepend=-1))
        block = table.gather(rows)
        values[which[first], :-1] = np.add.reduceat(layout.values(block.values), first, axis=0)
        values[which[first], -1] = np.diff(first, append=len(which))
    at = torch.from_numpy(places).view(*ids.shape)
    totals = torch.nn.functional.embedding_bag(at, torch.from_numpy(values), mode="sum")
    counts = totals[:, -1:]
    times = np.bincount(places, minlength=len(known))
    return totals[:, :-1] / counts.clamp(min=1), counts[:, 0].long(), rows, times[which]
