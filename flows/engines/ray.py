"""Stages on actors of a Ray cluster: one started here, or one that runs already."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import ray
from ray.exceptions import RayError

from ..pool import ALLOCATOR, WorkerDiedError
from . import EngineError
from .lanes import Lanes
from .remote import perform_text, warm

QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Actors without GPUs see what they saw before; and nobody is told that Ray is used. What a person set wins."""
ENVIRONMENT = ALLOCATOR | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class _Lane:
    """A process that stays for the whole run, so that data and models stay resident."""

    def warm(self) -> int:
        warm()
        return os.getpid()

    def perform(self, text: str) -> str:
        return perform_text(text)


LANE: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Lane)


class RayWorkers(Lanes):
    """An actor for each lane; one that died is replaced by a new one."""

    def __init__(self, lanes: int, address: str | None, store: str | None = None) -> None:
        super().__init__(lanes, store)
        self._mine = address is None and not ray.is_initialized()
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        said: dict[str, Any] = {"include_dashboard": False, "num_cpus": lanes} if address is None else {}
        try:
            ray.init(
                address or "local",
                ignore_reinit_error=True,
                configure_logging=False,
                log_to_driver=False,
                runtime_env={"env_vars": ENVIRONMENT},
                **said,
            )
        except (ConnectionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise EngineError(
                f"engine.address: no Ray cluster answers at {address} ({reason}); start one with `ray start --head`"
            ) from None
        self._actors = [self._start() for _ in range(lanes)]

    def _start(self) -> Any:
        actor = LANE.remote()
        actor.warm.remote()
        return actor

    @property
    def process_ids(self) -> list[int]:
        """The actors' process ids, lane by lane."""
        return [int(ray.get(actor.warm.remote())) for actor in self._actors]

    def ask(self, lane: int, text: str) -> str:
        """Have the lane's actor do a request; raise ``WorkerDiedError`` where it is gone."""
        try:
            reply: str = ray.get(self._actors[lane].perform.remote(text))
        except RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise WorkerDiedError(f"worker {lane} (Ray) is gone ({reason})") from None
        return reply

    def renew(self, lane: int) -> None:
        """Put a new actor in the lane."""
        _kill(self._actors[lane])
        self._actors[lane] = self._start()

    def end(self) -> None:
        """End the actors, and the cluster where it was started here."""
        for actor in self._actors:
            _kill(actor)
        if self._mine:
            ray.shutdown()


def _kill(actor: Any) -> None:
    with contextlib.suppress(Exception):
        ray.kill(actor)
