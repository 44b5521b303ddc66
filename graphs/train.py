"""Local training on triples: ``train: {by: triples}``, and what lets triples go: ``train: {by: unlearning}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ..tasks.agent import Agent, Context
from ..tasks.choice import Choice, choice
from ..tasks.late import late
from ..tasks.memory import Event
from ..tasks.parameters import Step, When, due
from ..tasks.train import TRAINS
from .settings import Fit
from .terms import GRAPH_TERMS

if TYPE_CHECKING:
    import torch

    from . import fit, known, world
    from .fit import Term
else:
    fit = late("codistill.graphs.fit")
    known = late("codistill.graphs.known")
    torch = late("torch")
    world = late("codistill.graphs.world")

if TYPE_CHECKING:
    TermChoice = Choice
else:
    TermChoice = choice("GraphTerm", GRAPH_TERMS, "A loss that is added to that of true and corrupted triples.")


class TrainOnTriples(Fit, Step):
    """Local training with corrupted triples, or against all entities."""

    reads: ClassVar[str] = "triples"
    on: ClassVar[str] = "private"
    private: ClassVar[None] = None

    losses: list[TermChoice] = Field(default_factory=list, description="terms added to the loss of triples")
    without_forgotten: When | None = Field(
        None, description="the rounds in which an agent no longer learns the triples that it is asked to forget"
    )

    def alone(self) -> dict[str, Any]:
        """Return the same step as a spec would write it, for an agent that nobody tells anything."""
        return self.model_dump(mode="json", by_alias=True) | {"losses": []}

    def work(self, samples: int, public: int, model: float, companion: float) -> float:
        """Return the floating point operations of the step: two a multiply-add, three passes a score."""
        both = any(getattr(term.parameters, "needs_companion", False) for term in self.losses)
        return 6.0 * self.epochs * samples * (1 + self.negatives) * (model + (companion if both else 0))


@TRAINS.register("triples", TrainOnTriples)
def train_on_triples(agent: Agent, said: TrainOnTriples, context: Context) -> None:
    """Self-adversarial negative sampling or 1-vs-all on an agent's triples, and the terms that a method adds.

    An agent whose loss stops being a number learns nothing more in this step; that is counted, and the run goes on.
    """
    held = world.graph_of(context).share(agent)
    forgotten = said.without_forgotten is not None and due(said.without_forgotten, context.round)
    triples, true = (held.kept, held.trained_kept) if forgotten else (held.train, held.trained)
    if not len(triples):
        return
    made = [GRAPH_TERMS[term.name].function(agent, term.parameters, said, context) for term in said.losses]
    terms = [term for term in made if term is not None]
    descend(agent, said, context, triples, true, terms)


def descend(
    agent: Agent,
    said: Fit,
    context: Context,
    triples: torch.Tensor,
    true: known.KnownTriples,
    terms: list[Any],
) -> None:
    """Train the agent's model on ``triples`` int64 [N, 3], where those that are ``true`` are no negatives."""
    losses: list[Term] = [term.loss for term in terms]
    try:
        fit.fit(
            agent.models["model"],  # type: ignore[arg-type]
            triples,
            said,
            agent.stream(context, "triples"),
            known=true if said.filtered else None,
            terms=losses,
            beside=[one for term in terms for one in term.embeddings],
            more=[one for term in terms for one in term.parameters],
        )
    except fit.DivergedError as error:
        agent.memory.note(Event(context.place, "refused", "train", len(triples), str(error)))
    for term in terms:
        if term.afterwards is not None:
            term.afterwards()
