"""The operation ``aggregate``: what several agents say becomes one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from .agent import Agent, Context
from .choice import tagged
from .door import Merge, admitted, selected
from .knowledge import Knowledge, Models, Rows, aligned, together
from .late import late
from .optimizers import Optimizer, Steps
from .registry import Registry
from .score import score

if TYPE_CHECKING:
    import torch

    from ..kernels import ensembles, losses
else:
    torch = late("torch")
    ensembles = late("codistill.kernels.ensembles")
    losses = late("codistill.kernels.losses")

AGGREGATES: Registry[Callable[..., Knowledge]] = Registry("aggregates")


class Collect(Merge):
    """Nothing is merged."""

    takes: ClassVar[tuple[str, ...]] = ("logits", "class_logits", "prototypes")
    side_by_side: ClassVar[bool] = True
    one_out: ClassVar[bool] = False


class Sharpened(Merge):
    """DS-FL."""

    takes: ClassVar[tuple[str, ...]] = ("logits",)
    scale: ClassVar[str | None] = "probabilities"
    one_out: ClassVar[bool] = False
    temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="below 1 sharpens")


class Distilled(Merge):
    """FedDF."""

    takes: ClassVar[tuple[str, ...]] = ("parameters",)
    one_out: ClassVar[bool] = False
    steps: Annotated[int, Field(ge=1)] = Field(100, description="optimizer steps for each architecture")
    batch: Annotated[int, Field(ge=1)] = Field(64, description="public samples a step")
    temperature: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer.model_validate("adam"), description="of the fusion")


@AGGREGATES.register("mean", Merge)
def mean(agent: Agent, packets: Sequence[Knowledge], said: Merge, context: Context) -> Knowledge:
    """The weighted mean: of parameters within each architecture, of rows within each id."""
    if isinstance(packets[0], Models):
        return mean_of_models([p for p in packets if isinstance(p, Models)])
    return mean_of_rows([p for p in packets if isinstance(p, Rows)])


@AGGREGATES.register("collect", Collect)
def collect(agent: Agent, packets: Sequence[Rows], said: Collect, context: Context) -> Rows:
    """Everybody's rows side by side, each with its owner; for a memory at the top, not to be sent back as they are."""
    return together(packets)


@AGGREGATES.register("sharpened_mean", Sharpened)
def sharpened_mean(agent: Agent, packets: Sequence[Rows], said: Sharpened, context: Context) -> Rows:
    """The mean of probabilities, sharpened once at the top: entropy reduction (Itahara et al. 2021, eq. 9)."""
    merged = mean_of_rows(packets)
    if not context.final:
        return merged
    values = ensembles.sharpened(merged.values, said.temperature)
    return Rows(merged.form, merged.ids, values, merged.weights, merged.samples)


@AGGREGATES.register("distilled", Distilled)
def distilled(agent: Agent, packets: Sequence[Models], said: Distilled, context: Context) -> Models:
    """Averages each architecture, then distils the mean logits of all models into it (Lin et al. 2020, alg. 3)."""
    from .networks import build

    start, world = mean_of_models(packets), context.world
    known = world.architectures
    teacher = torch.zeros(len(world.public), world.classes)
    count = sum(len(packet.tensors) for packet in packets)
    for packet in packets:
        for identity, tensors in packet.tensors.items():
            model = build(known[identity], torch.Generator().manual_seed(0))
            model.load_state_dict(tensors)
            teacher.add_(score(model, world.x_train, world.public), alpha=1 / count)
    fused: dict[str, dict[str, torch.Tensor]] = {}
    for index, (identity, tensors) in enumerate(start.tensors.items()):
        model = build(known[identity], torch.Generator().manual_seed(0))
        model.load_state_dict(tensors)
        _distil(model, teacher, said, context, agent.stream(context, "fusion", index))
        fused[identity] = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return Models(fused, start.samples_by)


def _distil(
    model: torch.nn.Module, teacher: torch.Tensor, said: Distilled, context: Context, generator: torch.Generator
) -> None:
    world, steps = context.world, Steps(said.optimizer, model.parameters())
    model.train()
    for _ in range(said.steps):
        chosen = torch.randint(len(world.public), (min(said.batch, len(world.public)),), generator=generator)
        loss = losses.kl_divergence(model(world.x_train[world.public[chosen]]), teacher[chosen], said.temperature)
        steps.down(loss)


