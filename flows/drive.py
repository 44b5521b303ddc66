"""Doing a run: rounds in order, cohorts side by side. What both engines share, and the plain one."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from .live import Progress
from .pool import WorkerDied
from .session import Cohort, Session

TRIES = 3
"""How often a round is begun before a dying worker ends the run."""


def do_stage(session: Session, number: int, stage_index: int, cohorts: list[Cohort], progress: Progress) -> None:
    """Do all cohorts of a stage, each on its worker, and wait for them."""
    name = dict(session.stages(number))[stage_index].name
    progress.stage(number, name, 0, len(cohorts))
    with ThreadPoolExecutor(len(cohorts)) as threads:
        done = [
            threads.submit(session.perform, number, stage_index, lane, cohort) for lane, cohort in enumerate(cohorts)
        ]
        for count, future in enumerate(done, start=1):
            future.result()
            progress.stage(number, name, count, len(cohorts))


def do_round(session: Session, number: int, progress: Progress) -> None:
    """Do one round and commit it. A round whose worker dies is begun again, from what is committed."""
    for attempt in range(1, TRIES + 1):
        try:
            session.begin(number)
            for index, stage in session.stages(number):
                cohorts = session.cohorts(number, stage)
                if any(cohort.places or cohort.measured for cohort in cohorts):
                    do_stage(session, number, index, cohorts, progress)
            return
        except WorkerDied as death:
            if attempt == TRIES:
                raise
            progress.note(f"{death}; round {number} is done again")
            session.pool.restart()


class Meter:
    """Tells the progress what a committed round gave."""

    def __init__(self, session: Session, progress: Progress) -> None:
        self._session, self._progress = session, progress
        self._bytes = 0
        self._started = time.perf_counter()

    def commit(self, number: int) -> None:
        """Commit a round and report it."""
        found = self._session.commit(number)
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
    sys.stdout.flush()
