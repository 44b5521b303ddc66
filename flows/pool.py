"""Kept worker processes, one thread each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

SECONDS_TO_END = 1.0
"""How long workers that were told to end may take; then they are killed."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    "MALLOC_TOP_PAD_": str(4 * 2**20),
}
"""glibc gives a batch's activations back to the system and asks for them again, a page at a time: up to a fifth of a
round's CPU time. With these it keeps them. Other allocators do not read these names; a person's own setting wins."""


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer; what it did of the round can be done again by another."""


class SiteAwayError(RuntimeError):
    """A site was away for longer than the spec has the run wait for it."""

    def __init__(self, site: str, sentence: str) -> None:
        super().__init__(sentence)
        self.site = site


class PoolClosedError(RuntimeError):
    """The workers were ended, as by an interrupt, while somebody still waited for them."""


class StageError(RuntimeError):
    """A stage raised an error in a worker; doing it again would raise it again."""


class StorageError(StageError):
    """What a stage made could not be written; when there is room the round can be done again."""


def rows_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply that has rows; raise ``StageError`` for one that says what went wrong (:func:`.worker.failed`)."""
    if "storage" in reply:
        raise StorageError(reply["storage"])
    if "error" in reply:
        sys.stderr.write(reply["trace"])
        raise StageError(reply["error"])
    return reply


class Pool(Protocol):
    """Somebody who does stages. ``lane`` says which of its workers; one lane does one thing at a time."""

    lanes: int
    store: str | None
    """Where agents are kept between rounds; None: in the run's folder."""
    writes: bool
    """Whether agents are written after each stage and not only at the end of a round (``engine.save``)."""
    sites: tuple[str, ...]
    """What each lane is called where agents are bound to lanes; "" is the coordinator's. Else nothing."""

    def open(self, folder: Path) -> None:
        """Turn to the run at ``folder``; what workers held of it is forgotten."""
        ...

    def away(self) -> frozenset[str]:
        """Return the sites that were away when they were last waited for, and were not heard of since."""
        ...

    def committed(self, number: int, superseded: list[tuple[int, int]], keep_packets: bool) -> None:
        """Let go of what a run that goes on after round ``number`` does not need (:meth:`.folder.RunFolder.forget`)."""
        ...

    def finish(self) -> None:
        """Have everybody put away what is left of the run, which is finished."""
        ...

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage and return its rows (:func:`.worker.answer`)."""
        ...

    def replace(self, lane: int) -> None:
        """Put a worker in a lane that knows what is on disk and nothing of the round; raise ``PoolClosedError``."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class Placeless:
    """What pools have in common whose workers do any agent's work."""

    sites: tuple[str, ...] = ()
    store: str | None = None
    writes: bool = False

    def away(self) -> frozenset[str]:
        """Return nothing: there are no sites."""
        return frozenset()

    def committed(self, number: int, superseded: list[tuple[int, int]], keep_packets: bool) -> None:
        """Do nothing: all of a run is in its folder."""

    def finish(self) -> None:
        """Do nothing: all of a run is in its folder."""


class Processes(Placeless):
    """Worker processes that stay for the whole run, so that data and models stay resident.

    They are started before there is a run to open: importing torch takes them as long as the rest of the set-up.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._folder: Path | None = None
        self._anew = set[int]()
        self._locks = [threading.Lock() for _ in range(lanes)]
        self._changing, self._closed = threading.Lock(), False
        self._processes = [self._start() for _ in range(lanes)]

    def _start(self) -> subprocess.Popen[str]:
        environment = ALLOCATOR | os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            process_group=0,  # Ctrl-C is for the process at the terminal, which then ends its workers
        )

    def open(self, folder: Path) -> None:
        """Turn the workers to the run at ``folder``."""
        self._folder = folder.resolve()
        self._anew = set(range(self.lanes))

    @property
    def process_ids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process in self._processes]

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage on worker ``lane``; raise ``WorkerDiedError`` or ``StageError``."""
        with self._locks[lane]:
            process = self._processes[lane]
            assert process.stdin is not None and process.stdout is not None
            try:
                said = {"folder": str(self._folder), "anew": lane in self._anew}
                self._anew.discard(lane)
                process.stdin.write(json.dumps(said | request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except (OSError, ValueError):  # gone, or closed under our hands
                line = ""
            if not line:
                raise WorkerDiedError(f"worker {lane} (process {process.pid}) ended with status {process.wait()}")
            return rows_of(json.loads(line))

    def replace(self, lane: int) -> None:
        """Start a worker in place of that of a lane; raise ``PoolClosedError`` after :meth:`close`."""
        with self._locks[lane], self._changing:
            if self._closed:
                raise PoolClosedError("the workers were ended")
            _end([self._processes[lane]])
            self._processes[lane] = self._start()

    def close(self) -> None:
        """End the workers, in the middle of a stage if need be."""
        with self._changing:
            self._closed = True
            _end(self._processes)


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
    until = time.monotonic() + SECONDS_TO_END
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Here(Placeless):
    """Does stages in this process, one after another: for tests and debuggers."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self._folder = Path()
        self._workers: list[Any] = [None] * lanes
        self._lock = threading.Lock()

    def open(self, folder: Path) -> None:
        """Turn to the run at ``folder``."""
        self._folder = folder
        self._workers = [None] * self.lanes

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage here; errors pass through."""
        from .folder import RunFolder
        from .worker import answer, open_worker

        with self._lock:
            if self._workers[lane] is None:
                self._workers[lane] = open_worker(RunFolder(self._folder))
            return answer(self._workers[lane], request)

    def replace(self, lane: int) -> None:
        """Forget what a lane held in memory."""
        self._workers[lane] = None

    def close(self) -> None:
        """Nothing to end."""
