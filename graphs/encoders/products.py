"""What an encoder may do with an :class:`Incidence`, whoever does it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from torch import Tensor

from .incidence import Incidence


class Product(Protocol):
    """Sums over the n entries of an incidence [rows, columns], all differentiable. ``heads`` is H, F is any width."""

    def sum(self, values: Tensor) -> Tensor:
        """Return, for ``values`` [columns, F], the scaled sums [rows, F] of the columns of each row (SpMM)."""

    def weighted_sum(self, values: Tensor, weights: Tensor) -> Tensor:
        """Return, for ``values`` [columns, H, F], sums [rows, H, F] weighted by entry, ``weights`` [n, H] (SpMM).

        The incidence's own scale is left out.
        """

    def add(self, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        """Return of_rows[row] + of_columns[column] for each entry, [n, H]; given [rows, H] and [columns, H] (SDDMM)."""

    def softmax(self, scores: Tensor) -> Tensor:
        """Return the softmax of ``scores`` [n, H] over the entries of each row (edge softmax)."""

    def sum_of_entries(self, weights: Tensor) -> Tensor:
        """Return the sums [rows, H] of ``weights`` [n, H] over the entries of each row."""


_MODULES = {"torch": ".torch_product", "dgl": ".dgl_product"}
BACKENDS = tuple(_MODULES)
"""Who may do it: ``torch`` on any device, ``dgl`` on a CPU."""


def product_of(backend: str) -> Callable[[Incidence], Product]:
    """Return what makes an incidence ready for ``backend``; raises ``ValueError`` for one that does not exist."""
    if backend not in _MODULES:
        raise ValueError(f"there is no back end {backend!r} for encoders; expected one of {', '.join(BACKENDS)}")
    made: Callable[[Incidence], Product] = import_module(_MODULES[backend], __package__).product
    return made
