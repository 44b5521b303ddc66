"""Letting triples go: ``train: {by: unlearning}`` (FedLU's retroactive interference)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ..tasks.agent import Agent, Context
from ..tasks.late import late
from ..tasks.memory import Event
from ..tasks.parameters import Step
from ..tasks.train import TRAINS

if TYPE_CHECKING:
    import torch

    from . import adam, negatives, world
    from .embedding import Embedding
else:
    torch = late("torch")
    adam = late("codistill.graphs.adam")
    negatives = late("codistill.graphs.negatives")
    world = late("codistill.graphs.world")

Weight = Annotated[float, Field(ge=0)]


class Unlearn(Step):
    """Confusion of the triples that an agent is asked to forget."""

    reads: ClassVar[str] = "triples"
    on: ClassVar[str] = "private"
    private: ClassVar[None] = None
    losses: ClassVar[tuple[Any, ...]] = ()

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="passes over the triples to be forgotten")
    batch: Annotated[int, Field(ge=1)] = Field(128, description="triples a step")
    negatives: Annotated[int, Field(ge=1)] = Field(64, description="corrupted triples that each is confused with")
    lr: Annotated[float, Field(gt=0, le=10)] = Field(0.001, description="learning rate of Adam, made anew each round")
    hard_weight: Weight = Field(1.0, description="weight of taking a triple for a false one")
    soft_weight: Weight = Field(1.0, description="weight of the distance between its score and those of false ones")

    def alone(self) -> dict[str, Any]:
        """Return the same step: forgetting needs nobody else."""
        return self.model_dump(mode="json", by_alias=True)

    def work(self, samples: int, public: int, model: float, companion: float) -> float:
        """Return no operations: triples to be forgotten are few."""
        return 0.0


@TRAINS.register("unlearning", Unlearn)
def unlearn(agent: Agent, said: Unlearn, context: Context) -> None:
    """Confuses the triples that an agent is asked to forget with false ones: hard and soft confusion (FedLU).

    Zhu, Li and Hu 2023, retroactive interference: -log sigmoid(-margin - s) of each triple, as of a negative, and
    |s - s'| for its corrupted triples s'. What the companion still holds of them decays while both learn each other's
    scores, with ``without_forgotten`` in the other ``train``.
    """
    held, model = world.graph_of(context).share(agent), agent.models["model"]
    if not len(held.unlearn):
        return
    embedding: Embedding = model  # type: ignore[assignment]
    tables = (embedding.entities, embedding.relations, *embedding.weights)
    units = (1.0, embedding.relation_unit, *(1.0 for _ in embedding.weights))
    steps = [adam.TableAdam(table.data, said.lr, unit) for table, unit in zip(tables, units, strict=True)]
    generator, count = agent.stream(context, "unlearn"), 0
    for _ in range(said.epochs):
        for chosen in torch.randperm(len(held.unlearn), generator=generator).split(said.batch):
            loss = _confusion(embedding, held.unlearn[chosen], said, generator, "head" if count % 2 == 0 else "tail")
            for step, gradient in zip(steps, torch.autograd.grad(loss, tables), strict=True):
                step.step(gradient)
            count += 1
    agent.memory.note(Event(context.place, "unlearned", "triples", len(held.unlearn)))


def _confusion(
    embedding: Embedding, triples: torch.Tensor, said: Unlearn, generator: torch.Generator, side: Any
) -> torch.Tensor:
    false = negatives.own_negatives(triples, said.negatives, side, len(embedding.entities), generator, None)
    rows = embedding.rows(triples)
    score = embedding.score_triples(triples, rows)
    hard = -torch.nn.functional.logsigmoid(-embedding.logit_margin - score).mean()
    soft = (score[:, None] - embedding.score_candidates(triples, false, side, rows)).abs().mean()
    return hard * said.hard_weight + soft * said.soft_weight
