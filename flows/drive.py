"""Doing a run: rounds in order, cohorts side by side. What both engines share, and the plain one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress

from .finish import finish
from .folder import RunFolder
from .launch import Ready
from .live import Progress
from .lock import InUseError, locked
from .pool import Pool, SiteAwayError, StageError, WorkerDiedError
from .session import Cohort, Session, open_session
from .trackers.tell import telling

StageDoer = Callable[[Session, int, int, list[Cohort], Progress], None]
"""Does a stage of a round, by its index, for all its cohorts, and waits for them."""

TRIES = 3
"""How often a cohort's stage is begun before a dying worker ends the run."""


@contextmanager
def doing(part: RunFolder, ready: Ready, pool: Pool, progress: Progress) -> Iterator[Session]:
    """Open the run, or its control, that lies in ``part``; finish it when its rounds are done."""
    control = part is ready.control
    with _shared(part, progress) if control else nullcontext():
        session = open_session(part, pool)
        plan = session.plan
        part.note(status="running", workers=pool.lanes)
        progress.metric = plan.headline
        if session.next_round <= plan.rounds:
            title = "the control, each agent alone" if control else f"{plan.recipe}, {plan.pattern}"
            progress.started(f"{ready.plan.name}: {title}", plan.rounds, session.next_round)
        with telling(() if control else ready.track, part, plan, progress) as session.telling:
            try:
                yield session
            except (StageError, SiteAwayError, WorkerDiedError):
                with suppress(OSError):  # the disk may be full
                    part.note(status="failed")
                raise
            pool.finish()
            finish(part, session.plan, None if control else ready.control)


@contextmanager
def _shared(control: RunFolder, progress: Progress) -> Iterator[None]:
    """Have a control to oneself. Runs that differ in what is exchanged share one, so another may be doing it."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(control.path))
        except InUseError as use:
            progress.note(f"waiting: {use}")
            held.enter_context(locked(control.path, wait=True))
        yield


def do_cohort(session: Session, number: int, stage_index: int, lane: int, cohort: Cohort, progress: Progress) -> None:
    """Do a stage for one cohort. Where its worker dies another begins the round for these agents, and for no others.

    Where agents are written after each stage, it begins the stage.

    Raises ``WorkerDiedError`` where the others die too.
    """
    for attempt in range(1, TRIES + 1):
        try:
            if attempt > 1:
                session.replace(number, stage_index, lane)
            session.perform(number, stage_index, lane, cohort)
            return
        except WorkerDiedError as death:
            if attempt == TRIES:
                raise
            lost = f"a stage of round {number}" if session.pool.writes else f"round {number}"
            progress.note(f"{death}; its part of {lost} is done again")


def do_stage(session: Session, number: int, stage_index: int, cohorts: list[Cohort], progress: Progress) -> None:
    """Do all cohorts of a stage, each on its worker, and wait for them."""
    name = dict(session.stages(number))[stage_index].name
    busy = sum(map(bool, cohorts))
    progress.stage(number, name, 0, busy)
    with ThreadPoolExecutor(len(cohorts)) as threads:
        done = [
            threads.submit(do_cohort, session, number, stage_index, lane, cohort, progress)
            for lane, cohort in enumerate(cohorts)
            if cohort
        ]
        try:
            for count, future in enumerate(done, start=1):
                future.result()
                progress.stage(number, name, count, busy)
        except KeyboardInterrupt:  # what is left of the stage may take long, and will be done again
            session.pool.close()
            raise


def do_round(session: Session, number: int, progress: Progress, stage_by: StageDoer = do_stage) -> None:
    """Do one round, each stage as ``stage_by`` does it. Committing it is the caller's.

    A round for which a site was waited too long is done again without it.
    """
    while True:
        session.begin(number)
        try:
            for index, stage in session.stages(number):
                cohorts = session.cohorts(number, stage)
                if any(cohorts):
                    stage_by(session, number, index, cohorts, progress)
            return
        except SiteAwayError as away:
            session.leave_out(number, away)
            progress.note(f"{away}; round {number} goes on without it")


class Meter:
    """Tells the progress what a committed round gave."""

    def __init__(self, session: Session, progress: Progress) -> None:
        self._session, self._progress = session, progress
        self._bytes = session.bytes_sent
        self._started = time.perf_counter()

    def commit(self, number: int) -> None:
        """Commit a round and report it."""
        found = self._session.commit(number)
        if self._session.telling is not None:
            self._session.telling.round(number, found["values"])
        self._bytes += found["bytes"]
        now = time.perf_counter()
        self._progress.round_done(number, found["accuracy"], found["worst"], self._bytes, now - self._started)
        self._started = now


def run_plainly(session: Session, progress: Progress) -> None:
    """Do all rounds that are left, without Prefect."""
    meter = Meter(session, progress)
    for number in range(session.next_round, session.plan.rounds + 1):
        do_round(session, number, progress)
        meter.commit(number)
