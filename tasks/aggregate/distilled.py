"""The rule ``distilled``: averages, then distils all models into each average on public samples (FedDF)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import Models
from ..late import late
from ..optimizers import Optimizer, Steps
from ..score import score
from .door import Merge
from .means import mean_of_models
from .registry import AGGREGATES

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")


class Distilled(Merge):
    """FedDF."""

    takes: ClassVar[tuple[str, ...]] = ("parameters",)
    one_out: ClassVar[bool] = False
    steps: Annotated[int, Field(ge=1)] = Field(100, description="optimizer steps for each architecture")
    batch: Annotated[int, Field(ge=1)] = Field(64, description="public samples a step")
    temperature: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer.model_validate("adam"), description="of the fusion")


@AGGREGATES.register("distilled", Distilled)
def distilled(agent: Agent, packets: Sequence[Models], said: Distilled, context: Context) -> Models:
    """Averages each architecture, then distils the mean logits of all models into it (Lin et al. 2020, alg. 3)."""
    from ..networks import build

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
