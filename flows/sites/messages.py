"""What the coordinator asks of a site and is answered, beside packets: JSON in letters, of these shapes alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ...tasks.parameters import Parameters

RUN = 16
"""Letters of a run's digest by which its letters are filed."""


class DescribeRequest(Parameters):
    """How many samples have your agents, and of which classes and shape?"""

    kind: Literal["describe"] = "describe"
    spec: dict[str, Any]


class Description(Parameters):
    """What a site tells of its data. ``digest`` is made with a secret of the site: it tells changes and no more."""

    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    public: str = Field(pattern=r"^([0-9a-f]{64})?$", description="digest of the public samples; nothing without")


class Assignment(Parameters):
    """A run as whoever works on it must know it."""

    spec: dict[str, Any]
    plan: str
    left_out: dict[int, tuple[int, ...]]


class StageRequest(Parameters):
    """Do a stage. ``era``: what the site's worker may remember of; ``begins``: it starts from what is on disk."""

    kind: Literal["stage"] = "stage"
    era: str
    begins: bool
    assignment: str
    round: int
    stage: int
    places: tuple[int, ...]
    measured: tuple[int, ...]


class FinishRequest(Parameters):
    """The run is finished: put the models of your agents where they stay, and tell what private steps have cost."""

    kind: Literal["finish"] = "finish"
    assignment: str


class Reply(Parameters):
    """What a site answers: rows of the tables, each with the place of an agent of its own; or what went wrong.

    ``replaced``: the worker that knew the era is gone. ``error``: a sentence that tells nothing of the data.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    metrics: tuple[tuple[int, str, float, int], ...] = ()
    ledger: tuple[tuple[int, int, int, str, str, int, int, int, str], ...] = ()
    memory: tuple[tuple[int, str, int, int], ...] = ()
    stores: tuple[tuple[int, str, str, int, int, int, int, float, int, int], ...] = ()
    events: tuple[tuple[int, str, str, str, int, str], ...] = ()
    privacy: tuple[tuple[str, int, float, float, float, float | None], ...] = ()
    description: Description | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    replaced: bool = False
    error: str | None = None

    def strange(self, own: frozenset[int], above: frozenset[int]) -> bool:
        """Whether any row is of an agent that is not one of ``own``.

        A packet is one of theirs, or comes from ``above``: who returns fetches what was delivered there.
        """
        about: tuple[tuple[tuple[Any, ...], ...], ...] = (self.metrics, self.memory, self.stores, self.events)
        passed = any(row[0] not in own and not (row[0] in above and row[1] in own | above) for row in self.ledger)
        return passed or any(row[0] not in own for table in about for row in table)