def mean_of_models(packets: Sequence[Models]) -> Models:
    """Return the mean of each architecture's parameters, weighted by the samples behind them."""
    order = list(dict.fromkeys(identity for packet in packets for identity in packet.tensors))
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    samples: dict[str, float] = {}
    labels: dict[str, torch.Tensor] = {}
    for identity in order:
        given = [packet for packet in packets if identity in packet.tensors]
        weights = [packet.samples_by[identity] for packet in given]
        names = given[0].tensors[identity]
        tensors[identity] = {
            name: ensembles.weighted_mean([packet.tensors[identity][name] for packet in given], weights)
            for name in names
        }
        samples[identity] = sum(weights)
        told = [packet.labels[identity] for packet in given if identity in packet.labels]
        if told:
            labels[identity] = torch.stack(told).sum(0)
    return Models(tensors, samples, labels)


def mean_of_rows(packets: Sequence[Rows]) -> Rows:
    """Return the mean of each id's rows, weighted by what stands behind them; float64 within, float32 out."""
    ids = torch.unique(torch.cat([packet.ids for packet in packets]))
    sums = torch.zeros(len(ids), packets[0].values.shape[1], dtype=torch.float64)
    weights = torch.zeros(len(ids), dtype=torch.float64)
    for packet in packets:
        at = torch.searchsorted(ids, packet.ids)
        sums.index_add_(0, at, packet.values.double() * packet.weights[:, None])
        weights.index_add_(0, at, packet.weights)
    values = (sums / weights[:, None]).float()
    return Rows(packets[0].form, ids, values, weights, sum(packet.samples for packet in packets))


def contribution(knowledge: Knowledge, weight: str) -> Knowledge:
    """Return ``knowledge`` with the weight that it enters a mean with: its samples, or one for each agent."""
    if weight == "samples":
        return knowledge
    if isinstance(knowledge, Models):
        return dataclasses.replace(knowledge, samples_by=dict.fromkeys(knowledge.tensors, 1.0))
    return dataclasses.replace(knowledge, weights=torch.ones_like(knowledge.weights), samples=1.0)


def without(total: Knowledge, own: Knowledge) -> Knowledge:
    """Return the mean ``total`` less the contribution ``own``; an id that nobody else gave is left out."""
    if isinstance(total, Models) and isinstance(own, Models):
        return _models_without(total, own)
    assert isinstance(total, Rows) and isinstance(own, Rows)
    at = aligned(own, total.ids)
    there = at >= 0
    mine = torch.where(there, own.weights[at.clamp(min=0)], 0.0) if len(own.ids) else torch.zeros(len(at)).double()
    rest = total.weights - mine
    sums = total.values.double() * total.weights[:, None]
    if len(own.ids):
        sums -= own.values[at.clamp(min=0)].double() * mine[:, None]
    kept = rest > 1e-9
    values = (sums[kept] / rest[kept, None]).float()
    return Rows(total.form, total.ids[kept], values, rest[kept], total.samples - own.samples)


def _models_without(total: Models, own: Models) -> Models:
    tensors = {identity: dict(group) for identity, group in total.tensors.items()}
    samples = dict(total.samples_by)
    for identity, mine in own.tensors.items():
        weight, all_of_it = own.samples_by[identity], samples[identity]
        if all_of_it - weight <= 1e-9:
            del tensors[identity], samples[identity]
            continue
        share = weight / all_of_it
        tensors[identity] = {
            name: (value.double() - mine[name].double() * share).div(1 - share).float()
            for name, value in tensors[identity].items()
        }
        samples[identity] = all_of_it - weight
    return Models(tensors, samples)


from . import (  # noqa: E402  # they enter their rules
    adversarial,  # noqa: F401
    coefficients,  # noqa: F401
    cut,  # noqa: F401
    generator_rules,  # noqa: F401
    trainable_prototypes,  # noqa: F401
)

Aggregate: Any = tagged("Aggregate", AGGREGATES, "by")


def aggregate(agent: Agent, packets: Sequence[Knowledge], parameters: Any, context: Context) -> Knowledge | None:
    """One piece of knowledge is made of what several agents say, in the order in which they were declared.

    None where nothing of it may be merged.
    """
    sound = admitted(agent, packets, parameters, context)
    if not sound:
        return None
    merged = selected(agent, AGGREGATES[parameters.by].function(agent, sound, parameters, context), parameters, context)
    return merged if merged.items else None
