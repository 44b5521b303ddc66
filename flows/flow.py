"""The Prefect flow: one module-level entry point that interprets any plan.

A task is a stage over a cohort of agents, never an agent or a batch; a round is no subflow. Arguments are paths and
small values; tensors stay in the workers and the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import get_run_context
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from ..specs.load import load_specs
from .artifacts import Artifacts
from .check.holdings import checked_holdings
from .drive import Meter, do_cohort, do_round, doing
from .engines import open_engine
from .launch import Ready, launch_loaded, workers_of
from .live import Progress, SilentProgress
from .lock import locked
from .pool import Pool, SiteAwayError
from .session import Cohort, Session

_OPEN: dict[str, tuple[Session, Progress]] = {}
"""Runs in progress in this process, by folder."""


@dataclass
class Given:
    """What the command line has made ready for a spec, so that the flow need not; and what it wants to know."""

    pool: Pool
    progress: Progress
    task_runs: int = 0


_GIVEN: dict[str, Given] = {}


@contextmanager
def given(spec: str, pool: Pool, progress: Progress) -> Iterator[Given]:
    """Lend the flow run of ``spec`` workers that are up already, and somebody to tell."""
    _GIVEN[spec] = Given(pool, progress)
    try:
        yield _GIVEN[spec]
    finally:
        del _GIVEN[spec]


@task(
    name="stage",
    task_run_name="round {number} - {stage} - cohort {cohort} of {of}",
    cache_policy=NO_CACHE,
    persist_result=False,
    log_prints=False,
)
def stage_task(folder: str, number: int, index: int, stage: str, cohort: int, of: int) -> State[Any] | None:
    """Do one stage of a round for one cohort of agents, on the cohort's worker."""
    session, progress = _OPEN[folder]
    dealt = session.cohorts(number, dict(session.stages(number))[index])
    try:
        do_cohort(session, number, index, cohort - 1, dealt[cohort - 1], progress)
    except SiteAwayError as away:  # which may be expected: it is told without a trace
        return Failed(message=str(away), data=away)
    return None


@task(
    name="segment",
    task_run_name="rounds {first} to {last}",
    cache_policy=NO_CACHE,
    persist_result=False,
    log_prints=False,
)
def segment_task(folder: str, first: int, last: int) -> None:
    """Do several rounds, where a task for each stage would be too many for a server."""
    session, progress = _OPEN[folder]
    meter = Meter(session, progress)
    for number in range(first, last + 1):
        do_round(session, number, progress)
        meter.commit(number)


def _run_name() -> str:
    parameters = get_run_context().flow_run.parameters  # type: ignore[union-attr]
    path = Path(str(parameters["spec"]))
    return path.parent.name if path.name == "spec.yaml" else path.stem


@flow(
    name="codistill",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]
    persist_result=False,
    log_prints=False,
    validate_parameters=True,
)
def run_spec(spec: str, overrides: Sequence[str] = (), runs: str = "runs", into: str | None = None) -> list[str]:
    """Run the spec called ``spec`` (a path or a shipped name), and each variant where it is a sweep.

    ``overrides`` are ``path=value``; ``runs`` is the folder of run folders; ``into`` names one run's folder. A run that
    was interrupted goes on where it stood. Returns the run folders.
    """
    done = []
    variants, lent = load_specs(spec, list(overrides)), _GIVEN.get(spec)
    if lent is None:
        checked_holdings(variants, Path(runs))
    for loaded in variants:
        ready = launch_loaded(loaded, Path(runs), Path(into) if into else None)
        if lent is not None:
            lent.task_runs += do_run(ready, lent.pool, lent.progress)
        else:
            with locked(ready.folder.path), closing(open_engine(loaded.value.engine, workers_of(loaded.value))) as pool:
                do_run(ready, pool, SilentProgress())
        done.append(str(ready.folder.path))
    return done


def do_run(ready: Ready, pool: Pool, progress: Progress) -> int:
    """Do a run and its control, as far as they are not done, inside a flow run; return the number of task runs."""
    count = 0
    for part in ready.left:
        with doing(part, ready, pool, progress) as session:
            artifacts = Artifacts(session, ready)
            _OPEN[str(part.path)] = (session, progress)
            try:
                count += _rounds(session, str(part.path), progress, artifacts)
            finally:
                del _OPEN[str(part.path)]
        artifacts.finished()
    return count


def _rounds(session: Session, folder: str, progress: Progress, artifacts: Artifacts) -> int:
    first, last = session.next_round, session.plan.rounds
    count = 0
    for begin, end in session.plan.segments(session.pool.lanes, first):
        segment_task(folder, begin, end)
        artifacts.progressed(end)
        count += 1
    if count:
        return count
    meter = Meter(session, progress)

    def as_tasks(session: Session, number: int, index: int, cohorts: list[Cohort], progress: Progress) -> None:
        nonlocal count
        count += sum(map(bool, cohorts))
        _stage(session, folder, number, index, cohorts, progress)

    for number in range(first, last + 1):
        do_round(session, number, progress, as_tasks)
        meter.commit(number)
        artifacts.progressed(number)
    return count


def _stage(session: Session, folder: str, number: int, index: int, cohorts: list[Cohort], progress: Progress) -> None:
    name = dict(session.stages(number))[index].name
    values: list[dict[str, Any]] = [
        {"folder": folder, "number": number, "index": index, "stage": name, "cohort": lane + 1, "of": len(cohorts)}
        for lane, cohort in enumerate(cohorts)
        if cohort
    ]
    progress.stage(number, name, 0, len(values))
    if len(values) == 1:
        stage_task(**values[0], return_state=True).result()
    else:
        waiting = [stage_task.submit(**value) for value in values]
        try:
            for count, future in enumerate(waiting, start=1):
                future.wait()
                progress.stage(number, name, count, len(values))
        except KeyboardInterrupt:
            session.pool.close()
            raise
        for future in waiting:  # all have ended, so no worker is still at the round if it must be done again
            future.result()
