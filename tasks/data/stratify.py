"""Cutting whole numbers in proportion, and drawing samples so that every class keeps its share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .dataset import Ids

SPLIT_SEED = 42


def apportion(weights: npt.NDArray[np.float64] | Ids, total: int) -> Ids:
    """Return whole numbers [K] that sum to ``total``, proportional to ``weights`` [K] by largest remainder.

    Ties go to the earlier position. Raises ``ValueError`` if no weight is above 0.
    """
    share = np.asarray(weights, dtype=np.float64)
    if share.sum() <= 0 or share.min() < 0:
        raise ValueError(f"weights must be 0 or more with one above 0, not {share.tolist()}")
    exact = share / share.sum() * total
    counts: Ids = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[:rest]] += 1
    return counts


def class_counts(sizes: Ids, total: int) -> Ids:
    """Return how many of each class to take: in proportion, at most what is there, and one of each if possible."""
    counts = np.minimum(apportion(sizes, total), sizes)
    present = sizes > 0
    if total >= int(present.sum()):
        for label in np.flatnonzero(present & (counts == 0)):
            counts[label] = 1
        while counts.sum() > total:
            counts[np.argmax(counts)] -= 1
    while counts.sum() < total:
        counts[np.argmax(sizes - counts)] += 1
    return counts


def stratified(labels: Ids, total: int, generator: np.random.Generator) -> Ids:
    """Return ``total`` positions in ``labels`` [N], ascending, drawn so that each class keeps its share.

    Raises ``ValueError`` if ``total`` is below 1 or above N.
    """
    if not 1 <= total <= len(labels):
        raise ValueError(f"{total} samples were asked for, and there are {len(labels)}")
    counts = class_counts(np.bincount(labels).astype(np.int64), total)
    drawn = [generator.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(counts)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def split_test(labels: Ids, share: float) -> tuple[Ids, Ids]:
    """Return (train, test) positions in ``labels`` [N], ascending: always the same stratified cut of a source."""
    total = min(max(1, round(share * len(labels))), len(labels) - 1)
    test = stratified(labels, total, np.random.default_rng(SPLIT_SEED))
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), test), test
