"""Products of rows with the matrix or the row of their relation, where rows of one relation stand together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def matrix_of_each(rows: Tensor, matrices: Tensor, counts: Sequence[int]) -> Tensor:
    """Return each of ``rows`` [Q, D] times the matrix of its relation, [Q, D'].

    ``matrices`` [K, D, D'] has one for each relation, and the first ``counts[0]`` rows are relation 0's, and so on.
    """
    made: Tensor = _MatrixOfEach.apply(rows, matrices, tuple(counts))  # type: ignore[no-untyped-call]
    return made


class _MatrixOfEach(torch.autograd.Function):
    """One matrix product for each relation, each written where it belongs: nothing is cut, stacked or put together."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(rows, matrices)
        ctx.counts = counts
        made = rows.new_empty(len(rows), matrices.shape[2])
        for part, matrix, out in zip(rows.split(counts), matrices.unbind(0), made.split(counts), strict=True):
            torch.mm(part, matrix, out=out)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, matrices = ctx.saved_tensors
        of_rows = of_matrices = None
        if ctx.needs_input_grad[0]:
            of_rows = matrix_of_each(gradients[0], matrices.transpose(1, 2), ctx.counts)
        if ctx.needs_input_grad[1]:
            of_matrices = _OuterOfEach.apply(rows, gradients[0], ctx.counts)  # type: ignore[no-untyped-call]
        return of_rows, of_matrices, None


class _OuterOfEach(torch.autograd.Function):
    """Sums of outer products by relation: of [Q, D] and [Q, D'], [K, D, D']."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.counts = counts
        made = left.new_empty(len(counts), left.shape[1], right.shape[1])
        for one, other, out in zip(left.split(counts), right.split(counts), made.unbind(0), strict=True):
            torch.mm(one.t(), other, out=out)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        turned = gradients[0].transpose(1, 2)
        return matrix_of_each(right, turned, ctx.counts), matrix_of_each(left, gradients[0], ctx.counts), None
