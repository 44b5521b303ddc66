"""Terms in which the model and its companion score the same triples and learn each other's distributions of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from pydantic import Field

from ...tasks.agent import Agent, Context
from ...tasks.late import late
from ...tasks.parameters import Parameters
from ..settings import Fit
from .registry import GRAPH_TERMS, GraphTerm

if TYPE_CHECKING:
    import torch

    from .. import losses
    from ..contrast import Batch
    from ..embedding import Embedding
else:
    torch = late("torch")
    losses = late("codistill.graphs.losses")

MODULE = "temperature"
"""The name under which an agent keeps the temperature that it learns."""

Weight = Annotated[float, Field(ge=0)]


class MutualScores(Parameters):
    """FedLU."""

    needs_companion: ClassVar[bool] = True
    kd_weight: Weight = Field(2.0, description="weight of both divergences (mu in the paper)")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="of both softmaxes; scaled by T squared")


class Compressed(Parameters):
    """FedKD for knowledge graphs."""

    needs_companion: ClassVar[bool] = True
    kd_weight: Weight = Field(1.0, description="largest weight of the divergence from the companion")
    temperature: Annotated[float, Field(gt=0)] = Field(
        1.0, description="of the scores of negatives; that of true triples is learned and begins here"
    )


@GRAPH_TERMS.register("mutual_scores", MutualScores)
def mutual_scores(agent: Agent, said: MutualScores, training: Fit, context: Context) -> GraphTerm:
    """Model and companion learn the triples, and each the other's scores of them and of their negatives (FedLU).

    Zhu, Li and Hu 2023, eq. 3-6: L + mu KL for each, over a true triple and its n negatives; each takes the other's
    distribution as given.
    """
    companion = cast("Embedding", agent.models["companion"])

    def loss(batch: Batch) -> torch.Tensor:
        positive, negative = rescored(companion, batch)
        task = _task(companion, positive, negative, training)
        mine, theirs = (batch.positive, batch.negative), (positive, negative)
        of_model = _divergence(mine, theirs, said.temperature)
        of_companion = _divergence(theirs, mine, said.temperature)
        return task + (of_model + of_companion) * said.kd_weight

    return GraphTerm(loss, [companion])


@GRAPH_TERMS.register("compressed", Compressed)
def compressed(agent: Agent, said: Compressed, training: Fit, context: Context) -> GraphTerm:
    """The low-dimensional model learns what its high-dimensional companion says of triples (FedKD for graphs).

    Zhang et al. 2024: KL between distributions over a true triple and its negatives. Scores of true triples
    are divided by a temperature that is learned, those of negatives by a fixed one, so that a companion that is sure of
    the true triple still tells of the others. The divergence weighs as much as the companion is better: its share of
    both losses, L_model / (L_model + L_companion), held constant.
    """
    companion = cast("Embedding", agent.models["companion"])
    start = torch.nn.Parameter(torch.tensor([said.temperature]).log())
    # A module of its own is kept from round to round with the agent's models.
    (learned,) = agent.module(MODULE, context, lambda: torch.nn.ParameterDict({"logarithm": start})).parameters()

    def loss(batch: Batch) -> torch.Tensor:
        positive, negative = rescored(companion, batch)
        task = _task(companion, positive, negative, training)
        own = _task(cast("Embedding", agent.models["model"]), batch.positive, batch.negative, training).detach()
        share = own / (own + task.detach()).clamp(min=1e-12)
        hot = learned.exp()
        student = batch.positive / hot, batch.negative / said.temperature
        teacher = positive.detach() / hot, negative.detach() / said.temperature
        return task + _divergence(student, teacher, 1.0, learning=True) * (share * said.kd_weight)

    return GraphTerm(loss, [companion], [learned])


def rescored(embedding: Embedding, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what ``embedding`` says of a batch's true triples [B] and of its negatives [B, n]."""
    rows = embedding.rows(batch.triples)
    negative = embedding.score_candidates(batch.triples, batch.candidates, batch.side, rows)
    return embedding.score_triples(batch.triples, rows), negative.masked_fill(batch.negative.isneginf(), -float("inf"))


def _task(embedding: Embedding, positive: torch.Tensor, negative: torch.Tensor, training: Fit) -> torch.Tensor:
    return losses.self_adversarial_loss(
        positive, negative, margin=embedding.logit_margin, temperature=training.temperature
    )


def _divergence(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
    learning: bool = False,
) -> torch.Tensor:
    """Return T^2 KL(teacher || student); ``learning``: a temperature in the teacher's scores has a gradient too."""
    low = -1e4  # shared negatives that are true triples count for nothing, in finite numbers
    pairs = [torch.cat([one[:, None], many.masked_fill(many.isneginf(), low)], 1) for one, many in (student, teacher)]
    of_student, of_teacher = (torch.log_softmax(pair / temperature, dim=1) for pair in pairs)
    of_teacher = of_teacher if learning else of_teacher.detach()
    return (of_teacher.exp() * (of_teacher - of_student)).sum(1).mean() * temperature**2
