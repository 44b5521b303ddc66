"""The operation ``train``: an agent learns from its own samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from . import accounting
from .agent import Agent, Context
from .batches import batches
from .choice import Choice, choice, tagged, when_asked
from .late import late
from .observe import Observer, observers
from .optimizers import Optimizer, Steps
from .parameters import Step
from .private_steps import Private, PrivateTraining, poisson_batches
from .registry import Registry
from .terms import TERMS, Batch, Term

if TYPE_CHECKING:
    import torch

    from .networks import Network
else:
    torch = late("torch")

if TYPE_CHECKING:
    TermChoice = Choice
else:
    TermChoice = choice("Term", TERMS, "A loss that is added to cross entropy.")


TRAINS: Registry[Callable[..., None]] = Registry("trains")
"""Ways to learn from an agent's own data, by the kind of data: ``function(agent, said, context)``."""


class Train(Step):
    """Local training with cross entropy and the terms that a method adds."""

    by: ClassVar[str] = "samples"
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="passes over the samples")
    batch: Annotated[int, Field(ge=1)] = Field(32, description="samples a step")
    drop_last: bool = Field(False, description="leave out the last batch of an epoch when it is not full")
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("sgd"), description="made anew each round"
    )
    ce_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of cross entropy to the labels")
    losses: list[TermChoice] = Field(default_factory=list, description="terms added to cross entropy")
    on: Literal["private", "public"] = Field("private", description="whose samples; public ones need labels")
    private: Private | None = Field(None, description="steps that keep each single sample private")

    def alone(self) -> dict[str, Any]:
        """Return the same step as a spec would write it, for an agent that nobody tells anything."""
        said = self.model_dump(mode="json", by_alias=True)
        guarded = said["private"] if said["private"] is not None and said["private"]["of"] == "model" else None
        return said | {"losses": [], "ce_weight": 1.0, "private": guarded}

    def work(self, samples: int, public: int, model: float, companion: float) -> float:
        """Return the floating point operations of the step: two a multiply-add, three passes a sample.

        ``samples`` of the agent's own, ``public`` ones, and multiply-adds a sample of its models.
        """
        both = any(getattr(term.parameters, "needs_companion", False) for term in self.losses)
        passes = 3 * self.epochs * (model + (companion if both else 0))
        again = any(term.name == "not_true" for term in self.losses) * model
        return 2.0 * (samples if self.on == "private" else public) * (passes + again)


def train(agent: Agent, parameters: Any, context: Context) -> None:
    """An agent's model learns from its own samples, one optimizer step a batch."""
    TRAINS[parameters.by].function(agent, parameters, context)


@TRAINS.register("samples", Train)
def train_on_samples(agent: Agent, parameters: Train, context: Context) -> None:
    """Cross entropy to the labels of samples, and the terms that a method adds."""
    world, model = context.world, agent.network()
    ids = agent.train_ids if parameters.on == "private" else world.public
    if not len(ids):
        return
    model.train()
    terms = _terms(agent, parameters, context)
    watching = observers(context.observe, world.classes) if parameters.on == "private" else []
    if parameters.private is not None:
        _privately(agent, parameters, parameters.private, terms, watching, context)
    else:
        _plainly(agent, parameters, ids, terms, watching, context)
    for observer in watching:
        agent.memory.hold("working", f"seen:{observer.form}", observer.result(), context.round)


if TYPE_CHECKING:
    TrainStep: Any
else:
    __getattr__ = when_asked(TrainStep=lambda: tagged("Train", TRAINS, "by", default="samples"))


def _plainly(
    agent: Agent, parameters: Train, ids: torch.Tensor, terms: list[Term], watching: list[Observer], context: Context
) -> None:
    world, model = context.world, agent.network()
    weights = [*model.parameters(), *(w for term in terms for w in term.parameters)]
    steps = Steps(parameters.optimizer, weights)
    for epoch in range(parameters.epochs):
        shuffle = agent.stream(context, "shuffle", parameters.on, epoch)
        last = watching if epoch == parameters.epochs - 1 else []
        for chosen in batches(ids, parameters.batch, parameters.drop_last, shuffle):
            _step(model, steps, terms, last, world.x_train[chosen], world.y_train[chosen], chosen, parameters.ce_weight)


def _privately(
    agent: Agent, parameters: Train, said: Private, terms: list[Term], watching: list[Observer], context: Context
) -> None:
    """Train with private steps, and put them on the agent's account."""
    world, ids = context.world, agent.train_ids
    size = min(parameters.batch, len(ids))
    training = PrivateTraining(agent, said, parameters.optimizer, terms, parameters.ce_weight, size)
    taken = 0
    for epoch in range(parameters.epochs):
        draw = agent.stream(context, "shuffle", parameters.on, epoch)
        noise = agent.stream(context, "noise", epoch)
        last = watching if epoch == parameters.epochs - 1 else []
        if said.sampling == "poisson":
            drawn = poisson_batches(ids, parameters.batch, draw)
        else:
            drawn = batches(ids, parameters.batch, parameters.drop_last, draw)
        for chosen in drawn:
            training.step(world.x_train[chosen], world.y_train[chosen], chosen, last, noise)
        taken += len(drawn)
    spent = accounting.Spent(said.noise, size / len(ids), taken)
    accounting.count(agent, spent, said.delta, context.round)


def _terms(agent: Agent, parameters: Train, context: Context) -> list[Term]:
    made = (TERMS[said.name].function(agent, said.parameters, context) for said in parameters.losses)
    return [term for term in made if term is not None]


def _step(
    model: Network,
    steps: Steps,
    terms: list[Term],
    watching: list[Observer],
    x: torch.Tensor,
    y: torch.Tensor,
    ids: torch.Tensor,
    ce_weight: float,
) -> None:
    features = model.body(x)
    logits = model.head(features)
    task = torch.nn.functional.cross_entropy(logits, y)
    loss = task if ce_weight == 1 else task * ce_weight
    if terms:
        batch = Batch(ids, x, y, features, logits, task)
        for term in terms:
            loss = loss + term.loss(batch)
    steps.down(loss)
    for observer in watching:
        observer.see(y, features, logits)
