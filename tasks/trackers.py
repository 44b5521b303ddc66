"""Who else is told of a run: names for ``track:`` in a spec, and what stands behind each. It changes no number.

The trackers that ship are in ``codistill.flows.trackers``; outside packages enter theirs as those of other registries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .choice import Choice, choice, when_asked
from .registry import Registry


@dataclass(frozen=True)
class Tracked:
    """A run that somebody is told of: its name, pattern and seed as words, and its folder."""

    folder: Path
    digest: str
    said: Mapping[str, str]


class Tracker(Protocol):
    """Is told of one run. A run that was cut off is told of anew by another one, of the same folder."""

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Take the values of a round that was committed."""
        ...

    def end(self, report: Path | None) -> None:
        """Take the report of a run that is finished; None where it was cut off."""
        ...


class TrackerError(RuntimeError):
    """A tracker cannot be had; the sentence says why and what to do."""


TRACKERS: Registry[Callable[[Any, Tracked], Tracker]] = Registry("trackers")

if TYPE_CHECKING:
    TrackerChoice = Choice
else:
    __getattr__ = when_asked(
        TrackerChoice=lambda: choice("Tracker", TRACKERS, "Who is told of the run, besides its folder and Prefect.")
    )
