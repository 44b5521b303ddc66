"""What several contributors say, in an order that does not depend on the way their packets took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..knowledge import Rows, together
from ..late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def by_name(packets: Sequence[Rows]) -> Rows:
    """Return all rows side by side, contributors in the order of their names: a tree gives what a star gives."""
    rows = together(packets)
    names = sorted(rows.contributors)
    owners = torch.tensor([names.index(name) for name in rows.contributors], dtype=torch.int64)[owners_of(rows)]
    order = torch.argsort(rows.ids * len(names) + owners, stable=True)
    return replace(rows.part(order), contributors=tuple(names), owners=owners[order])


def owners_of(rows: Rows) -> torch.Tensor:
    """Return whose each row is, int64 [N], as places in ``rows.contributors``. ``ValueError`` where it is not said."""
    if rows.owners is None:
        raise ValueError(f"rows of {rows.form} say of none whose they are")
    return rows.owners


def dense(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the ids int64 [N], values [K, N, D] by contributor, zero where one has no row, and who has one, [K, N]."""
    ids, at = torch.unique(rows.ids, return_inverse=True)
    owners, width = owners_of(rows), rows.values.shape[1]
    values = torch.zeros(len(rows.contributors), len(ids), width)
    values[owners, at] = rows.values
    there = torch.zeros(len(rows.contributors), len(ids), dtype=torch.bool)
    there[owners, at] = True
    return ids, values, there
