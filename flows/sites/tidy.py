"""Removing letters of a run that nobody will read again. Everybody removes their own."""

from __future__ import annotations

import threading

from ..plan import Plan
from .mail import Letters

FOLDERS = ("packets", "delivered", "requests", "replies", "assignments")


class Tidy:
    """Removes a writer's letters of a run; ``keep``: none of them, so that what was sent can be looked at."""

    def __init__(self, letters: Letters, plan: Plan, keep: bool) -> None:
        self._letters, self._keep = letters, keep
        self._stay = 1 if any(said.stale for said in plan.schedule) else 0
        self._done = -1
        self._lock = threading.Lock()

    def before(self, number: int) -> None:
        """Remove packets of rounds before ``number``, which are committed; but where late ones count, the last."""
        with self._lock:
            if self._keep or number <= self._done:
                return
            self._done = number
            for name in self._letters.names("packets"):
                if name.isdecimal() and int(name) < number - self._stay:
                    self._letters.forget(f"packets/{name}")

    def everything(self) -> None:
        """Remove what is left of a finished run."""
        if not self._keep:
            for name in FOLDERS:
                self._letters.forget(name)
