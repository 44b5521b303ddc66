"""Which columns are summed into which row: the one thing that all messages of a graph come down to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Incidence:
    """A sparse matrix of ones, [rows, ``column_count``], whose rows may be scaled.

    The entries of row i are ``pointers[i]`` to ``pointers[i + 1]`` of ``columns`` int64 [n], ``pointers`` being int64
    [rows + 1]. A column may stand more than once in a row, and then counts as often. ``scale`` float64 [rows]
    multiplies the sums of each row: one over its entries makes them means.
    """

    pointers: Tensor
    columns: Tensor
    column_count: int
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pointers) - 1

    def counts(self) -> Tensor:
        """Return how many entries each row has, int64 [rows]."""
        return self.pointers.diff()
