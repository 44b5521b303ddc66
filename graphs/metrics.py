"""What is measured of an embedding: ranks of the true heads and tails of test triples, filtered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from ..tasks.late import late
from ..tasks.parameters import Parameters
from ..tasks.registry import Registry

if TYPE_CHECKING:
    import torch

    from .ranking import Ranks
else:
    torch = late("torch")


RANK_METRICS: Registry[Callable[[Ranks], float]] = Registry("rank_metrics")
"""``function(ranks)``, of the filtered ranks of an agent's test triples."""


class OfTest(Parameters):
    """Nothing to choose."""

    part: ClassVar[str] = "test"
    """The triples of an agent that are ranked."""


class OfForgotten(OfTest):
    """Nothing to choose."""

    part: ClassVar[str] = "unlearn"


class OfKept(OfTest):
    """Nothing to choose."""

    part: ClassVar[str] = "some_kept"


def _both(ranks: Ranks) -> torch.Tensor:
    return torch.cat([ranks.heads, ranks.tails])


def _within(ranks: torch.Tensor, most: int) -> float:
    return (ranks <= most).double().mean().item()


@RANK_METRICS.register("mrr", OfTest)
def mrr(ranks: Ranks) -> float:
    """Mean reciprocal filtered rank of the true head and the true tail."""
    return _both(ranks).reciprocal().mean().item()


@RANK_METRICS.register("hits_at_1", OfTest)
def hits_at_1(ranks: Ranks) -> float:
    """Share of true heads and tails that rank first."""
    return _within(_both(ranks), 1)


@RANK_METRICS.register("hits_at_3", OfTest)
def hits_at_3(ranks: Ranks) -> float:
    """Share of true heads and tails that rank among the first 3."""
    return _within(_both(ranks), 3)


@RANK_METRICS.register("hits_at_10", OfTest)
def hits_at_10(ranks: Ranks) -> float:
    """Share of true heads and tails that rank among the first 10."""
    return _within(_both(ranks), 10)


@RANK_METRICS.register("mrr_tails", OfTest)
def mrr_tails(ranks: Ranks) -> float:
    """Mean reciprocal filtered rank of tails alone, as FedE reports it; not to be compared with mrr."""
    return ranks.tails.reciprocal().mean().item()


@RANK_METRICS.register("hits_at_10_tails", OfTest)
def hits_at_10_tails(ranks: Ranks) -> float:
    """Share of true tails alone that rank among the first 10, as FedE reports it."""
    return _within(ranks.tails, 10)


def _enter(measure: Callable[[Ranks], float], part: type[OfTest], suffix: str, of: str) -> None:
    def measured(ranks: Ranks) -> float:
        return measure(ranks)

    measured.__doc__ = f"{(measure.__doc__ or '').rstrip('.')}, of {of}."
    RANK_METRICS.register(f"{measure.__name__}_{suffix}", part)(measured)


for _measure in (mrr, hits_at_1, hits_at_3, hits_at_10):
    _enter(_measure, OfForgotten, "forgotten", "triples that an agent is asked to forget; nothing where there are none")
    _enter(_measure, OfKept, "kept", "at most 512 triples that an agent trains on and may keep")
