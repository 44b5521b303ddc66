"""Whether a scheduled run has a reason to begin: ``schedule.only_if``."""

from __future__ import annotations

import json
from pathlib import Path

from ..specs.operating import Below
from ..specs.schema import Spec
from .holdings import Holdings
from .origin import finished_run, latest
from .report.text import value_text
from .session import figures


def why_not_now(spec: Spec, holdings: Holdings, runs: Path) -> str | None:
    """Return why a scheduled run of ``spec`` is to do nothing, or None where it is to begin.

    What was finished last among ``runs`` is looked at; where nothing was, it begins. ``holdings``: the data now.
    """
    condition = None if spec.schedule is None else spec.schedule.only_if
    if condition is None:
        return None
    path = latest(condition.of or spec.name if isinstance(condition, Below) else spec.name, runs)
    if path is None:
        return None
    if isinstance(condition, Below):
        return _not_below(condition, path)
    if finished_run(path).folder.info().get("data_digest") != holdings.digest:
        return None
    return f"the data are what they were in {path.name}"


def _not_below(condition: Below, path: Path) -> str | None:
    run = finished_run(path)
    rows = json.loads(run.folder.rows(run.plan.rounds).read_text(encoding="utf-8"))
    values = figures(run.plan, rows)["values"]
    if condition.metric not in values:
        measured = ", ".join(run.plan.metrics)
        return f"{path.name} did not measure {condition.metric} (it measured {measured})"
    value = values[condition.metric]
    if value < condition.below:
        return None
    shown = value_text(value, condition.metric)
    return f"{condition.metric} was {shown} in {path.name}, not below {condition.below:g}"
