"""Bridge samples: what a shared code leaves of private ones. Parent and child learn from each other on them (FedAgg).

The code is linear, the principal components of public samples, so that everybody finds it alike and nobody trains it.
Codes and labels travel once and stay in a declared memory; ids are all else that an aggregator knows of a sample.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..held import completed, entries_of, rows_of
from ..keys import KEYS, components
from ..knowledge import Rows, marked
from ..late import late
from ..memory import Event
from ..optimizers import Optimizer, Steps
from ..parameters import Name, Step
from ..streams import numpy_stream
from .registry import ABSORBS

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")

DECODER = "decoder"
"""The name under which an agent keeps what makes samples of codes."""

Weight = Annotated[float, Field(ge=0)]


class BridgeSamples(Step):
    """FedAgg."""

    memory: Name = Field(description="the declared memory that holds codes and labels of bridge samples")
    kd_weight: Weight = Field(10.0, description="weight of the distillation on others' bridge samples (gamma)")
    own_kd_weight: Weight = Field(1.0, description="weight of the distillation on bridge samples of the agent's own")
    ce_weight: Weight = Field(1.0, description="weight of cross entropy to the labels of bridge samples")
    own_ce_weight: Weight = Field(
        1.0, description="weight of cross entropy on the agent's own samples that bridge samples were made of"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(3.0, description="of both; the term is scaled by T squared")
    epochs: Annotated[int, Field(ge=1)] = Field(1, description="passes over the bridge samples")
    batch: Annotated[int, Field(ge=1)] = Field(32, description="bridge samples a step")
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("sgd"), description="made anew each round"
    )


def told_of_bridge_samples(agent: Agent, memory: str, keys: Any, context: Context) -> tuple[Rows, torch.Tensor]:
    """Return what the agent's model says of bridge samples, with codes and labels; and which are new, bool [N].

    A learner speaks of its own; it finds their codes by ``keys``, a choice among :data:`.keys.KEYS`, when it first
    does so. An aggregator speaks of all in its memory, each marked with whose it is. New is what came to its memory in
    this round: nobody above it has heard the codes of these.
    """
    store = agent.memory.store(memory)
    if agent.role == "learner" and not _has_own(agent, store):
        ids = agent.train_ids.sort().values
        codes = KEYS[keys.name].function(agent, ids, keys.parameters, context)
        nothing, ones = torch.zeros(len(ids), context.world.classes), torch.ones(len(ids), dtype=torch.float64)
        made = Rows("logits", ids, nothing, ones, float(len(ids)), context.world.y_train[ids], keys=codes)
        _hold(agent, memory, cast(Rows, marked(made, agent.name)), context)
    entries = store.all()
    rows = rows_of(entries, "logits")
    assert rows.owners is not None
    whose = len(rows.contributors)
    fresh = torch.tensor((entries.ids * whose + entries.owners)[entries.rounds == context.round])
    new = torch.isin(rows.ids * whose + rows.owners, fresh)
    if agent.role == "learner":
        mine = rows.owners == (rows.contributors.index(agent.name) if agent.name in rows.contributors else -1)
        rows, new = rows.of(agent.name), new[mine]
    return replace(rows, values=_answers(agent, rows, context)), new


@ABSORBS.register("bridge_samples", BridgeSamples)
def bridge_samples(agent: Agent, received: Any, said: BridgeSamples, context: Context) -> None:
    """The model learns bridge samples and what was said of them; an aggregator then answers what it says now (FedAgg).

    Wu et al. 2024 (INFOCOM), the protocol BSBODP: cross entropy plus gamma KL on samples decoded from codes; a learner
    that hears of its own adds cross entropy on the samples themselves. Codes and labels that come along go to
    ``memory``, where later rounds find them. Among peers each is a parent to its neighbours and a leaf to itself.
    """
    assert isinstance(received, Rows)
    rows = cast(Rows, marked(received, agent.name))
    if rows.keys is not None:
        _hold(agent, said.memory, rows.part((rows.keys != 0).any(1)), context)
    known = completed(rows, agent.memory.store(said.memory))
    agent.memory.note(
        Event(context.place, "refused", said.memory, rows.items - known.items, "no code is held of some bridge samples")
    )
    if known.items:
        _learn(agent, known, said, context)
    if agent.role != "learner":
        answers = replace(known, values=_answers(agent, known, context), classes=None, keys=None, addressed=True)
        agent.memory.hold("working", "received", answers, context.round)


def _learn(agent: Agent, rows: Rows, said: BridgeSamples, context: Context) -> None:
    """Take gradient steps on bridge samples: as a parent on those of others, as a leaf on those of the agent's own."""
    codes, labels, owners = rows.keys, rows.classes, rows.owners
    assert codes is not None and labels is not None and owners is not None
    world, model, decode = context.world, agent.network(), _decoder(agent, codes.shape[1], context)
    mine = owners == (rows.contributors.index(agent.name) if agent.name in rows.contributors else -1)
    way = "from above" if rows.addressed or bool(mine.all()) else "from below"
    model.train()
    steps, places = Steps(said.optimizer, model.parameters()), torch.arange(rows.items)
    for epoch in range(said.epochs):
        for chosen in batches(places, said.batch, False, agent.stream(context, "bridge", way, epoch)):
            given, own = model(decode(codes[chosen]).view(-1, *world.x_train.shape[1:])), mine[chosen]
            loss = torch.nn.functional.cross_entropy(given, labels[chosen]) * said.ce_weight
            for some, weight in ((own, said.own_kd_weight), (~own, said.kd_weight)):
                if some.any():
                    apart = losses.kl_divergence(given[some], rows.values[chosen][some], said.temperature)
                    loss = loss + apart * (weight * some.sum() / len(some))
            if said.own_ce_weight and own.any():
                ids = rows.ids[chosen][own]
                task = torch.nn.functional.cross_entropy(model(world.x_train[ids]), world.y_train[ids])
                loss = loss + task * (said.own_ce_weight * own.sum() / len(own))
            steps.down(loss)


