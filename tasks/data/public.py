"""The samples that everybody may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .dataset import DataError, Dataset, Ids
from .stratify import stratified

PUBLIC = ".public"
"""The column that says which samples everybody may see, where they come from another data set."""


def split_public(labels: Ids, share: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Return (public, private) positions in ``labels`` int64 [N], ascending, every class with its share in both.

    ``share`` of the samples, rounded, become public. Raises ``ValueError`` unless 0 < share < 1, or if one of
    the two sides would be empty.
    """
    total = round(share * len(labels))
    if not 0 < share < 1 or not 0 < total < len(labels):
        raise ValueError(
            f"a public share of {share} of {len(labels)} samples leaves {total} public and {len(labels) - total} "
            "private; both sides need at least one"
        )
    public = stratified(labels, total, generator)
    return public, np.setdiff1d(np.arange(len(labels), dtype=np.int64), public)


def require_alike(public: Dataset, labels: tuple[str, ...], shape: tuple[int, ...], whose: str) -> None:
    """Raise ``DataError`` unless public samples have the classes and the shape of private ones, which are ``whose``."""
    if public.labels != labels:
        raise DataError(
            f"{public.name}: its classes are {', '.join(public.labels)}, and those of {whose} are "
            f"{', '.join(labels)}; public samples are of the same classes"
        )
    if public.input_shape != shape:
        raise DataError(
            f"{public.name}: a sample has the shape {public.input_shape}, and one of {whose} "
            f"{shape}; public samples are of the same shape"
        )


def with_public(private: Dataset, public: Dataset) -> Dataset:
    """Return ``private`` with the training samples of ``public`` before its own, told apart by the column ``PUBLIC``.

    They come first so that whoever holds a copy of them knows each by the same id. Raises ``DataError`` where classes
    or shapes differ.
    """
    require_alike(public, private.labels, private.input_shape, private.name)
    count = len(public.y_train)
    columns = {
        name: np.concatenate([np.zeros(count, column.dtype), column]) for name, column in private.columns_train.items()
    }
    marked = np.arange(count + len(private.y_train)) < count
    return replace(
        private,
        x_train=np.concatenate([public.x_train, private.x_train]),
        y_train=np.concatenate([public.y_train, private.y_train]),
        columns_train=columns | {PUBLIC: marked},
        columns_test={**private.columns_test, PUBLIC: np.zeros(len(private.y_test), bool)},
    )
