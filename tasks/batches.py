"""Samples cut into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def batches(ids: torch.Tensor, size: int, drop_last: bool, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return ``ids`` [N] shuffled and cut into batches of ``size``.

    With ``drop_last`` a last batch that is not full is left out, unless it is the only one.
    """
    order = ids[torch.randperm(len(ids), generator=generator)]
    if drop_last and len(order) > size:
        order = order[: len(order) // size * size]
    return tuple(order.split(size))
