"""What pools on clusters have in common: who began which era, and requests as text."""

from __future__ import annotations

import json
import threading
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..pool import Placeless, PoolClosedError
from .remote import read_reply


class Lanes(Placeless, ABC):
    """The lanes of a pool whose workers are elsewhere; a kind of cluster says how text gets there and back."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._folder: Path | None = None
        self._locks = [threading.Lock() for _ in range(lanes)]
        self._changing, self._closed = threading.Lock(), False
        self._begin_eras()

    def open(self, folder: Path) -> None:
        """Turn the workers to the run at ``folder``, which they see under the same path."""
        self._folder = folder.resolve()
        self._begin_eras()

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage on worker ``lane``; raise ``WorkerDiedError`` or ``StageError``."""
        with self._locks[lane]:
            said = {"era": self._eras[lane], "folder": str(self._folder), "begins": lane not in self._begun} | request
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
