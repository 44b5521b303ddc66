"""What local training may add to cross entropy. A term is built once a round and called once a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from .agent import Agent, Context
from .knowledge import Rows
from .late import late
from .parameters import Parameters
from .registry import Registry

if TYPE_CHECKING:
    import torch

    from ..kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")

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


class Proximal(Parameters):
    """FedProx."""

    proximal_weight: Weight = Field(0.01, description="mu in mu / 2 ||w - w_received||^2")


class ClassLogits(Parameters):
    """FD."""

    recalls: ClassVar[str] = "class_logits"
    kd_weight: Weight = Field(1.0, description="weight of the distillation term")


class Prototypes(Parameters):
    """FedProto."""

    recalls: ClassVar[str] = "prototypes"
    prototype_weight: Weight = Field(1.0, description="weight of the mean squared distance to the class's prototype")


class NotTrue(Parameters):
    """FedNTD."""

    kd_weight: Weight = Field(1.0, description="weight of the distillation term (beta in the paper)")
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Mutual(Parameters):
    """FML."""

    needs_companion: ClassVar[bool] = True
    kd_weight: Weight = Field(0.5, description="weight of KL(companion || model) in the model's loss")
    companion_ce_weight: Weight = Field(0.5, description="weight of cross entropy in the companion's loss")
    companion_kd_weight: Weight = Field(0.5, description="weight of KL(model || companion) in the companion's loss")
    temperature: Annotated[float, Field(gt=0)] = 1.0


class AdaptiveMutual(Parameters):
    """FedKD (Wu et al. 2022)."""

    needs_companion: ClassVar[bool] = True
    kd_weight: Weight = Field(1.0, description="weight of both KL terms before they are divided by the task losses")
    hidden_weight: Weight = Field(1.0, description="weight of the distance between mapped hidden features")


def _table(rows: Rows, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return dense [C, D] values and which classes are there, bool [C]."""
    dense = torch.zeros(classes, rows.values.shape[1])
    dense[rows.ids] = rows.values
    there = torch.zeros(classes, dtype=torch.bool)
    there[rows.ids] = True
    return dense, there


def _toward(
    agent: Agent,
    form: str,
    context: Context,
    weight: float,
    given: Callable[[Batch], torch.Tensor],
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Term | None:
    """Return the term that pulls what is ``given`` toward the recalled row of the label's class.

    ``prepare`` makes targets of the recalled rows [C, D], once a round.
    Samples of a class that was not received are left out. None where nothing of ``form`` was recalled.
    """
    recalled = agent.memory.recall("working", form)
    if not isinstance(recalled, Rows) or not recalled.items:
        return None
    targets, there = _table(recalled, context.world.classes)
    targets = targets if prepare is None else prepare(targets)
    complete = bool(there.all())

    def loss(batch: Batch) -> torch.Tensor:
        mine, y = given(batch), batch.y
        if not complete:
            known = there[y]
            if not known.any():
                return mine.sum() * 0
            mine, y = mine[known], y[known]
        return distance(mine, targets[y]) * weight

    return Term(loss)


@TERMS.register("proximal", Proximal)
def proximal(agent: Agent, parameters: Proximal, context: Context) -> Term:
    """Keeps the weights near those the round began with: mu / 2 ||w - w_received||^2 (Li et al. 2020, eq. 2)."""
    weights = list(agent.models["model"].parameters())
    anchors = [w.detach().clone() for w in weights]

    def loss(batch: Batch) -> torch.Tensor:
        distance = sum(((w - a).square().sum() for w, a in zip(weights, anchors, strict=True)), torch.zeros(()))
        return distance * (parameters.proximal_weight / 2)

    return Term(loss)


@TERMS.register("class_logits", ClassLogits)
def class_logits(agent: Agent, parameters: ClassLogits, context: Context) -> Term | None:
    """Cross entropy to the softmax of the recalled mean logits of the label's class (Jeong et al. 2018)."""
    return _toward(
        agent,
        "class_logits",
        context,
        parameters.kd_weight,
        lambda batch: batch.logits,
        losses.soft_cross_entropy,
        lambda means: torch.softmax(means, dim=1),
    )


@TERMS.register("prototypes", Prototypes)
def prototypes(agent: Agent, parameters: Prototypes, context: Context) -> Term | None:
    """Mean squared distance from features to the recalled prototype of the label's class (Tan et al. 2022, eq. 7)."""
    weight = parameters.prototype_weight
    return _toward(agent, "prototypes", context, weight, lambda batch: batch.features, losses.feature_distance)


@TERMS.register("not_true", NotTrue)
def not_true(agent: Agent, parameters: NotTrue, context: Context) -> Term:
    """Distils what the model said of the wrong classes when the round began (Lee et al. 2022, eq. 6)."""
    world, model = context.world, agent.network()
    said = torch.full((len(world.y_train), world.classes), float("nan"))
    model.eval()
    with torch.no_grad():
        for ids in agent.train_ids.split(512):
            said[ids] = model(world.x_train[ids])
    model.train()

    def loss(batch: Batch) -> torch.Tensor:
        divergence = losses.not_true_divergence(batch.logits, said[batch.ids], batch.y, parameters.temperature)
        return divergence * parameters.kd_weight

    return Term(loss)


@TERMS.register("mutual", Mutual)
def mutual(agent: Agent, parameters: Mutual, context: Context) -> Term:
    """The model and its shared companion learn from the labels and from each other (Shen et al. 2020, eq. 3-4)."""
    companion = agent.network("companion").train()

    def of_model(logits: torch.Tensor, given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return losses.kl_divergence(logits, given, parameters.temperature) * parameters.kd_weight

    def of_companion(logits: torch.Tensor, given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        task = torch.nn.functional.cross_entropy(logits, y) * parameters.companion_ce_weight
        return task + losses.kl_divergence(logits, given, parameters.temperature) * parameters.companion_kd_weight

    def loss(batch: Batch) -> torch.Tensor:
        other = companion(batch.x)
        mine = of_model(batch.logits, other.detach(), batch.y)
        return mine + of_companion(other, batch.logits.detach(), batch.y)

    return Term(loss, list(companion.parameters()), Pair(of_model, of_companion))


@TERMS.register("adaptive_mutual", AdaptiveMutual)
def adaptive_mutual(agent: Agent, parameters: AdaptiveMutual, context: Context) -> Term:
    """Mutual distillation of logits and features, weaker where both are still wrong (Wu et al. 2022, eq. 1-6)."""
    companion = agent.network("companion").train()
    own, other = (agent.architectures[name].features for name in ("model", "companion"))
    mapping = agent.module("hidden_map", context, lambda: torch.nn.Linear(other, own, bias=False))

    def loss(batch: Batch) -> torch.Tensor:
        features = companion.body(batch.x)
        logits = companion.head(features)
        task = torch.nn.functional.cross_entropy(logits, batch.y)
        divergence = losses.kl_divergence(batch.logits, logits.detach()) + losses.kl_divergence(
            logits, batch.logits.detach()
        )
        hidden = losses.feature_distance(batch.features, mapping(features))
        certainty = (batch.cross_entropy + task).detach()
        shared = divergence * parameters.kd_weight + hidden * parameters.hidden_weight
        return task + shared / certainty

    return Term(loss, [*companion.parameters(), *mapping.parameters()])
