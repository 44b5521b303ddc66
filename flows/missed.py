"""What becomes of runs that were due while nobody ran them: ``schedule.catch_up``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ..specs.operating import Schedule

GRACE = timedelta(minutes=5)
"""How late a run may begin and still not count as missed."""


def why_skipped(client: Any, run: Any, schedule: Schedule | None) -> str | None:
    """Return why the flow run ``run`` is to do nothing, or None where it is to be done.

    Only runs that a schedule made are ever skipped. Others that wait and need not be done either are set aside here, so
    that no process is started for them.
    """
    if schedule is None or not run.auto_scheduled or run.expected_start_time is None:
        return None
    now, due = datetime.now(ZoneInfo("UTC")), run.expected_start_time
    if schedule.begins is not None and due < schedule.begins:
        sentence = f"nothing is due before {schedule.begins.isoformat()}"
        _set_aside(client, _waiting(client, run, schedule.begins - timedelta(microseconds=1)), sentence)
        return sentence
    if schedule.catch_up == "once":
        _set_aside(client, _waiting(client, run, now), f"missed, and made up for by the run {run.name}")
    if schedule.catch_up != "none" or now - due <= GRACE:
        return None
    sentence = "missed, and the schedule says `catch_up: none`"
    _set_aside(client, _waiting(client, run, now - GRACE), sentence)
    return sentence


def _waiting(client: Any, run: Any, until: datetime) -> list[Any]:
    """Return the other scheduled runs of the same deployment that were due by ``until`` and have not begun."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=until),
        ),
        limit=200,
    )
    return [one for one in found if one.id != run.id and one.auto_scheduled]


def _set_aside(client: Any, runs: Iterable[Any], sentence: str) -> None:
    for run in runs:
        client.set_flow_run_state(run.id, skipped(sentence))


def skipped(sentence: str) -> Any:
    """Return the state of a run that is not to be done."""
    from prefect.states import Cancelled

    return Cancelled(name="Skipped", message=sentence)
