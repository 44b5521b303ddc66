"""What a model says of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def score(model: torch.nn.Module, x: torch.Tensor, ids: torch.Tensor, batch: int = 512) -> torch.Tensor:
    """Return the logits [N, C] of ``x[ids]`` with the model in evaluation mode, without gradients."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(x[part]) for part in ids.split(batch)])
