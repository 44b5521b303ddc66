"""The operation ``extract``: an agent makes knowledge out of what it has learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from .absorb.bridge import told_of_bridge_samples
from .agent import Agent, Context
from .choice import tagged, when_asked
from .filters import FilterChoice, apply_filters
from .keys import KEYS, KeyChoice
from .knowledge import Knowledge, Models, Rows
from .late import late
from .memory import Event
from .observe import Observer
from .parameters import Name, Step, When, due
from .registry import Registry
from .score import score

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

EXTRACTS: Registry[Callable[..., Knowledge]] = Registry("extracts")


class OfModel(Step):
    """Which of the agent's models."""

    of: Literal["model", "companion"] = Field("model", description="the agent's own model, or its companion")


class ExtractParameters(OfModel):
    """Weights."""

    labels: bool = Field(False, description="tell how many training samples of each class stand behind them")


class ExtractLogits(OfModel):
    """Scores on samples that everybody holds, or on the agent's own, addressed by their ids."""

    source: Literal["public", "private", "bridge"] = Field(
        "public", alias="from", description="the samples that are scored; bridge: what codes of private ones stand for"
    )
    memory: Name | None = Field(None, description="the declared memory that holds the codes of bridge samples")
    scale: Literal["logits", "probabilities"] = Field("logits", description="before or after the softmax")
    labels: bool = Field(False, description="tell the label of each sample")
    keys: KeyChoice | None = Field(None, description="tell by what each sample is found")
    keys_when: When | Literal["first"] | None = Field(
        None,
        description="when labels and keys are told: in some rounds, or first, each agent the first time that it takes "
        "part; nothing said: always",
    )
    filters: list[FilterChoice] = Field(
        default_factory=list, description="which of the rows are told to others; the rest are counted"
    )


class ExtractByClass(OfModel):
    """Means by class over the agent's own samples."""

    source: Literal["training", "private"] = Field(
        "training",
        alias="from",
        description="gathered from the batches of the last epoch as they pass, or by a pass of its own afterwards",
    )


@EXTRACTS.register("parameters", ExtractParameters)
def parameters(agent: Agent, said: ExtractParameters, context: Context) -> Models:
    """The weights of the agent's model."""
    state = {name: value.detach().clone() for name, value in agent.models[said.of].state_dict().items()}
    identity = agent.architectures[said.of].name
    labels = {}
    if said.labels:
        own = context.world.y_train[agent.train_ids]
        labels[identity] = torch.bincount(own, minlength=context.world.classes).double()
    return Models({identity: state}, {identity: float(agent.samples)}, labels)


@EXTRACTS.register("logits", ExtractLogits)
def logits(agent: Agent, said: ExtractLogits, context: Context) -> Rows:
    """Scores on public samples, on the agent's own, or on bridge samples, by sample id."""
    if said.source == "bridge":
        return _bridge(agent, said, context)
    world, told = context.world, _telling(agent, said, context)
    ids = world.public if said.source == "public" else agent.train_ids.sort().values
    scores = score(agent.models[said.of], world.x_train, ids)
    if said.scale == "probabilities":
        scores = torch.softmax(scores, dim=1)
    weights = torch.full((len(scores),), float(max(agent.samples, 1)), dtype=torch.float64)
    classes = world.y_train[ids] if said.labels and told else None
    keys = None
    if said.keys is not None and told:
        keys = KEYS[said.keys.name].function(agent, ids, said.keys.parameters, context)
    made = Rows("logits", ids, scores, weights, float(agent.samples), classes, keys=keys)
    if not said.filters:
        return made
    found = apply_filters(agent, made, said.filters, context)
    for name, count in found.dropped.items():
        agent.memory.note(Event(context.place, "filtered", name, count))
    return found.rows


def _bridge(agent: Agent, said: ExtractLogits, context: Context) -> Rows:
    """Return scores on bridge samples; codes and labels are told when it is said, or once of each sample.

    Where some are told and others are not, those have a key of zeros and the class -1.
    """
    assert said.memory is not None and said.of == "model"  # the check refuses others
    rows, new = told_of_bridge_samples(agent, said.memory, said.keys, context)
    told = new if said.keys_when == "first" else torch.full_like(new, due(said.keys_when, context.round))
    if rows.keys is None or rows.classes is None or not bool(told.any()):
        return replace(rows, classes=None, keys=None)
    return replace(rows, classes=rows.classes.where(told, torch.tensor(-1)), keys=rows.keys * told[:, None])


def _telling(agent: Agent, said: ExtractLogits, context: Context) -> bool:
    """Whether labels and keys are told now. That an agent told them once it keeps in mind as a piece without rows."""
    if said.keys_when != "first":
        return due(said.keys_when, context.round)
    mark = f"told {context.place}"
    if agent.memory.recall("episodic", mark) is not None:
        return False
    nothing = torch.empty(0, dtype=torch.int64)
    agent.memory.hold("episodic", mark, Rows("logits", nothing, torch.empty(0, 1), nothing.double()), context.round)
    return True


@EXTRACTS.register("class_logits", ExtractByClass)
def class_logits(agent: Agent, said: ExtractByClass, context: Context) -> Rows:
    """The mean logits of each class that the agent has samples of."""
    return _by_class("class_logits", agent, said, context)


@EXTRACTS.register("prototypes", ExtractByClass)
def prototypes(agent: Agent, said: ExtractByClass, context: Context) -> Rows:
    """The mean features of each class that the agent has samples of."""
    return _by_class("prototypes", agent, said, context)


def _by_class(form: str, agent: Agent, said: ExtractByClass, context: Context) -> Rows:
    if said.source == "training":
        seen = agent.memory.recall("working", f"seen:{form}")
        if not isinstance(seen, Rows):
            raise RuntimeError(f"{agent.name}: nothing was gathered while training; a train step must come first")
        return seen
    model, world = agent.network(said.of), context.world
    model.eval()
    observer = Observer(form, world.classes)
    with torch.no_grad():
        for ids in agent.train_ids.split(512):
            features = model.body(world.x_train[ids])
            observer.see(world.y_train[ids], features, model.head(features))
    return observer.result()


if TYPE_CHECKING:
    Extract: Any
else:
    __getattr__ = when_asked(Extract=lambda: tagged("Extract", EXTRACTS, "knowledge"))


def extract(agent: Agent, parameters: Any, context: Context) -> None:
    """An agent makes knowledge out of what it has learned and lays it out to be shared."""
    made = EXTRACTS[parameters.knowledge].function(agent, parameters, context)
    agent.memory.hold("working", "to share", made, context.round)
