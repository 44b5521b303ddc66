"""Telling trackers of a run. One that fails is left out with a note: a run does not end because nobody listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from ...tasks.choice import Choice
from ...tasks.trackers import TRACKERS, Tracked, Tracker
from ..folder import RunFolder
from ..plan import Plan
from ..progress import Progress


class Telling:
    """The trackers of one run, by name."""

    def __init__(self, chosen: Iterable[Choice], run: Tracked, progress: Progress) -> None:
        self._progress = progress
        self._trackers: dict[str, Tracker] = {
            one.name: TRACKERS[one.name].function(one.parameters, run) for one in chosen
        }

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Tell all of a round that was committed."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.round(number, values)
            except Exception as error:  # noqa: BLE001  # whatever a tracker's package raises
                del self._trackers[name]
                self._progress.note(f"{name} is no longer told ({_first_line(error)}); the run goes on")

    def end(self, folder: RunFolder | None) -> None:
        """Tell all that the run is finished; without a folder, that it was cut off."""
        report = None if folder is None else folder.path / "report.html"
        for name, tracker in self._trackers.items():
            try:
                tracker.end(report if report is not None and report.exists() else None)
            except Exception as error:  # noqa: BLE001
                self._progress.note(f"{name} did not take the end of the run ({_first_line(error)})")


@contextmanager
def telling(chosen: Iterable[Choice], folder: RunFolder, plan: Plan, progress: Progress) -> Iterator[Telling]:
    """Lend who tells the trackers of a run. Raises ``TrackerError`` before anything is trained."""
    said = {"name": plan.name, "recipe": plan.recipe, "pattern": plan.pattern, "seed": str(plan.seed)}
    said |= {"agents": str(plan.learners), "rounds": str(plan.rounds)}
    made = Telling(chosen, Tracked(folder.path, plan.digest, said), progress)
    try:
        yield made
    except BaseException:
        made.end(None)
        raise
    made.end(folder)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
