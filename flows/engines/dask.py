"""Stages on the workers of a Dask cluster: one started here, or one that runs already."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import dask
from dask.distributed import Client, LocalCluster
from dask.distributed import TimeoutError as NotYet
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from ..pool import ALLOCATOR, PoolClosedError, WorkerDiedError
from . import EngineError
from .lanes import Lanes
from .remote import perform_text, warm

PATIENCE = 60
"""Seconds that workers may take to come up."""
LOOK = 2
"""Seconds after which it is looked whether the worker that is waited for is still there."""
GONE = 5
"""Seconds after which the scheduler knows that a worker is gone."""
LOOK_FOR_NEW = 0.1
"""Seconds between looks for a worker in place of one that died."""
QUIET = ("distributed.nanny", "distributed.scheduler", "distributed.core", "distributed.batched", "distributed.worker")


class DaskWorkers(Lanes):
    """One task at a time on each of as many Dask workers as there are lanes.

    Tasks are bound to a worker by its address, and Dask does none of them again: after a death it is for the run to say
    what is.
    """

    def __init__(self, lanes: int, address: str | None, store: str | None = None) -> None:
        for name in QUIET:  # what Dask says of workers that come and go; what matters is said by the run
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._cluster = None
        with _settings():
            if address is None:
                self._cluster = LocalCluster(
                    n_workers=lanes,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",
                    memory_limit=0,
                )
            try:
                self._client = Client(self._cluster or address, set_as_default=False, timeout=PATIENCE)
            except OSError as error:
                raise EngineError(
                    f"engine.address: no Dask scheduler answers at {address} ({error}); start one with "
                    "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
                ) from None
        if address is not None:
            found = len(self._workers())
            if found == 0:
                self._client.close()
                raise EngineError(
                    f"engine.address: the Dask scheduler at {address} has no workers; start some with "
                    f"`dask worker {address} --nthreads 1`, with codistill installed"
                )
            lanes = min(lanes, found)
        super().__init__(lanes, store)
        self._wait_for(lanes)
        self._addresses = self._workers()[:lanes]
        self._warm = [self._warmed(at) for at in self._addresses]

    def _workers(self) -> list[str]:
        return sorted(self._client.scheduler_info(n_workers=-1)["workers"])

    def _wait_for(self, count: int) -> None:
        try:
            self._client.wait_for_workers(count, timeout=PATIENCE)
        except (NotYet, TimeoutError):
            raise _too_few(len(self._workers()), self.lanes) from None

    def _warmed(self, address: str) -> Any:
        return self._client.submit(warm, workers=[address], pure=False)

    def renew(self, lane: int) -> None:
        """Wait for a worker that no lane has and give it to the lane; or its own, where that is not gone."""
        began, before = time.monotonic(), self._addresses[lane]
        while not (free := [at for at in self._workers() if at not in self._addresses]):
            waited = time.monotonic() - began
            if self._closed:
                raise PoolClosedError("the workers were ended")
            if waited > GONE and before in self._workers():
                free = [before]
                break
            if waited > PATIENCE:
                raise _too_few(len(self._workers()), self.lanes)
            time.sleep(LOOK_FOR_NEW)
        self._addresses[lane] = free[0]
        self._warm[lane] = self._warmed(free[0])

    @property
    def process_ids(self) -> list[int]:
        """The workers' process ids, lane by lane."""
        import os

        found: dict[str, int] = self._client.run(os.getpid, workers=self._addresses)
        return [found[address] for address in self._addresses]

    def ask(self, lane: int, text: str) -> str:
        """Have the lane's worker do a request; raise ``WorkerDiedError`` where it is gone."""
        at = self._addresses[lane]
        died = WorkerDiedError(f"worker {lane} (Dask, {at}) is gone")
        future = self._client.submit(perform_text, text, workers=[at], allow_other_workers=False, pure=False, retries=0)
        while True:
            try:
                reply: str = future.result(timeout=LOOK)
                return reply
            except (NotYet, TimeoutError):
                if at not in self._workers():
                    future.cancel(force=True)
                    raise died from None
            except (KilledWorker, FutureCancelledError, CommClosedError, OSError):
                raise died from None

    def end(self) -> None:
        """End the workers where they were started here; else let them go."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=1)
        if self._cluster is not None:
            with contextlib.suppress(Exception):
                self._cluster.close(timeout=1)


def _too_few(there: int, lanes: int) -> EngineError:
    return EngineError(f"engine: {there} of {lanes} Dask workers came up within {PATIENCE} s")


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    said: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.nanny.pre-spawn-environ": ALLOCATOR | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        "distributed.worker.daemon": True,
        "distributed.comm.timeouts.connect": f"{PATIENCE}s",
    }
    with dask.config.set(said):
        yield
