"""Weights of teachers and of rows, as the losses take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def of_teachers(
    function: str, given: torch.Tensor | str | None, lead: Sequence[int], count: int
) -> torch.Tensor | None:
    """Return teacher weights as [K] or [N, K], None where they are uniform or made of entropies.

    ``lead`` are the leading dimensions of the rows, ``count`` is K. Raises ``ValueError`` for other shapes and words.
    """
    if not isinstance(given, torch.Tensor):
        if given not in (None, "entropy"):
            raise ValueError(f"{function}: teacher_weights is {given!r}; expected a tensor, None or 'entropy'")
        return None
    if given.shape != (count,) and given.shape != (*lead, count):
        raise ValueError(
            f"{function}: teacher_weights has shape {tuple(given.shape)}; expected [{count}], one a teacher, "
            f"or {[*lead, count]}, one a row and teacher"
        )
    return given if given.dim() == 1 else given.reshape(-1, count)


def for_weighted_mean(function: str, sample_weights: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Return sample weights of mean one, so that the mean over rows of a loss is its mean by weights.

    They are summed in float64 where ``like`` is float64, else in float32. Raises ``ValueError`` where there are none.
    """
    if sample_weights is None:
        raise ValueError(f"{function}: reduction 'weighted_mean' needs sample_weights")
    wide = sample_weights.double() if like.dtype == torch.float64 else sample_weights.float()
    return wide * (wide.numel() / wide.sum())
