"""What a term of local training is, and where terms are entered. One is built once a round and called once a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..registry import Registry

if TYPE_CHECKING:
    import torch

Weight = Annotated[float, Field(ge=0)]


@dataclass(slots=True)
class Batch:
    """One batch as the terms see it: ``ids`` [B], ``x`` [B, ...], ``y`` [B], and what the model made of it."""

    ids: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    features: torch.Tensor
    logits: torch.Tensor
    cross_entropy: torch.Tensor


if TYPE_CHECKING:
    Pull = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """A scalar loss of one model's logits [B, C], given the other's logits [B, C] and labels [B]."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A loss over two models taken apart, for steps that either takes by itself. Each is given the other's logits."""

    model: Pull
    companion: Pull


@dataclass
class Term:
    """A loss over a batch, and the parameters besides the model's own that it trains.

    ``pair``: the same loss taken apart, where the model and its companion may step by themselves.
    """

    loss: Callable[[Batch], torch.Tensor]
    parameters: list[torch.nn.Parameter] = field(default_factory=list)
    pair: Pair | None = None


TERMS: Registry[Callable[..., Term | None]] = Registry("terms")
"""A term's parameters say in ``recalls`` which form it reads from working memory, and in ``needs_companion`` whether it
trains the companion too; a spec is checked by these before anything runs."""
