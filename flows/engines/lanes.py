"""What pools on clusters have in common: who began which era, and requests as text."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

from .remote import read_reply


class Lanes:
    """The lanes of a pool whose workers are elsewhere; a kind of cluster says how text gets there and back."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._folder: Path | None = None
        self._locks = [threading.Lock() for _ in range(lanes)]
        self._new_era()

    def open(self, folder: Path) -> None:
        """Turn the workers to the run at ``folder``, which they see under the same path."""
        self._folder = folder.resolve()
        self._new_era()

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage on worker ``lane``; raise ``WorkerDiedError`` or ``StageError``."""
        with self._locks[lane]:
            said = {"era": self._era, "folder": str(self._folder), "begins": lane not in self._begun} | request
            self._begun.add(lane)
            return read_reply(self.ask(lane, json.dumps(said)), lane)

    def restart(self) -> None:
        """Begin anew from what is on disk, with workers in place of those that are gone."""
        self._new_era()
        self.replace()

    def _new_era(self) -> None:
        self._era, self._begun = uuid.uuid4().hex, set[int]()

    def ask(self, lane: int, text: str) -> str:
        """Have worker ``lane`` do :func:`.remote.perform_text`; raise ``WorkerDiedError`` where it is gone."""
        raise NotImplementedError

    def replace(self) -> None:
        """See to it that every lane has a worker."""
        raise NotImplementedError
