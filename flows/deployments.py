"""A spec as a Prefect deployment: what it should be, how that differs from what a server has, and registering it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..specs.document import Loaded
from ..specs.problems import shown
from ..specs.schema import Spec
from .server import FOR_RUNS
from .times import content, in_words, prefect_schedule

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FLOW = "codistill"
_GO_TO = "prefect.deployments.steps.set_working_directory"


@dataclass(frozen=True)
class Wanted:
    """One deployment as a spec wants it: its name, and the fields by which servers know it."""

    spec: Spec
    name: str
    fields: dict[str, Any]

    @property
    def called(self) -> str:
        """The name by which Prefect's commands know it."""
        return f"{FLOW}/{self.name}"


@dataclass(frozen=True)
class Found:
    """What a server has under the name of a wanted deployment, and in what the two differ, one line each."""

    existing: Any
    differences: tuple[str, ...]

    @property
    def status(self) -> str:
        """``new``, ``changed`` or ``unchanged``."""
        if self.existing is None:
            return "new"
        return "changed" if self.differences else "unchanged"


def name_of(spec: Spec) -> str:
    """Return what the spec's deployment is called."""
    return spec.deploy.name or spec.name


def wanted(loaded: Loaded[Spec], runs: Path, pool_type: str | None) -> Wanted:
    """Return the deployment of a spec. ``pool_type``: of its work pool; None where it is served without one.

    Where runs are processes of this machine, they run in the present folder, so that relative paths mean what they mean
    on the command line.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.utilities.callables import parameter_schema

    from .deployed import ENTRYPOINT, run_deployed

    spec = loaded.value
    here = pool_type in (None, "process")
    schedules = []
    if spec.schedule is not None:
        schedule = prefect_schedule(spec.schedule)
        schedules = [DeploymentScheduleCreate(schedule=schedule, active=not spec.schedule.paused)]
    fields = {
        "entrypoint": ENTRYPOINT,
        "parameters": {
            "spec": spec.model_dump(mode="json", by_alias=True),
            "runs": str(runs.resolve() if here else runs),
        },
        "parameter_openapi_schema": parameter_schema(run_deployed).model_dump(),
        "enforce_parameter_schema": False,  # a server's words for a wrong value are not ours; the flow says it in ours
        "schedules": schedules,
        "paused": False,
        "tags": sorted(set(spec.deploy.tags)),
        "description": spec.cite or spec.recipe.cite or None,
        "work_pool_name": spec.deploy.pool if pool_type is not None else None,
        "work_queue_name": (spec.deploy.queue or "default") if pool_type is not None else None,
        "job_variables": {} if pool_type is None else {"env": dict(FOR_RUNS)},
        # Without a step workers copy the whole folder that they are in to a temporary one, before each run.
        "pull_steps": [{_GO_TO: {"directory": os.getcwd() if here else "."}}],
        "concurrency_limit": spec.deploy.concurrency,
    }
    return Wanted(spec, name_of(spec), fields)


def find(client: SyncPrefectClient, want: Wanted) -> Found:
    """Return what the server has under the deployment's name, compared by content."""
    from prefect.exceptions import ObjectNotFound

    try:
        existing = client.read_deployment_by_name(want.called)
    except ObjectNotFound:
        return Found(None, ())
    limit = existing.global_concurrency_limit
    has = {
        name: getattr(existing, name)
        for name in want.fields
        if name not in ("schedules", "concurrency_limit", "parameter_openapi_schema")
    }
    has |= {"tags": sorted(existing.tags), "concurrency_limit": None if limit is None else limit.limit}
    should = {name: want.fields[name] for name in has}
    lines = list(_differences("", has, should))
    if _schedules(existing.schedules) != _schedules(want.fields["schedules"]):
        lines = [line for line in lines if not line.startswith("spec.schedule.")]
        lines.append(f"schedule: {_in_words(existing)} -> {in_words(want.spec.schedule)}")
    if _plain(existing.parameter_openapi_schema) != _plain(want.fields["parameter_openapi_schema"]):
        lines.append("the form of the UI: of another version of codistill -> of this one")
    return Found(existing, tuple(lines))


def register(client: SyncPrefectClient, want: Wanted) -> Any:
    """Make the deployment on the server what is wanted and return its id. All of it is one request."""
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    from .deployed import run_deployed

    options = None
    if want.fields["concurrency_limit"] is not None:
        options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    flow_id = client.create_flow(run_deployed)
    return client.create_deployment(flow_id, want.name, concurrency_options=options, **want.fields)


def _schedules(some: list[Any]) -> list[tuple[dict[str, Any], bool]]:
    return [(content(one.schedule), bool(one.active)) for one in some]


def _in_words(existing: Any) -> str:
    said = []
    for one in existing.schedules:
        what = content(one.schedule)
        zone = what.pop("timezone")
        said.append(" ".join(f"{key} {value}" for key, value in what.items()) + f", {zone}")
        said[-1] += "" if one.active else ", paused"
    return "; ".join(said) or "none"


def _plain(schema: Any) -> Any:
    """Return a schema as JSON brings it back."""
    return json.loads(json.dumps(schema))


def _differences(path: str, has: Any, should: Any) -> Iterator[str]:
    """Yield ``path: old -> new`` for each value that differs."""
    if isinstance(has, dict) and isinstance(should, dict):
        for key in [*should, *(key for key in has if key not in should)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(inner, has.get(key), should.get(key))
    elif isinstance(has, list) and isinstance(should, list) and len(has) == len(should):
        for index, (old, new) in enumerate(zip(has, should, strict=True)):
            yield from _differences(f"{path}[{index}]", old, new)
    elif has != should:
        yield f"{path.removeprefix('parameters.')}: {shown(has)} -> {shown(should)}"
