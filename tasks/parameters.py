"""The base of everything that can be said in a spec."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME, description="letters, digits, dot, dash and underscore")]


class Parameters(BaseModel):
    """A typed set of values beside the function that uses it; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    incidental: ClassVar[frozenset[str]] = frozenset()
    """Values that say by what means something is computed: what comes out is the same."""


class When(Parameters):
    """The rounds in which a step is done."""

    first: Annotated[int, Field(ge=1)] = Field(1, alias="from", description="first round")
    until: Annotated[int, Field(ge=1)] | None = Field(None, description="last round; nothing said: the run's last")
    every: Annotated[int, Field(ge=1)] = Field(1, description="rounds, counted from the first")

    def holds(self, number: int) -> bool:
        """Whether round ``number`` is one of them."""
        return self.first <= number <= (self.until or number) and (number - self.first) % self.every == 0


class Step(Parameters):
    """A step of a recipe that agents do by themselves."""

    who: Literal["learners", "aggregators", "all", "top"] = Field(
        "learners",
        description="aggregators (servers, edge nodes) take part where they have a model; the top is where all comes "
        "together: the server, the root of a tree, and among peers each of them",
    )
    when: When | None = Field(None, description="the rounds in which it is done; nothing said: all")


def due(when: When | None, number: int) -> bool:
    """Whether what is done ``when`` is done in round ``number``."""
    return when is None or when.holds(number)
