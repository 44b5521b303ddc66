"""A spec's schedule as Prefect takes it, in words, and when it is due next."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from ..specs.durations import written
from ..specs.operating import Below, Schedule

FIRST = datetime(2020, 1, 1)
"""From when intervals count where no start is said: a fixed day, so that the same spec is the same schedule."""


def prefect_schedule(said: Schedule) -> Any:
    """Return Prefect's schedule."""
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    if said.cron is not None:
        return CronSchedule(cron=said.cron, timezone=said.timezone)
    if said.interval is not None:
        anchor = said.begins or FIRST.replace(tzinfo=ZoneInfo(said.timezone))
        return IntervalSchedule(interval=timedelta(seconds=said.interval), anchor_date=anchor, timezone=said.timezone)
    return RRuleSchedule(rrule=_rule(said), timezone=said.timezone)


def _rule(said: Schedule) -> str:
    rule = str(said.rrule)
    if said.begins is None:
        return rule
    local = said.begins.astimezone(ZoneInfo(said.timezone))
    rule = rule if rule.upper().startswith("RRULE:") else f"RRULE:{rule}"
    return f"DTSTART:{local:%Y%m%dT%H%M%S}\n{rule}"


def content(schedule: Any) -> dict[str, Any]:
    """Return what one of Prefect's schedules says, to be compared.

    A rule's first day is left out: servers add one where there is none.
    """
    found: dict[str, Any] = {"timezone": schedule.timezone}
    if hasattr(schedule, "cron"):
        return found | {"cron": schedule.cron}
    if hasattr(schedule, "interval"):
        anchor = schedule.anchor_date.astimezone(ZoneInfo("UTC")).isoformat()
        return found | {"interval": schedule.interval.total_seconds(), "from": anchor}
    rule = re.sub(r"^RRULE:", "", schedule.rrule.strip(), flags=re.MULTILINE)
    return found | {"rrule": re.sub(r"^DTSTART:[^\n]*\n", "", rule)}


def in_words(said: Schedule | None) -> str:
    """Return the schedule in a few words."""
    if said is None:
        return "none"
    if said.cron is not None:
        text = f"cron {said.cron}"
    elif said.interval is not None:
        text = f"every {written(said.interval)}"
    else:
        text = f"rrule {said.rrule}"
    text += f", {said.timezone}"
    text += f", from {said.begins.isoformat()}" if said.begins is not None else ""
    if said.only_if is not None:
        text += ", only if " + _condition(said.only_if)
    return text + (", paused" if said.paused else "")


def _condition(said: Literal["new_data"] | Below) -> str:
    if not isinstance(said, Below):
        return "there are new data"
    return f"{said.metric} is below {said.below:g}" + (f" in {said.of}" if said.of is not None else "")


def next_time(said: Schedule, now: datetime) -> datetime | None:
    """Return when the schedule is due next after ``now`` (with a time zone), or None where it never is again."""
    zone = ZoneInfo(said.timezone)
    after = max(now, said.begins - timedelta(microseconds=1)) if said.begins is not None else now
    after = after.astimezone(zone)
    if said.cron is not None:
        from cronsim import CronSim

        return next(CronSim(said.cron, after), None)
    if said.interval is not None:
        anchor, step = said.begins or FIRST.replace(tzinfo=zone), timedelta(seconds=said.interval)
        if step % timedelta(days=1):  # hours are hours; a day ends at the same time of day when clocks are changed
            zone = ZoneInfo("UTC")
        anchor, after = anchor.astimezone(zone), after.astimezone(zone)
        return anchor + ((after - anchor) // step + 1) * step
    found = prefect_schedule(said).to_rrule().after(after)
    return found if isinstance(found, datetime) else None


def last_time(said: Schedule, now: datetime) -> datetime | None:
    """Return when a rule was due last before ``now``, or None."""
    if said.rrule is None:
        return None
    found = prefect_schedule(said).to_rrule().before(now.astimezone(ZoneInfo(said.timezone)))
    return found if isinstance(found, datetime) else None
