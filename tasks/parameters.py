"""The base of everything that can be said in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME, description="letters, digits, dot, dash and underscore")]


class Parameters(BaseModel):
    """A typed set of values beside the function that uses it; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(Parameters):
    """A step of a recipe that agents do by themselves."""

    who: Literal["learners", "aggregators", "all"] = Field(
        "learners", description="aggregators (servers, edge nodes) take part where they have a model"
    )
