"""What ``torch.func.vmap`` needs of an operator over rows: many batches of rows are one batch of more rows."""

from __future__ import annotations

import torch


def one_batch(tensor: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    """Return ``size`` batches of rows as one, [size * N, ...]; ``dim`` is the batches' dimension, None if shared."""
    apart = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return apart.reshape(-1, *apart.shape[2:])
