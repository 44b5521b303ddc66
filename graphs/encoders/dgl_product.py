"""Sums over the entries of an incidence by DGL: SpMM, SDDMM and edge_softmax on a bipartite graph, on a CPU."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..dgl import load_dgl
from .incidence import Incidence


class DGLProduct:
    """A DGLGraph from columns to rows. It stays in the process that made it."""

    def __init__(self, incidence: Incidence) -> None:
        dgl = load_dgl()
        self._ops = dgl.ops
        # DGL would count the entries itself, but its sums over entries ask for the numbers to be written down.
        entries = torch.arange(len(incidence.columns))
        self._graph = dgl.heterograph(
            {("column", "of", "row"): ("csc", (incidence.pointers, incidence.columns, entries))},
            num_nodes_dict={"column": incidence.column_count, "row": len(incidence)},
        )
        self._scale = incidence.scale

    def sum(self, values: Tensor) -> Tensor:
        """See :class:`Product`."""
        sums = cast(Tensor, self._ops.copy_u_sum(self._graph, values))
        return sums if self._scale is None else sums * self._scale.to(values.dtype)[:, None]

    def weighted_sum(self, values: Tensor, weights: Tensor) -> Tensor:
        """See :class:`Product`."""
        return cast(Tensor, self._ops.u_mul_e_sum(self._graph, values, weights[:, :, None]))

    def add(self, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        """See :class:`Product`."""
        return cast(Tensor, self._ops.u_add_v(self._graph, of_columns, of_rows))

    def softmax(self, scores: Tensor) -> Tensor:
        """See :class:`Product`."""
        return cast(Tensor, self._ops.edge_softmax(self._graph, scores))

    def sum_of_entries(self, weights: Tensor) -> Tensor:
        """See :class:`Product`."""
        return cast(Tensor, self._ops.copy_e_sum(self._graph, weights))


def product(incidence: Incidence) -> DGLProduct:
    """Return ``incidence`` made ready; raises ``ValueError`` for one on a GPU, which DGL's wheels know nothing of."""
    if incidence.columns.device.type != "cpu":
        raise ValueError(
            f"DGL works on a CPU, and the graph is on {incidence.columns.device}; the back end is torch there"
        )
    return DGLProduct(incidence)
