"""The rule ``adversarial``: a consensus, and a discriminator that tells contributors apart (FedAL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..discriminator import DISCRIMINATOR, grown, made, packed
from ..knowledge import Rows, together
from ..late import late
from ..optimizers import Optimizer, Steps
from .contributors import by_name, owners_of
from .door import Merge
from .means import mean_of_rows
from .registry import AGGREGATES

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class AdversarialConsensus(Merge):
    """FedAL."""

    takes: ClassVar[tuple[str, ...]] = ("logits",)
    scale: ClassVar[str | None] = "logits"
    exclude_self: Literal[False] = Field(False, description="the discriminator must have seen everybody's answers")
    valence: None = Field(None, description="this rule makes a valence of its own")
    epochs: Annotated[int, Field(ge=1)] = Field(1, description="the discriminator's passes over all answers each round")
    batch: Annotated[int, Field(ge=1)] = Field(64, description="answers a step")
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("adam"),
        description="of the discriminator; made anew each round",
    )
    hidden: Annotated[int, Field(ge=1)] = Field(64, description="width of the discriminator's hidden layer")

    def brings(self, classes: int, features: int, contributors: int) -> tuple[int, int]:
        """Return the numbers and the tensors of the discriminator."""
        return (classes + 1) * self.hidden + contributors * (self.hidden + 1), 2 + contributors


@AGGREGATES.register("adversarial", AdversarialConsensus)
def adversarial(agent: Agent, packets: Sequence[Rows], said: AdversarialConsensus, context: Context) -> Rows:
    """The mean logits, with a discriminator that has learned to tell whose answer a row is (FedAL).

    Han et al. 2024: the server's part of the min-max game, cross entropy over contributors, on the softmax of each row
    of logits. The aggregator keeps the discriminator, and in emotional memory, under ``valence``, how surely it knows
    each contributor by its answers: the mean probability that it gives to the right name. A contributor that was never
    heard before gets an output of its own.
    """
    if not context.final:
        return together(packets)
    rows = by_name(packets)
    held = agent.memory.recall("emotional", "valence")
    before = held if isinstance(held, Rows) else None
    known, network = _known(agent, rows, before, said, context)
    places = torch.tensor([known.index(name) for name in rows.contributors], dtype=torch.int64)
    answers, whose = torch.softmax(rows.values, dim=1), places[owners_of(rows)]
    _learn(network, answers, whose, said, agent, context)
    agent.memory.hold("emotional", "valence", _valence(network, answers, whose, known, before), context.round)
    return replace(mean_of_rows([rows]), attached=packed(network, known))


def _known(
    agent: Agent, rows: Rows, before: Rows | None, said: AdversarialConsensus, context: Context
) -> tuple[list[str], torch.nn.Module]:
    """Return everybody known, those of before first, and the discriminator with an output for each.

    Whoever has no memory of whom it knew begins anew.
    """
    if before is None:
        agent.models.pop(DISCRIMINATOR, None)
        agent.parked.pop(DISCRIMINATOR, None)
    known = list(rows.contributors if before is None else before.contributors)
    new = [name for name in rows.contributors if name not in known]
    network = agent.module(DISCRIMINATOR, context, lambda: made(rows.values.shape[1], said.hidden, len(known)))
    if new:
        network = agent.models[DISCRIMINATOR] = grown(network, len(new), agent.stream(context, DISCRIMINATOR, *new))
    return known + new, network


def _learn(
    network: torch.nn.Module,
    answers: torch.Tensor,
    whose: torch.Tensor,
    said: AdversarialConsensus,
    agent: Agent,
    context: Context,
) -> None:
    """Train the discriminator on ``answers`` [N, C] of contributors ``whose`` [N]."""
    steps, places = Steps(said.optimizer, network.parameters()), torch.arange(len(answers))
    for epoch in range(said.epochs):
        for chosen in batches(places, said.batch, False, agent.stream(context, "answers", epoch)):
            steps.down(torch.nn.functional.cross_entropy(network(answers[chosen]), whose[chosen]))


def _valence(
    network: torch.nn.Module, answers: torch.Tensor, whose: torch.Tensor, known: list[str], before: Rows | None
) -> Rows:
    """Return the mean probability of the right name, [A, 1]; of whom nothing was heard, what was held before."""
    surely = torch.zeros(len(known), 1)
    if before is not None:
        surely[owners_of(before)] = before.values
    with torch.no_grad():
        right = torch.softmax(network(answers), dim=1).gather(1, whose[:, None])
    counts = torch.bincount(whose, minlength=len(known))[:, None]
    sums = torch.zeros(len(known), 1).index_add_(0, whose, right)
    surely = torch.where(counts > 0, sums / counts.clamp(min=1), surely)
    places = torch.arange(len(known))
    return Rows("valence", places, surely, torch.ones(len(known)).double(), contributors=tuple(known), owners=places)
