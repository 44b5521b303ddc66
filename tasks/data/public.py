"""The samples that everybody may see."""

from __future__ import annotations

import numpy as np

from .dataset import Ids
from .stratify import stratified


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
