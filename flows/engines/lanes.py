"""What pools on clusters have in common: who began which era, and requests as text."""

from __future__ import annotations

import json
import threading
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..folder import RunFolder
from ..left_out import read_plan
from ..mirror import Mirror, published
from ..pool import Placeless, PoolClosedError
from ..shared_store import SharedStore
from ..versions import Versions
from .remote import read_reply


class Lanes(Placeless, ABC):
    """The lanes of a pool whose workers are elsewhere; a kind of cluster says how text gets there and back."""

    def __init__(self, lanes: int, store: str | None = None) -> None:
        self.lanes = lanes
        self._folder: Path | None = None
        self.store = store
        self._store = None if store is None else SharedStore(store)
        self._mirror: Mirror | None = None
        self._locks = [threading.Lock() for _ in range(lanes)]
        self._changing, self._closed = threading.Lock(), False
        self._begin_eras()

    def open(self, folder: Path) -> None:
        """Turn the workers to the run at ``folder``: they see it under the same path, or what of it is in the store."""
        self._folder = folder.resolve()
        if self._store is not None:
            self._mirror = _published(RunFolder(self._folder), self._store)
        self._begin_eras()

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage on worker ``lane``; raise ``WorkerDiedError`` or ``StageError``."""
        with self._locks[lane]:
            said = {"era": self._eras[lane], "folder": str(self._folder), "begins": lane not in self._begun} | request
            mirror = self._mirror
            said |= {"store": mirror and mirror.store.url, "run": mirror and mirror.run_id}
            self._begun.add(lane)
            return read_reply(self.ask(lane, json.dumps(said)), lane)

    def replace(self, lane: int) -> None:
        """Give a lane a worker that begins from what is on disk; raise ``PoolClosedError`` after :meth:`close`."""
        with self._locks[lane], self._changing:
            if self._closed:
                raise PoolClosedError("the workers were ended")
            self.renew(lane)
            self._eras[lane] = uuid.uuid4().hex
            self._begun.discard(lane)

    def committed(self, number: int, superseded: list[tuple[int, int]], keep_packets: bool) -> None:
        """Remove from the store what a run that goes on after round ``number`` does not need."""
        if self._mirror is not None:
            for name in self._mirror.store.names(f"{self._mirror.run_id}/packets"):
                if int(name) <= (number - 1 if keep_packets else number):
                    self._mirror.store.forget(f"{self._mirror.run_id}/packets/{name}")
            self._mirror.supersede(number, superseded)

    def finish(self) -> None:
        """Fetch what the run leaves into its folder, and empty the store of it."""
        if self._mirror is not None:
            for state in _last_states(self._mirror):
                self._mirror.fetch(state)
            self._mirror.store.forget(self._mirror.run_id)
            self._mirror.note(store=None)

    def close(self) -> None:
        """End the workers where they were started here, in the middle of a stage if need be; else let them go."""
        self._closed = True  # whoever waits for a new worker gives up, so this waits for nobody
        self.end()

    def _begin_eras(self) -> None:
        self._eras, self._begun = [uuid.uuid4().hex for _ in range(self.lanes)], set[int]()

    @abstractmethod
    def ask(self, lane: int, text: str) -> str:
        """Have worker ``lane`` do :func:`.remote.perform_text`; raise ``WorkerDiedError`` where it is gone."""

    @abstractmethod
    def renew(self, lane: int) -> None:
        """See to it that the lane has a worker, of its own."""

    @abstractmethod
    def end(self) -> None:
        """End the workers, or let them go."""


def _published(folder: RunFolder, store: SharedStore) -> Mirror:
    """Put into the store what workers need of a run: all that was not written by workers who had the store."""
    plan = read_plan(folder)
    states = [] if folder.info().get("store") == store.url else _last_states(folder)
    mirror = published(folder, store, plan.digest[:16], states)
    folder.note(store=store.url)
    return mirror


def _last_states(folder: RunFolder) -> list[Path]:
    """Return where agents lie as the last committed round left them."""
    plan, committed = read_plan(folder), folder.committed()
    versions = Versions(plan)
    found = ((place, versions.before(committed + 1, place)) for place in range(len(plan.agents)))
    return [folder.state(version, place) for place, version in found if version is not None]
