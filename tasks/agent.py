"""An agent at work: its models, its memories, the ids of its private samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from .architecture import Architecture
from .late import late
from .memory import Memory
from .streams import seed_of, torch_stream

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .networks import Network
else:
    torch = late("torch")


@dataclass(frozen=True)
class World:
    """The data set, resident: ids index the first axis. Agents look at their own ids alone.

    ``x_train`` float32 [N, ...], ``y_train`` int64 [N], and the same for the test set. ``public``: ids of samples that
    everybody holds; their labels may be used where ``public_labelled``. ``architectures``: all of the run, by name.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    classes: int
    public: torch.Tensor
    public_labelled: bool
    architectures: Mapping[str, Architecture]

    @property
    def bytes_each(self) -> int:
        """The bytes of one training sample and its label."""
        return self.x_train[0].numel() * 4 + 8


@dataclass(frozen=True)
class Context:
    """Where a step stands: the run's seed, the round, and what the compiler knows of the steps around it."""

    world: World
    seed: int
    round: int
    rounds: int
    place: str = ""
    """The step's operation and which of its kind in the recipe it is, such as ``train.0``."""
    final: bool = True
    """Whether this aggregation is the last on the way up a tree."""
    observe: frozenset[str] = frozenset()
    """Forms of knowledge that a later ``extract`` wants gathered while training."""

    @property
    def progress(self) -> float:
        """0 in the first round, 1 in the last."""
        return (self.round - 1) / (self.rounds - 1) if self.rounds > 1 else 1.0


@dataclass
class Agent:
    """One learner or aggregator. ``models["model"]`` is its own; a recipe may give it a ``companion``."""

    name: str
    group: str
    role: str
    train_ids: torch.Tensor
    test_ids: torch.Tensor
    architectures: dict[str, Architecture]
    models: dict[str, nn.Module] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    above: str = ""
    """The name of the agent's aggregator; peers have none."""
    valid_ids: torch.Tensor | None = None
    """Ids of validation data, where the data have a part for that."""
    parked: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    """Weights of modules that were kept, until a step builds the module again."""

    @property
    def samples(self) -> int:
        """The number of private training samples."""
        return len(self.train_ids)

    def network(self, name: str = "model") -> Network:
        """Return the model called ``name``: the agent's own, or its companion."""
        return cast("Network", self.models[name])

    def stream(self, context: Context, *names: str | int) -> torch.Generator:
        """Return this agent's random stream for ``names`` at this step of this round."""
        return torch_stream(context.seed, "agent", self.name, context.round, context.place, *names)

    def module(self, name: str, context: Context, build: Callable[[], nn.Module]) -> nn.Module:
        """Return the module called ``name``, built once from the agent's own stream and kept.

        ``build`` must give the same shapes each time: a resumed agent builds the module again and takes up the weights
        that it had. Raises ``ValueError`` where they do not fit.
        """
        if name not in self.models:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(context.seed, "agent", self.name, "module", name))
                made = build()
            if name in self.parked:
                try:
                    made.load_state_dict(self.parked.pop(name))
                except RuntimeError as error:
                    raise ValueError(f"{self.name}: the module {name!r} was kept with other shapes: {error}") from error
            self.models[name] = made
        return self.models[name]
