"""The rule ``trainable_prototypes``: class prototypes that the aggregator trains to lie apart (FedTGP)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..knowledge import Rows, together
from ..late import late
from ..optimizers import Optimizer, Steps
from .contributors import by_name
from .door import Merge
from .means import mean_of_rows
from .registry import AGGREGATES

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

MODULE = "trainable_prototypes"
"""The name under which an aggregator keeps the vectors and the network that makes prototypes of them."""


class TrainablePrototypes(Merge):
    """FedTGP."""

    takes: ClassVar[tuple[str, ...]] = ("prototypes",)
    exclude_self: Literal[False] = Field(False, description="what is trained on all cannot leave one out")
    epochs: Annotated[int, Field(ge=1)] = Field(100, description="passes over the received prototypes each round")
    batch: Annotated[int, Field(ge=1)] = Field(10, description="received prototypes a step")
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate({"sgd": {"lr": 0.01}}), description="made anew each round"
    )
    margin: Literal["farthest", "nearest"] = Field(
        "farthest",
        description="the largest distance between two classes' means (the paper), or the largest distance from a "
        "class's mean to the nearest other (the authors' code)",
    )
    most_margin: Annotated[float, Field(ge=0)] = Field(100.0, description="the margin is at most this (tau)")
    hidden: Annotated[int, Field(ge=1)] | None = Field(None, description="width of the network; unsaid: the features'")


@AGGREGATES.register("trainable_prototypes", TrainablePrototypes)
def trainable_prototypes(agent: Agent, packets: Sequence[Rows], said: TrainablePrototypes, context: Context) -> Rows:
    """Trains a vector for each class so that received prototypes lie nearest their own, by a margin (FedTGP).

    Zhang et al. 2024, algorithm 1. The aggregator keeps what it trained and goes on from it in the next round. Every
    received prototype counts alike, whatever ``weight`` says. A class that nobody sent gets no row.
    """
    if not context.final:
        return together(packets)
    rows = by_name(packets)
    width = rows.values.shape[1]
    network = agent.module(MODULE, context, lambda: _network(context.world.classes, width, said.hidden or width))
    steps = Steps(said.optimizer, network.parameters())
    margin, everything = adaptive_margin(rows, said), torch.arange(context.world.classes)
    places = torch.arange(rows.items)
    for epoch in range(said.epochs):
        for chosen in batches(places, said.batch, False, agent.stream(context, "prototypes", epoch)):
            steps.down(contrast(rows.values[chosen], rows.ids[chosen], network(everything), margin))
    means = mean_of_rows([rows])
    with torch.no_grad():
        trained = network(means.ids)
    return Rows(rows.form, means.ids, trained, means.weights, means.samples)


def contrast(received: torch.Tensor, labels: torch.Tensor, trained: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the adaptive-margin contrastive loss (Zhang et al. 2024, eq. 10), mean over received prototypes. Scalar.

    ``received`` [B, D] with ``labels`` int64 [B], ``trained`` [C, D]. Minus the Euclidean distance is the score of a
    class; the margin is added to the distance from a prototype's own class, which must be nearer by so much.
    """
    distances = torch.cdist(received, trained, compute_mode="donot_use_mm_for_euclid_dist")
    own = torch.nn.functional.one_hot(labels, len(trained)).to(distances.dtype) * margin
    return torch.nn.functional.cross_entropy(-(distances + own), labels)


def adaptive_margin(rows: Rows, said: TrainablePrototypes) -> float:
    """Return the margin: how far apart classes' mean prototypes lie, ``most_margin`` at most; 0 for a single class.

    The means are over contributors, each counting once (Zhang et al. 2024, eq. 9).
    """
    classes, at = torch.unique(rows.ids, return_inverse=True)
    sums = torch.zeros(len(classes), rows.values.shape[1], dtype=torch.float64).index_add_(0, at, rows.values.double())
    means = sums / torch.bincount(at)[:, None]
    if len(classes) < 2:
        return 0.0
    apart = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")
    return min(_MARGINS[said.margin](apart), said.most_margin)


def _farthest(apart: torch.Tensor) -> float:
    return float(apart.max())


def _nearest(apart: torch.Tensor) -> float:
    return float(apart.clone().fill_diagonal_(float("inf")).min(dim=1).values.max())


_MARGINS: Mapping[str, Callable[[torch.Tensor], float]] = {"farthest": _farthest, "nearest": _nearest}


def _network(classes: int, width: int, hidden: int) -> torch.nn.Sequential:
    """Return what makes prototypes [N, width] of class ids [N]: a vector a class, and two layers."""
    return torch.nn.Sequential(
        torch.nn.Embedding(classes, width),
        torch.nn.Linear(width, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, width),
    )
