"""The language of a spec: every key, its type, its range, and what it means.

The types of operations, models, data sets and patterns come from the registries of ``tasks``, so whatever is
registered there can be said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, field_validator, model_validator

from ..tasks.choice import Choice, choice, tagged
from ..tasks.data.partition import PARTITIONERS
from ..tasks.data.registry import DATASETS
from ..tasks.kinds import DATA_KINDS
from ..tasks.operations import OPERATIONS
from ..tasks.parameters import Name, Parameters
from ..tasks.patterns import ModelChoice, PatternChoice
from ..tasks.stores import Declaration
from ..tasks.trackers import TrackerChoice
from .engine import Engine
from .operating import Continue, Deploy, Schedule

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(name for kind in DATA_KINDS for name in kind.function.metrics.names())]

if TYPE_CHECKING:
    DatasetChoice = Choice
else:
    DatasetChoice = choice("Dataset", DATASETS, "Where samples come from.")
_WAYS = [*PARTITIONERS, *(way for kind in DATA_KINDS for way in kind.function.partitioners)]
PartitionChoice: Any = tagged("Partition", _WAYS, "by")


MemoryName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="lower case letters, digits, dash and underscore")
]


def _step() -> type[Choice]:
    fields: dict[str, Any] = {}
    for name, (function, parameters) in OPERATIONS.items():
        sentence = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        fields[name + "_"] = (parameters | None, Field(None, alias=name, description=sentence))
    return create_model("Step", __base__=Choice, __doc__="One operation of a round.", **fields)


if TYPE_CHECKING:
    StepChoice = Choice
else:
    StepChoice = _step()


class Recipe(Parameters):
    """The operations of one round, in order."""

    name: Name = "inline"
    cite: str = Field("", description="the paper")
    differs: str = Field("", description="what differs from the paper")
    companion: ModelChoice | None = Field(None, description="a second model of every agent, alike on all of them")
    above: ModelChoice | None = Field(
        None,
        description="the model of the server, or of the top of a tree, and with `forward: own` of each tier, "
        "where the pattern gives it none",
    )
    memories: dict[MemoryName, Declaration] = Field(
        default_factory=dict, description="the stores that agents have, by name; each agent has its own"
    )
    start: list[StepChoice] = Field(default_factory=list, description="done once, before the first round")
    round: list[StepChoice] = Field(min_length=1, description="done each round")

    @field_validator("start")
    @classmethod
    def _alone(cls, steps: list[Choice]) -> list[Choice]:
        if any(step.name in ("share", "aggregate") for step in steps):
            raise ValueError("nothing is exchanged before the first round: no share and no aggregate here")
        return steps


SETTINGS = {"fl": "samples", "fkge": "triples"}
"""Families of tasks, and the kind of data that each is about."""

if TYPE_CHECKING:
    Setting = str
else:
    Setting = Literal[tuple(SETTINGS)]


class Take(Parameters):
    """A part of the data set, drawn by class."""

    train: Annotated[int, Field(ge=1)] | None = Field(None, description="training samples to keep")
    test: Annotated[int, Field(ge=1)] | None = Field(None, description="test samples to keep")


class Public(Parameters):
    """Samples that every agent holds."""

    share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="of the training samples; they leave the partition"
    )
    dataset: DatasetChoice | None = Field(
        None, description="or all training samples of another data set, with the same classes and the same shape"
    )
    labelled: bool = Field(False, description="whether agents may look at their labels")

    @model_validator(mode="after")
    def _from_one(self) -> Public:
        if (self.share is None) == (self.dataset is None):
            raise ValueError("expected either `share`, of the training samples, or `dataset`, another data set")
        return self


class Data(Parameters):
    """The samples, and who holds which."""

    dataset: DatasetChoice = Field(description="a name from `codistill list datasets`")
    root: str | None = Field(None, description="the folder of data sets; else CODISTILL_DATA, else the cache")
    take: Take = Field(default_factory=Take)
    partition: PartitionChoice = Field(description="how training samples are dealt out")
    public: Public | None = None


class Spread(Parameters):
    """A value for each agent, drawn evenly on a logarithmic scale."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]


Rate = Annotated[float, Field(gt=0)] | Spread


class AgentGroup(Parameters):
    """Agents that are alike."""

    name: Name = Field(description="agents of the group are called name-1, name-2, ...")
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    site: Name | None = Field(None, description="where they live and their data are: one of engine.sites")
    model: ModelChoice = Field(description="a name from `codistill list models`")
    initial: Literal["shared", "own"] = Field(
        "shared", description="agents with one architecture start from the same weights, or each from its own"
    )
    speed: Rate | None = Field(None, description="GFLOP/s, for the simulated clock; nothing said: no time at all")
    bandwidth: Rate | None = Field(None, description="Mbit/s each way, for the simulated clock")
    latency: Annotated[float, Field(ge=0)] = Field(0.0, description="seconds a packet takes besides")
    availability: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="chance to be there in a round")
    joins: Annotated[int, Field(ge=1)] = Field(1, description="first round")
    leaves: Annotated[int, Field(ge=1)] | None = Field(None, description="last round; nothing said: stays")


class Participation(Parameters):
    """Who takes part in a round."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="of the agents that are there")
    minimum: Annotated[int, Field(ge=1)] = Field(1, description="agents a round, where as many are there")
    deadline: Annotated[float, Field(gt=0)] | None = Field(
        None, description="simulated seconds after which a round does not wait"
    )
    late: Literal["drop", "next"] = Field("drop", description="what becomes of knowledge that misses the deadline")


class Measure(Parameters):
    """What is measured, and when."""

    every: Annotated[int, Field(ge=1)] = Field(1, description="rounds; the last is always measured")
    metrics: list[MetricName] = Field(default_factory=lambda: ["accuracy"], min_length=1)
    predict: Literal["classifier", "prototypes"] = Field("classifier", description="how an agent answers")
    control: Literal["local", "none"] = Field(
        "local", description="every agent also learns alone, from the same start, to show what the exchange is worth"
    )


class Spec(Parameters):
    """Who learns, what each one remembers, what passes between them and when."""

    name: Name
    cite: str = Field("", description="where the experiment comes from")
    setting: Setting = Field("fl", description="the family of tasks")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Annotated[int, Field(ge=1, le=1_000_000)]
    data: Data
    agents: list[AgentGroup] = Field(min_length=1)
    pattern: PatternChoice = Field(default_factory=lambda: PatternChoice.model_validate("distributed"))
    participation: Participation = Field(default_factory=Participation)
    recipe: Recipe
    measure: Measure = Field(default_factory=Measure)
    engine: Engine = Field(default_factory=Engine)
    continue_: Continue = Field(
        "anew",
        alias="continue",
        description="start anew; from the models and memories of the latest finished run of this name (the first "
        "starts anew); or from those of a run's folder",
    )
    track: list[TrackerChoice] = Field(default_factory=list, description="who else is told of rounds and the report")
    schedule: Schedule | None = Field(None, description="when it runs by itself, once deployed")
    deploy: Deploy = Field(default_factory=Deploy)

    @model_validator(mode="after")
    def _names(self) -> Spec:
        names = [group.name for group in self.agents]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two groups of agents are called {twice[0]!r}")
        return self
