"""Who leaves a full store. A rule is a function from what is held and how many must leave to the places that leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..encoding import Plain
from ..registry import Registry


@dataclass(frozen=True)
class Held:
    """What a rule sees of N entries, in the order in which they came; every column is [N].

    ``features(places)`` gives float32 [n, D] of the entries at ``places`` int64 [n]: their keys, or else their values.
    """

    rounds: np.ndarray
    last_used: np.ndarray
    confidence: np.ndarray
    draws: np.ndarray
    classes: np.ndarray
    features: Callable[[np.ndarray], np.ndarray]


Evict = Callable[[Any, Held, int], np.ndarray]

EVICTIONS: Registry[Evict] = Registry("evictions")

DRAWING = ("reservoir",)
"""Rules for which every entry draws a number when it comes."""


@EVICTIONS.register("fifo", Plain)
def fifo(parameters: Plain, held: Held, leaving: int) -> np.ndarray:
    """First in, first out."""
    return np.arange(leaving)


@EVICTIONS.register("lru", Plain)
def lru(parameters: Plain, held: Held, leaving: int) -> np.ndarray:
    """What was not used for the most rounds leaves; of those, what came first."""
    return _lowest(held.last_used, leaving)


@EVICTIONS.register("reservoir", Plain)
def reservoir(parameters: Plain, held: Held, leaving: int) -> np.ndarray:
    """What stays is a uniform sample of all that ever came.

    Every entry draws a number in [0, 1) when it comes, and the lowest leave: the sample of Vitter 1985 (algorithm R),
    by the keys of Efraimidis and Spirakis 2006 with equal weights.
    """
    return _lowest(held.draws, leaving)


@EVICTIONS.register("oldest", Plain)
def oldest(parameters: Plain, held: Held, leaving: int) -> np.ndarray:
    """What was made in the earliest round leaves; of those, what came first."""
    return _lowest(held.rounds, leaving)


@EVICTIONS.register("lowest-confidence", Plain)
def lowest_confidence(parameters: Plain, held: Held, leaving: int) -> np.ndarray:
    """What its maker was least sure of leaves; of those, what came first."""
    return _lowest(held.confidence, leaving)


@EVICTIONS.register("herding", Plain)
def herding(parameters: Plain, held: Held, leaving: int) -> np.ndarray:
    """Each class keeps the entries whose running mean stays nearest to the mean of the class.

    Rebuffi et al. 2017 (iCaRL), algorithm 4: entry k of a class is that which brings the mean of the first k nearest to
    the mean of all that the class holds. Classes keep equally many; a class that has fewer keeps all it has, and what
    does not divide goes to the lower classes. Entries without a class are a class of their own.
    """
    labels, inverse = np.unique(held.classes, return_inverse=True)
    quotas = shares(np.bincount(inverse, minlength=len(labels)), len(inverse) - leaving)
    stays = np.zeros(len(inverse), dtype=bool)
    for label, quota in enumerate(quotas):
        members = np.flatnonzero(inverse == label)
        if quota == len(members):
            stays[members] = True
        elif quota:
            stays[members[herd(held.features(members), int(quota))]] = True
    return np.flatnonzero(~stays)


def shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Return how many of ``counts`` int64 [C] each class keeps, ``total`` in all and as equally as can be."""
    kept = np.zeros_like(counts)
    while total > 0:
        open_ = np.flatnonzero(kept < counts)
        each = max(total // len(open_), 1)
        some = open_[:total]
        more = np.minimum(counts[some] - kept[some], each)
        kept[some] += more
        total -= int(more.sum())
    return kept


def herd(features: np.ndarray, count: int) -> np.ndarray:
    """Return places of ``count`` of ``features`` [N, D] in the order of iCaRL's algorithm 4; ties go to the first.

    A tie is what differs by less than rounding may: two entries are always equally far from the mean of both.
    """
    features = features.astype(np.float64)
    mean, total = features.mean(axis=0), np.zeros(features.shape[1])
    squares = np.einsum("nd,nd->n", features, features)
    free, chosen = np.ones(len(features), dtype=bool), np.empty(count, dtype=np.int64)
    rounding = 1e-12 * count * float(squares.max())
    for k in range(count):
        # |mean - (total + x) / (k + 1)|^2 but for what is the same for all x, times (k + 1)^2.
        # einsum adds each row alone: a product by BLAS would round by its threads and by a row's place.
        apart = squares - 2 * np.einsum("nd,d->n", features, (k + 1) * mean - total)
        left = np.where(free, apart, np.inf)
        best = int((left <= left.min() + rounding).argmax())
        chosen[k], free[best] = best, False
        total += features[best]
    return chosen


def _lowest(values: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(values, kind="stable")[:count]
