"""Adam for tables of rows, for all rows or for the rows that a batch touched."""

from __future__ import annotations

import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class TableAdam:
    """Adam (Kingma and Ba 2015) over one table [N, D], whose state begins at zero.

    :meth:`step` moves all rows, as ``torch.optim.Adam`` does: a row without gradient goes on with its momentum.
    :meth:`step_rows` moves the given rows by the same formula and leaves the others and their moments as they are, as
    ``torch.optim.SparseAdam`` does; the powers of beta in the correction of the bias count all steps. ``unit`` is how
    far a number of the table goes where others go by 1: steps are those of the table divided by ``unit``.
    """

    def __init__(self, table: torch.Tensor, lr: float, unit: float = 1.0) -> None:
        self._table, self._lr, self._epsilon = table, lr * unit, EPSILON / unit
        self._first, self._second = torch.zeros_like(table), torch.zeros_like(table)
        self._steps = torch.zeros((), dtype=torch.float32, device=table.device)
        self._count = 0

    @torch.no_grad()
    def step(self, gradient: torch.Tensor) -> None:
        """Move all rows down ``gradient`` [N, D]."""
        from torch.optim.adam import adam

        self._count += 1
        adam(
            [self._table],
            [gradient],
            [self._first],
            [self._second],
            [],
            [self._steps],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=self._lr,
            weight_decay=0.0,
            eps=self._epsilon,
            maximize=False,
        )

    @torch.no_grad()
    def step_rows(self, rows: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move ``rows`` int64 [k], all different, down ``gradient`` [k, D]."""
        self._count += 1
        self._steps += 1
        first = self._first[rows].lerp_(gradient, 1 - BETA1)
        second = self._second[rows].mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        self._first[rows], self._second[rows] = first, second
        unbiased = 1 - BETA1**self._count, (1 - BETA2**self._count) ** 0.5
        down = second.sqrt_().div_(unbiased[1]).add_(self._epsilon)
        self._table[rows] -= first.div_(down).mul_(self._lr / unbiased[0])
