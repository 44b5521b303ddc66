"""What the back ends of :func:`codistill.kernels.retrieve` are given: who asks, what is remembered, and how to look."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

SIMILARITIES = ("dot", "cosine", "l2")

SMALLEST_NORM = 1e-12
"""Vectors shorter than this are divided by this and not by their length, as in ``torch.nn.functional.normalize``."""


MOST_MEMORIES = 2**31 - 2**12
"""Memories of a bank: their indices are int32 inside, and a tile may reach beyond the bank."""


@dataclass(frozen=True)
class Settings:
    """The settings of a retrieval, which :func:`codistill.kernels.retrieve` explains."""

    k: int
    similarity: str
    scale: float
    temperature: float


def _line(vector: torch.Tensor | None) -> torch.Tensor | None:
    return None if vector is None else vector.contiguous()


@dataclass(frozen=True)
class Queries:
    """Q queries: ``rows`` [Q, D] of floats; ``owner`` and ``class_`` are int [Q], or None where nothing is masked."""

    rows: torch.Tensor
    owner: torch.Tensor | None = None
    class_: torch.Tensor | None = None

    def dense(self) -> Queries:
        """Return queries whose owners and classes are contiguous."""
        return Queries(self.rows, _line(self.owner), _line(self.class_))

    def part(self, some: slice | torch.Tensor) -> Queries:
        """Return some of the queries."""
        return Queries(
            self.rows[some],
            None if self.owner is None else self.owner[some],
            None if self.class_ is None else self.class_[some],
        )


@dataclass(frozen=True)
class Bank:
    """M memories: ``keys`` [M, D] and ``values`` [M, E], each of floats or int8; all else is [M] or None.

    ``bias`` is added to scores; ``key_scales`` and ``value_scales`` multiply int8 rows; ``kept`` (bool) says who may be
    retrieved at all; ``owner`` and ``class_`` are int, and None exactly where those of the queries are.
    """

    keys: torch.Tensor
    values: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    owner: torch.Tensor | None = None
    class_: torch.Tensor | None = None

    def dense(self) -> Bank:
        """Return a bank of which every vector [M] is contiguous."""
        return replace(
            self,
            bias=_line(self.bias),
            key_scales=_line(self.key_scales),
            value_scales=_line(self.value_scales),
            kept=_line(self.kept),
            owner=_line(self.owner),
            class_=_line(self.class_),
        )

    @property
    def masked(self) -> bool:
        """Whether some memory may be out of bounds for some query."""
        return self.kept is not None or self.owner is not None or self.class_ is not None

    def part(self, some: slice | torch.Tensor) -> Bank:
        """Return what of the bank decides about scores, for some of the memories."""
        return replace(
            self,
            keys=self.keys[some],
            values=None,
            bias=None if self.bias is None else self.bias[some],
            key_scales=None if self.key_scales is None else self.key_scales[some],
            value_scales=None,
            kept=None if self.kept is None else self.kept[some],
            owner=None if self.owner is None else self.owner[some],
            class_=None if self.class_ is None else self.class_[some],
        )


Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""values [Q, E], indices int64 [Q, k], weights [Q, k], scores [Q, k] and log_sum_exp [Q]."""
