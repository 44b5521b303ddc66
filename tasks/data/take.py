"""A smaller data set out of a larger one, for short runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .dataset import Dataset
from .stratify import stratified


def take(dataset: Dataset, train: int | None, test: int | None, generator: np.random.Generator) -> Dataset:
    """Return ``train`` and ``test`` samples of ``dataset``, every class with its share; None takes all.

    The samples keep their order, and their ids are their new positions. Raises ``ValueError`` if a number is
    below 1 or above what is there.
    """
    if train is not None:
        ids = stratified(dataset.y_train, train, generator)
        columns = {name: column[ids] for name, column in dataset.columns_train.items()}
        dataset = replace(dataset, x_train=dataset.x_train[ids], y_train=dataset.y_train[ids], columns_train=columns)
    if test is not None:
        ids = stratified(dataset.y_test, test, generator)
        columns = {name: column[ids] for name, column in dataset.columns_test.items()}
        dataset = replace(dataset, x_test=dataset.x_test[ids], y_test=dataset.y_test[ids], columns_test=columns)
    return dataset
