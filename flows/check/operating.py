"""What is wrong with how specs are to be deployed, found before anything changes on the server."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ...specs.document import Loaded
from ...specs.operating import Below
from ...specs.problems import Problem, suggestion
from ...specs.schema import Spec
from ..deployments import Found, Wanted, name_of
from ..times import last_time, next_time
from .places import Finding, problem


def of_specs(specs: Iterable[Loaded[Spec]], now: datetime) -> list[Problem]:
    """Return what can be told without a server: schedules that never come, two deployments of one name."""
    found: list[Problem] = []
    taken: dict[str, Loaded[Spec]] = {}
    for loaded in specs:
        spec = loaded.value
        if spec.schedule is not None and next_time(spec.schedule, now) is None:
            last = last_time(spec.schedule, now)
            ended = "it names no time at all" if last is None else f"the last time was {last.isoformat()}"
            way = "rrule" if spec.schedule.rrule is not None else "cron"
            finding = Finding(
                ("schedule", way), f"it is never due again: {ended}", "name a time to come, or leave `schedule` out"
            )
            found.append(problem(finding, loaded.node))
        condition = spec.schedule.only_if if spec.schedule is not None else None
        if isinstance(condition, Below) and condition.of in (None, spec.name):
            measured = spec.measure.metrics
            if condition.metric not in measured:
                message = f"the run does not measure {condition.metric!r}; expected one of {', '.join(measured)}"
                hint = suggestion(condition.metric, measured) or "add it to measure.metrics, or say `of:`"
                found.append(problem(Finding(("schedule", "only_if", "metric"), message, hint), loaded.node))
            elif spec.continue_ == "anew":
                message = "a run that starts anew on the same data is the same run, and finished already"
                hint = "say `continue: latest`, so that it learns on"
                found.append(problem(Finding(("schedule", "only_if"), message, hint), loaded.node))
        name = name_of(spec)
        if name in taken:
            message = f"two deployments are called {name!r}"
            other = taken[name].node.mark.file
            hint = f"the other is of {other}; give one of them another `deploy.name`"
            found.append(problem(Finding(("deploy", "name"), message, hint), loaded.node))
        taken.setdefault(name, loaded)
    return found


def of_pools(specs: Iterable[Loaded[Spec]], pools: dict[str, Any], address: str) -> list[Problem]:
    """Return what is wrong with the work pools that specs name; ``pools``: those of the server at ``address``."""
    found: list[Problem] = []
    for loaded in specs:
        pool = loaded.value.deploy.pool
        make = "make one with `prefect work-pool create NAME --type process`"
        if pool is None:
            message = f"missing; expected the name of a work pool{_one_of(pools)}"
            hint = f"{make}, or use `codistill serve`, which needs none"
            found.append(problem(Finding(("deploy", "pool"), message, hint), loaded.node))
        elif pool not in pools:
            message = f"there is no work pool {pool!r} at {address}{_one_of(pools)}"
            make = make.replace("one", "it").replace("NAME", pool)
            near = suggestion(pool, pools)
            hint = f"{near} Else {make}" if near else make
            found.append(problem(Finding(("deploy", "pool"), message, hint), loaded.node))
    return found


def of_others(loaded: Loaded[Spec], want: Wanted, found: Found) -> list[Problem]:
    """Return the problem of a name that is on the server already, for another spec or by somebody else's hand."""
    if found.existing is None:
        return []
    said = found.existing.parameters.get("spec")
    other = said.get("name") if isinstance(said, dict) else said
    if other == want.spec.name:
        return []
    message = f"{want.called} is there already, of the spec {other!r}"
    hint = f"give this one another `deploy.name`, or remove that with `prefect deployment delete {want.called}`"
    return [problem(Finding(("deploy", "name"), message, hint), loaded.node)]


def _one_of(pools: dict[str, Any]) -> str:
    return f" (there is {', '.join(sorted(pools))})" if pools else " (there is none)"


def now() -> datetime:
    """Return the time."""
    return datetime.now(ZoneInfo("UTC"))
