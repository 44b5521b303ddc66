"""The rule ``train_on_features``: a larger network goes on where agents' models were cut (FedGKT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..batches import batches
from ..knowledge import Rows, together
from ..late import late
from ..models import Width
from ..optimizers import Optimizer, Steps
from .door import Merge
from .registry import AGGREGATES

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")

MODULE = "beyond_the_cut"
"""The name under which an aggregator keeps the network that takes features."""

Weight = Annotated[float, Field(ge=0)]


class TrainOnFeatures(Merge):
    """FedGKT."""

    takes: ClassVar[tuple[str, ...]] = ("logits",)
    scale: ClassVar[str | None] = "logits"
    side_by_side: ClassVar[bool] = True
    equal_features: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("labels", "keys")
    exclude_self: Literal[False] = Field(False, description="what is trained on all cannot leave one out")
    hidden: list[Width] = Field([256, 128], description="units of each hidden layer of the network over features")
    epochs: Annotated[int, Field(ge=1)] = Field(1, description="passes over all that was told, each round")
    batch: Annotated[int, Field(ge=1)] = Field(32, description="rows a step, of all agents mixed")
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate("sgd"), description="made anew each round"
    )
    ce_weight: Weight = Field(1.0, description="weight of cross entropy to the labels that were told")
    kd_weight: Weight = Field(1.0, description="weight of the distillation from the agents' logits")
    temperature: Annotated[float, Field(gt=0)] = Field(3.0, description="of both; the term is scaled by T squared")


@AGGREGATES.register("train_on_features", TrainOnFeatures)
def train_on_features(agent: Agent, packets: Sequence[Rows], said: TrainOnFeatures, context: Context) -> Rows:
    """Trains a network on features, labels and logits of all agents' samples, and answers with its own logits (FedGKT).

    He et al. 2020, algorithm 1: cross entropy plus KL from each agent's logits to the network's. The network stays with
    who merges and goes on learning in the next round. The answer is addressed: each agent's samples, by their ids.
    Every sample counts alike, whatever ``weight`` says. ``ValueError`` where features or labels are not told, or
    features of two agents are not equally wide.
    """
    _of_one_width(packets)
    rows = together(packets)
    if not context.final:
        return rows
    features, labels = rows.keys, rows.classes
    assert features is not None and labels is not None  # as found above
    width, classes = features.shape[1], context.world.classes
    network = agent.module(MODULE, context, lambda: _network(width, said.hidden, classes)).train()
    steps = Steps(said.optimizer, network.parameters())
    places = torch.arange(rows.items)
    for epoch in range(said.epochs):
        for chosen in batches(places, said.batch, False, agent.stream(context, "features", epoch)):
            given = network(features[chosen])
            task = torch.nn.functional.cross_entropy(given, labels[chosen])
            apart = losses.kl_divergence(given, rows.values[chosen], said.temperature)
            steps.down(task * said.ce_weight + apart * said.kd_weight)
    network.eval()
    with torch.no_grad():
        answers = torch.cat([network(part) for part in features.split(512)])
    alike = torch.ones_like(rows.weights)
    return replace(rows, values=answers, weights=alike, classes=None, keys=None, addressed=True)


def _of_one_width(packets: Sequence[Rows]) -> None:
    """Raise ``ValueError`` where features cannot be learned from together."""
    for packet in packets:
        if packet.keys is None or packet.classes is None:
            missing = "features" if packet.keys is None else "labels"
            raise ValueError(
                f"{_names(packet)} told no {missing} with its logits, and the rule train_on_features learns from them; "
                "write `labels: true, keys: features` in the extract, and no `keys_when`"
            )
    widths = [(packet, packet.keys.shape[1]) for packet in packets if packet.keys is not None]
    other = next(((packet, width) for packet, width in widths if width != widths[0][1]), None)
    if other is not None:
        raise ValueError(
            f"the rule train_on_features needs features of one width: those of {_names(packets[0])} are {widths[0][1]} "
            f"wide, those of {_names(other[0])} {other[1]}; give agents models with equally many features"
        )


def _names(packet: Rows) -> str:
    return " and ".join(packet.contributors[:3]) + (" and others" if len(packet.contributors) > 3 else "")


def _network(width: int, hidden: Sequence[int], classes: int) -> torch.nn.Sequential:
    """Return what makes logits [N, ``classes``] of features [N, ``width``]."""
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise([width, *hidden]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear([width, *hidden][-1], classes))
