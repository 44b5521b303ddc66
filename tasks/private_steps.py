"""Private gradient steps: each sample's gradient is clipped, and noise hides any one of them (DP-SGD).

The noise comes from a named stream, as everything random here does, so that a run can be repeated. That is right for
research and wrong for a release: who knows the seed can take the noise off again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .agent import Agent
from .late import late
from .optimizers import OPTIMIZERS, Steps
from .parameters import Parameters
from .terms import Batch, Term

if TYPE_CHECKING:
    import torch

    from .choice import Choice
    from .observe import Observer
    from .terms.registry import Pull
else:
    torch = late("torch")

ROOM = 64 * 2**20
"""Bytes of single samples' gradients that are held at a time."""


class Private(Parameters):
    """DP-SGD (Abadi et al. 2016)."""

    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="largest norm of one sample's gradient, over all of a model's weights"
    )
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="standard deviation of the noise on the sum of gradients, in units of clip; 0 is not private"
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(1e-5, description="the delta at which epsilon is told")
    of: Literal["model", "companion"] = Field("companion", description="which model takes private steps")
    sampling: Literal["poisson", "shuffled"] = Field(
        "poisson",
        description="poisson: each sample is in each batch by chance, which is what is accounted for; "
        "shuffled: the usual batches, accounted for as if they were drawn that way (drop_last is for these alone)",
    )


def poisson_batches(ids: torch.Tensor, size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return as many batches of ``ids`` [N] as a pass has, each sample in each with probability size / N, or 1.

    Batches have ``size`` samples on average and may be empty.
    """
    chance = min(1.0, size / len(ids))
    return tuple(ids[torch.rand(len(ids), generator=generator) < chance] for _ in range(-(-len(ids) // size)))


def sample_gradients(
    network: torch.nn.Module, loss: Pull, x: torch.Tensor, given: torch.Tensor, y: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return each sample's gradient, by the name of the weight: float32 [B, *shape].

    ``loss(logits, given, y)`` is called with one row each: logits [1, C], ``given`` [1, C] (what the other model makes
    of the sample), labels [1]. The network must treat samples one by one, as those without batch statistics do.
    """
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    def of_one(weights: dict[str, torch.Tensor], x: torch.Tensor, given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = torch.func.functional_call(network, weights, (x[None],))
        return loss(logits, given[None], y[None])

    by_sample = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0, 0))
    found: dict[str, torch.Tensor] = by_sample(weights, x, given, y)
    return found


def clipped_sum(gradients: dict[str, torch.Tensor], clip: float) -> dict[str, torch.Tensor]:
    """Return the sum over samples of gradients [B, *shape], each scaled so that its norm over all is at most ``clip``.

    Abadi et al. 2016, algorithm 1.
    """
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()
    scales = (clip / norms.clamp(min=1e-12)).clamp(max=1.0)
    return {name: torch.tensordot(scales, g, dims=1) for name, g in gradients.items()}


class PrivateSteps:
    """Takes private steps on ``network``'s weights, which follow the noisy gradients as the chosen optimizer does."""

    def __init__(self, chosen: Choice, said: Private, network: torch.nn.Module) -> None:
        self._network, self._said = network, said
        self._weights = dict(network.named_parameters())
        self._update = OPTIMIZERS[chosen.name].function(chosen.parameters, list(self._weights.values()))
        numbers = sum(weight.numel() for weight in self._weights.values())
        self._together = max(1, ROOM // (4 * numbers))

    def down(
        self,
        loss: Pull,
        x: torch.Tensor,
        given: torch.Tensor,
        y: torch.Tensor,
        size: float,
        generator: torch.Generator,
    ) -> None:
        """Take one step with (sum of clipped gradients + noise) / ``size``; a batch without samples is noise alone."""
        total = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        if len(y):
            for rows in zip(*(part.split(self._together) for part in (x, given, y)), strict=True):
                for name, value in clipped_sum(sample_gradients(self._network, loss, *rows), self._said.clip).items():
                    total[name] += value
        scale = self._said.noise * self._said.clip
        for name, weight in self._weights.items():
            if scale:
                total[name] += torch.randn(weight.shape, generator=generator) * scale
            weight.grad = total[name] / size
        with torch.no_grad():
            self._update()


class PrivateTraining:
    """One batch after another, from which one of two models takes private steps and the other, if any, plain ones.

    Both look at what the other said before the step, as they do without privacy. ``size``: samples that a batch is
    expected to have, by which the private sum is divided where batches are drawn by chance.
    """

    def __init__(
        self, agent: Agent, said: Private, optimizer: Choice, terms: list[Term], ce_weight: float, size: int
    ) -> None:
        self._said, self._ce_weight, self._size = said, ce_weight, size
        self._model = agent.network()
        pairs = [term for term in terms if term.pair is not None]
        self._pair = pairs[0].pair if pairs else None
        self._others = [term for term in terms if term.pair is None]
        problem = _problem(said, len(pairs), self._others)
        if problem:
            raise ValueError(f"{agent.name}: {problem}")
        self._companion = agent.network("companion").train() if pairs else None
        hidden = self._model if said.of == "model" else agent.network("companion")
        plain = self._companion if said.of == "model" else self._model
        weights = [] if plain is None else list(plain.parameters())
        weights += [weight for term in self._others for weight in term.parameters]
        self._private = PrivateSteps(optimizer, said, hidden)
        self._plain = Steps(optimizer, weights) if weights else None

    def step(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        ids: torch.Tensor,
        watching: list[Observer],
        generator: torch.Generator,
    ) -> None:
        """Learn from one batch: ``x`` [B, ...], ``y`` [B], ``ids`` [B]. A batch drawn by chance may be empty."""
        features = self._model.body(x)
        logits = self._model.head(features)
        said = logits.detach()
        other = logits.new_zeros(logits.shape) if self._companion is None else self._companion(x)
        size = float(self._size) if self._said.sampling == "poisson" else float(len(y))
        if self._said.of == "model":
            if self._plain is not None and self._pair is not None and len(y):
                self._plain.down(self._pair.companion(other, said, y))
            self._private.down(self._of_model, x, other.detach(), y, size, generator)
        else:
            assert self._plain is not None and self._pair is not None
            if len(y):
                loss = self._of_model(logits, other.detach(), y)
                batch = Batch(ids, x, y, features, logits, torch.nn.functional.cross_entropy(logits, y))
                for term in self._others:
                    loss = loss + term.loss(batch)
                self._plain.down(loss)
            self._private.down(self._pair.companion, x, said, y, size, generator)
        for observer in watching:
            observer.see(y, features, logits)

    def _of_model(self, logits: torch.Tensor, given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(logits, y) * self._ce_weight
        return loss if self._pair is None else loss + self._pair.model(logits, given, y)


def _problem(said: Private, pairs: int, others: list[Term]) -> str:
    if pairs > 1 or any(term.parameters for term in others):
        return "with private steps, no term but one `mutual` may train anything besides the model"
    if said.of == "companion" and not pairs:
        return "private steps of the companion need the term `mutual`, which trains it"
    if said.of == "model" and others:
        return "private steps of the model take cross entropy and the term `mutual` alone"
    return ""
