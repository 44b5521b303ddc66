"""Episodes become meaning: sums by class and contributor, from which a contributor can be taken out exactly."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .columns import Layout
from .table import Table

DECODED = 2**20
"""Numbers that are decoded at a time."""


@dataclass(frozen=True)
class Sums:
    """G sums, each over the entries of one class and one contributor, or of one class.

    ``classes`` int64 [G]; ``contributors``, and ``owners`` int64 [G]: whose each sum is, as a place among them, or -1
    where it is everybody's; ``values`` float64 [G, W]: sums of weight * value; ``weights`` float64 [G]: theirs.
    Classes rise, and within a class contributors by their names.
    """

    classes: np.ndarray
    contributors: tuple[str, ...]
    owners: np.ndarray
    values: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class ClassMeans:
    """``classes`` int64 [C] rising, ``values`` float32 [C, W], ``weights`` float64 [C]: what stands behind each."""

    classes: np.ndarray
    values: np.ndarray
    weights: np.ndarray


def class_sums(table: Table, layout: Layout, by_contributor: bool) -> Sums:
    """Return the sums over living entries that have a class.

    Each sum adds its entries one by one in the order in which they came, so that neither the entries of others nor how
    rows are cut into files changes a bit of it.
    """
    names = sorted(table.contributors) if by_contributor else []
    ranks = np.array([names.index(name) if by_contributor else 0 for name in table.contributors], dtype=np.int64)
    many = max(len(names), 1)
    rows = table.rows()
    step = max(1, DECODED // max(layout.width, 1))
    classes = table.column(lambda part: part.block.classes) if table.parts else rows
    owners = table.column(lambda part: part.block.owners) if table.parts else rows
    groups = np.where(classes < 0, -1, classes * many + ranks[owners])
    rows, groups = rows[groups >= 0], groups[groups >= 0]
    distinct, at = np.unique(groups, return_inverse=True)
    values, weights = np.zeros((len(distinct), layout.width)), np.zeros(len(distinct))
    for first in range(0, len(rows), step):
        block = table.gather(rows[first : first + step])
        np.add.at(values, at[first : first + step], layout.values(block.values) * block.weights[:, None])
        np.add.at(weights, at[first : first + step], block.weights)
    whose = distinct % many if by_contributor else np.full(len(distinct), -1)
    return Sums(distinct // many, tuple(names), whose, values, weights)


def consolidated(sums: Sums, without: Collection[str] = ()) -> ClassMeans:
    """Return the mean of each class over all contributors but those of ``without``, weighted.

    Sums are added by the names of contributors, so that the means without one are to the bit those of a store to which
    it never contributed. Classes with nothing behind them are left out. Raises ``ValueError`` where contributors are to
    be left out of sums that are everybody's.
    """
    if without and (sums.owners < 0).any():
        raise ValueError("consolidated: sums over all contributors cannot leave one out; ask for sums by contributor")
    out = [place for place, name in enumerate(sums.contributors) if name in without]
    stays = ~np.isin(sums.owners, out)
    classes, at = np.unique(sums.classes[stays], return_inverse=True)
    values, weights = np.zeros((len(classes), sums.values.shape[1])), np.zeros(len(classes))
    np.add.at(values, at, sums.values[stays])
    np.add.at(weights, at, sums.weights[stays])
    some = weights > 0
    means = (values[some] / weights[some, None]).astype(np.float32)
    return ClassMeans(classes[some], means, weights[some])
