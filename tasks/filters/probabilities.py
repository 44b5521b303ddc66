"""Class scores read as probabilities, whatever state they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..late import late
from ..parameters import Parameters

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class Scored(Parameters):
    """How class scores are to be read."""

    scale: Literal["logits", "probabilities"] = Field("logits", description="what the scores are")


def probabilities(values: torch.Tensor, scale: str, temperature: float = 1.0) -> torch.Tensor:
    """Return the probabilities, float64 [N, C], that scores [N, C] in any float dtype stand for.

    Logits go through softmax(z / temperature). Probabilities are set to at least 0 and to the sum 1, as an encoding
    may have moved them. A row that says nothing (NaN, an infinity, no sum) is NaN throughout.
    """
    scores = values.double()
    if scale == "probabilities":
        scores = scores.clamp(min=0)
        made = scores / scores.sum(1, keepdim=True)
    else:
        made = torch.softmax(scores / temperature, dim=1)
    return torch.where(sound(values)[:, None], made, torch.nan)


def sound(values: torch.Tensor) -> torch.Tensor:
    """Return which rows of ``values`` [N, ...] hold neither NaN nor infinity, bool [N]."""
    return values.isfinite().flatten(1).all(1)


def confidence(values: torch.Tensor, scale: str, temperature: float = 1.0) -> torch.Tensor:
    """Return the largest probability of each row, float64 [N]; NaN where a row says nothing."""
    return probabilities(values, scale, temperature).amax(1)
