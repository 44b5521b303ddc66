"""One process at a time in a run's folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = ".lock"
"""The file in a run's folder that is locked; it says who holds it. It stays: only the lock counts, and dies with us."""


class InUseError(RuntimeError):
    """Another process is at work on the run."""


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Have ``folder`` to oneself. ``wait`` for another process to be done with it, or raise ``InUseError``."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUseError(f"{folder} is being run by another process ({file.read().strip() or 'unknown'})") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
