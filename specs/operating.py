"""What a spec says of its operation: when it runs by itself, where, and from what it goes on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_serializer, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..tasks.parameters import Name, Parameters
from .durations import Duration

WAYS = ("cron", "interval", "rrule")


class Below(Parameters):
    """A metric of the latest finished run, over all learners' test data, is below a bound."""

    metric: str = Field(min_length=1, description="a name from `codistill list metrics` that the run measures")
    below: float = Field(allow_inf_nan=False)
    of: Name | None = Field(None, description="the name of the spec whose run is looked at; nothing said: this one's")


class Schedule(Parameters):
    """When a deployed spec runs by itself: one of cron, interval and rrule."""

    cron: str | None = Field(None, description="minute, hour, day of month, month, day of week, such as 0 3 * * *")
    interval: Duration | None = Field(None, description="from one run to the next, such as 10m or 1d")
    rrule: str | None = Field(None, description="an iCalendar rule, such as FREQ=WEEKLY;BYDAY=MO;BYHOUR=3")
    timezone: str = Field("UTC", description="an IANA time zone, such as Europe/Berlin")
    start: datetime | None = Field(
        None, description="nothing runs before; an interval counts from it. Without an offset it is in the time zone"
    )
    paused: bool = Field(False, description="registered, but nothing runs until somebody resumes it")
    catch_up: Literal["once", "all", "none"] = Field(
        "once", description="runs that were missed are made up for by one run, each by its own, or not at all"
    )

    only_if: Literal["new_data"] | Below | None = Field(
        None,
        description="a run that is due begins only if the data changed since the latest finished run, or if a "
        "metric was below a bound in it; the first begins anyway",
    )

    @field_validator("cron")
    @classmethod
    def _cron(cls, said: str | None) -> str | None:
        if said is not None:
            from cronsim import CronSim, CronSimError

            try:
                CronSim(said, datetime(2000, 1, 1))
            except CronSimError as error:
                raise ValueError(f"expected five fields of cron, such as '0 3 * * *' ({error})") from None
        return said

    @field_validator("rrule")
    @classmethod
    def _rrule(cls, said: str | None) -> str | None:
        if said is not None:
            from dateutil.rrule import rrulestr

            try:
                rrulestr(said)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"expected an iCalendar rule, such as FREQ=DAILY;BYHOUR=3 ({error})") from None
        return said

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, said: str) -> str:
        names = available_timezones()
        if said not in names:
            raise PydanticCustomError(
                "unknown_name", "expected an IANA time zone such as UTC or Europe/Berlin", {"names": sorted(names)}
            )
        return said

    @field_serializer("start")
    def _as_written(self, start: datetime | None) -> str | None:
        return None if start is None else start.isoformat()

    @model_validator(mode="after")
    def _one_way(self) -> Schedule:
        said = [way for way in WAYS if getattr(self, way) is not None]
        if len(said) != 1:
            got = "none of them" if not said else " and ".join(said)
            raise ValueError(f"expected exactly one of {', '.join(WAYS)}; got {got}")
        if self.rrule is not None and self.start is not None and "DTSTART" in self.rrule.upper():
            raise ValueError("the rule has a DTSTART of its own; leave one of it and `start` away")
        return self

    @property
    def begins(self) -> datetime | None:
        """The start with a time zone, or None."""
        if self.start is None or self.start.tzinfo is not None:
            return self.start
        return self.start.replace(tzinfo=ZoneInfo(self.timezone))


Tag = Annotated[str, Field(min_length=1, max_length=200)]


class Deploy(Parameters):
    """How the spec is registered with a Prefect server or Cloud, by ``codistill deploy`` or ``codistill serve``."""

    name: Name | None = Field(None, description="the deployment's; nothing said: the spec's")
    pool: Name | None = Field(None, description="the work pool whose workers run it; `codistill serve` needs none")
    queue: Name | None = Field(None, description="the pool's queue; nothing said: the default one")
    tags: list[Tag] = Field(default_factory=list, description="on the deployment and each of its runs")
    concurrency: Annotated[int, Field(ge=1)] | None = Field(
        1, description="runs at once; others wait for their turn. null: any number"
    )
    retries: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="times that a failed run is taken up again, from its last finished round"
    )
    retry_delay: Duration = Field(30.0, description="before a failed run is taken up again")
    timeout: Duration | None = Field(None, description="how long one try may take")


class From(Parameters):
    """A finished run to go on from."""

    run: str = Field(description="its folder")
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = Field(
        None, description="its digest, as run.json says it, or the first eight letters or more; else not compared"
    )


Continue = Literal["anew", "latest"] | From
"""From what a run starts."""
