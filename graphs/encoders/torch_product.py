"""Sums over the entries of an incidence in plain torch: the twin of DGL's, on any device.

Rows are bags of columns, so a sum over them is an ``embedding_bag``: gathered and summed in one pass, with nothing of
the size of the entries in between. Its own gradient scatters; here it is the sum over the transposed incidence instead,
which is as fast as the sum itself and adds in the same order every time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..structure import pointers_of
from .incidence import Incidence


class _Bags:
    """Pointers and columns of one orientation, and the constant weight of each entry, or None."""

    def __init__(self, pointers: Tensor, columns: Tensor, weights: Tensor | None) -> None:
        self.pointers, self.columns, self.weights = pointers, columns, weights

    def sum(self, values: Tensor, weights: Tensor | None) -> Tensor:
        if len(self.pointers) == 1 or not values.numel():
            return values.new_zeros(len(self.pointers) - 1, values.shape[1])
        return F.embedding_bag(
            self.columns, values, self.pointers, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    def constant_sum(self, values: Tensor) -> Tensor:
        return self.sum(values, None if self.weights is None else self.weights.to(values.dtype))


class TorchProduct:
    """Both orientations of an incidence, and the order in which the entries of one stand in the other."""

    def __init__(self, incidence: Incidence) -> None:
        self.columns = incidence.columns
        self.rows = torch.arange(len(incidence), device=self.columns.device).repeat_interleave(incidence.counts())
        weights = None if incidence.scale is None else incidence.scale[self.rows]
        self.forward = _Bags(incidence.pointers, self.columns, weights)
        ascending, self.order = torch.sort(self.columns, stable=True)
        self.transposed = _Bags(
            pointers_of(ascending, incidence.column_count),
            self.rows[self.order],
            None if weights is None else weights[self.order],
        )
        self._shape = (len(incidence), incidence.column_count)

    def sum(self, values: Tensor) -> Tensor:
        """See :class:`Product`."""
        sums: Tensor = _Sum.apply(values, self.forward, self.transposed)  # type: ignore[no-untyped-call]
        return sums

    def weighted_sum(self, values: Tensor, weights: Tensor) -> Tensor:
        """See :class:`Product`."""
        sums: Tensor = _WeightedSum.apply(values, weights, self)  # type: ignore[no-untyped-call]
        return sums

    def add(self, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        """See :class:`Product`."""
        return of_rows.index_select(0, self.rows) + of_columns.index_select(0, self.columns)

    def softmax(self, scores: Tensor) -> Tensor:
        """See :class:`Product`."""
        if not len(scores):
            return scores
        most = torch.segment_reduce(scores.detach(), "max", offsets=self.forward.pointers, axis=0)
        powers = (scores - most.index_select(0, self.rows)).exp()
        return powers / self.sum_of_entries(powers).index_select(0, self.rows)

    def sum_of_entries(self, weights: Tensor) -> Tensor:
        """See :class:`Product`."""
        return weights.new_zeros(self._shape[0], weights.shape[1]).index_add(0, self.rows, weights)


class _Sum(torch.autograd.Function):
    """A sum whose gradient is the sum over the transposed incidence, and so on for higher ones."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bags: _Bags, transposed: _Bags) -> Tensor:
        ctx.bags, ctx.transposed = bags, transposed
        return bags.constant_sum(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _Sum.apply(gradients[0], ctx.transposed, ctx.bags), None, None  # type: ignore[no-untyped-call]


class _WeightedSum(torch.autograd.Function):
    """One sum for each head. The gradient of weights is ``embedding_bag``'s own. It has first derivatives only."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, product: TorchProduct) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.product = product
        with torch.enable_grad():
            ctx.weights = [one.detach().clone().requires_grad_() for one in weights.unbind(1)]
            heads = zip(values.detach().unbind(1), ctx.weights, strict=True)
            ctx.sums = [product.forward.sum(value, weight) for value, weight in heads]
        return torch.stack([one.detach() for one in ctx.sums], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        heads, product, of_values, of_weights = gradients[0].unbind(1), ctx.product, None, None
        if ctx.needs_input_grad[0]:
            turned = weights[product.order].t().contiguous()
            sums = [product.transposed.sum(one, weight) for one, weight in zip(heads, turned, strict=True)]
            of_values = torch.stack(sums, 1)
        if ctx.needs_input_grad[1]:
            found = torch.autograd.grad(ctx.sums, ctx.weights, heads, retain_graph=True, allow_unused=True)
            of_weights = torch.stack([torch.zeros_like(weights[:, 0]) if one is None else one for one in found], 1)
        return of_values, of_weights, None


def product(incidence: Incidence) -> TorchProduct:
    """Return ``incidence`` made ready."""
    return TorchProduct(incidence)
