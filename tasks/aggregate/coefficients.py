"""The rule ``coefficients``: each contributor gets its own mixture of what all said (KT-pFL)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import Rows, together
from ..late import late
from ..optimizers import Optimizer, Steps
from .contributors import by_name, dense, owners_of
from .door import Merge
from .means import mean_of_rows
from .registry import AGGREGATES

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class Coefficients(Merge):
    """KT-pFL."""

    takes: ClassVar[tuple[str, ...]] = ("logits",)
    exclude_self: Literal[False] = Field(False, description="how much an agent hears itself is learned as well")
    valence: None = Field(None, description="this rule makes a valence of its own")
    steps: Annotated[int, Field(ge=1)] = Field(1, description="gradient steps on the coefficients each round")
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate({"sgd": {"lr": 0.5}}), description="of the coefficients"
    )
    uniform_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="weight of the squared distance from equal coefficients (rho)"
    )
    sharpness: Annotated[float, Field(gt=0)] = Field(
        5.0, description="after the steps a row of coefficients becomes softmax(sharpness * row)"
    )


@AGGREGATES.register("coefficients", Coefficients)
def coefficients(agent: Agent, packets: Sequence[Rows], said: Coefficients, context: Context) -> Rows:
    """Gives each contributor its own mixture of what all said, by coefficients that are learned (KT-pFL).

    Zhang et al. 2021. The coefficients stay in emotional memory under ``valence``, a row for each contributor
    that was ever heard: how much of each other it is given. The answer is addressed: rows for each contributor.
    Coefficients know no sample sizes, whatever ``weight`` says.
    """
    if not context.final:
        return together(packets)
    rows = by_name(packets)
    ids, values, there = dense(rows)
    known, matrix = enlarged(agent.memory.recall("emotional", "valence"), rows.contributors)
    heard = torch.tensor([known.index(name) for name in rows.contributors], dtype=torch.int64)
    block = (heard[:, None], heard)
    mass = matrix[block].sum(dim=1, keepdim=True)
    learned = learn(torch.where(mass > 0, matrix[block] / mass, 1 / len(heard)), values, there, said)
    # Who was not heard keeps its share of each row: a row still sums to one when it comes back.
    matrix[block] = learned * mass
    places = torch.arange(len(known))
    kept = Rows("valence", places, matrix, torch.ones(len(known)).double(), contributors=tuple(known), owners=places)
    agent.memory.hold("emotional", "valence", kept, context.round)
    behind = mean_of_rows([rows])
    return Rows(
        rows.form,
        ids.repeat_interleave(len(heard)),
        mixed(learned, values, there).transpose(0, 1).flatten(0, 1),
        behind.weights.repeat_interleave(len(heard)),
        behind.samples,
        contributors=rows.contributors,
        owners=torch.arange(len(heard)).repeat(len(ids)),
        addressed=True,
    )


def enlarged(held: object, names: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """Return all names known, those of before first, and their coefficients [A, A], each row summing to one.

    A new contributor begins with equal coefficients and takes an equal share of every row; so does one whose row was
    forgotten.
    """
    before = list(held.contributors) if isinstance(held, Rows) else []
    known = before + sorted(set(names) - set(before))
    matrix = torch.full((len(known), len(known)), 1 / len(known))
    if isinstance(held, Rows):
        matrix[owners_of(held), : len(before)] = held.values * (len(before) / len(known))
    return known, matrix


def learn(start: torch.Tensor, values: torch.Tensor, there: torch.Tensor, said: Coefficients) -> torch.Tensor:
    """Return the coefficients float32 [K, K] after a round's steps from ``start``, each row on the simplex.

    ``values`` [K, N, C], ``there`` bool [K, N]: what each contributor said, and where it said something. A row's loss:
    the mean squared distance over samples and classes between what its contributor said and the mixture for it, plus
    rho ||row - 1 / K||^2 (Zhang et al. 2021, with the distance of the authors' code). The softmax that brings
    a row back to the simplex is the code's as well.
    """
    weights = torch.nn.Parameter(start.clone())
    steps = Steps(said.optimizer, [weights])
    counts = there.sum(dim=1).clamp(min=1) * values.shape[2]
    for _ in range(said.steps):
        apart = (mixed(weights, values, there) - values).square().sum(dim=2)
        distance = torch.where(there, apart, 0).sum(dim=1) / counts
        uneven = (weights - 1 / len(weights)).square().sum(dim=1)
        steps.down((distance + uneven * said.uniform_weight).sum())
    return torch.softmax(weights.detach() * said.sharpness, dim=1)


def mixed(weights: torch.Tensor, values: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Return each contributor's mixture [K, N, C] of ``values`` [K, N, C] by its row of ``weights`` [K, K].

    Where some say nothing of a sample, the others' coefficients are scaled up to the same sum.
    """
    count, samples, width = values.shape
    sums = (weights @ values.flatten(1)).view(count, samples, width)
    if bool(there.all()):
        return sums
    given = weights.detach()
    spoken = given @ there.to(given.dtype)
    return sums * (given.sum(dim=1, keepdim=True) / spoken)[:, :, None]
