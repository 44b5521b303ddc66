"""A smaller data set out of a larger one, for short runs."""

from __future__ import annotations

import numpy as np

from .dataset import Dataset
from .stratify import stratified


def take(dataset: Dataset, train: int | None, test: int | None, generator: np.random.Generator) -> Dataset:
    """Return ``train`` and ``test`` samples of ``dataset``, every class with its share; None takes all.

    The samples keep their order, and their ids are their new positions. Raises ``ValueError`` if a number is
    below 1 or above what is there.
    """
    ids = None if train is None else stratified(dataset.y_train, train, generator)
    test_ids = None if test is None else stratified(dataset.y_test, test, generator)
    return dataset.part(ids, test_ids)