def _answers(agent: Agent, rows: Rows, context: Context) -> torch.Tensor:
    """Return the logits [N, C] of the agent's model on the samples that the rows' codes stand for."""
    if rows.keys is None or not rows.items:
        return torch.zeros(rows.items, context.world.classes)
    shape, model = context.world.x_train.shape[1:], agent.network().eval()
    decode = _decoder(agent, rows.keys.shape[1], context)
    with torch.no_grad():
        return torch.cat([model(decode(part).view(-1, *shape)) for part in rows.keys.split(512)])


def _decoder(agent: Agent, width: int, context: Context) -> torch.nn.Module:
    """Return what makes flat samples [N, D] of codes [N, ``width``]: the code's mean plus codes times its axes."""

    def build() -> torch.nn.Module:
        center, axes = components(width, context)
        made = torch.nn.Linear(axes.shape[1], axes.shape[0])
        made.load_state_dict({"weight": axes.clone(), "bias": center.clone()})
        return made.requires_grad_(False)

    return agent.module(DECODER, context, build).requires_grad_(False)


def _has_own(agent: Agent, store: Any) -> bool:
    held = store.get(agent.train_ids.numpy(), agent.name, missing="skip")
    return len(held) == len(agent.train_ids)


def _hold(agent: Agent, memory: str, rows: Rows, context: Context) -> None:
    stream = numpy_stream(context.seed, "agent", agent.name, context.round, context.place, "bridge")
    done = agent.memory.store(memory).put(entries_of(rows, agent.name, context.round), context.round, stream)
    agent.memory.note(Event(context.place, "refused", memory, done.refused))
    agent.memory.note(Event(context.place, "evicted", memory, done.evicted))
