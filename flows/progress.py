"""The events of a run that is going on, and what can be told from those so far."""

from __future__ import annotations

import statistics
from types import TracebackType
from typing import Protocol, Self

from .report.text import clean

RECENT_ROUNDS = 7


class Progress(Protocol):
    """What the engine tells whoever is watching."""

    metric: str
    """What is measured: the name of the numbers that rounds are told with."""

    def started(self, title: str, rounds: int, first_round: int) -> None:
        """Say that a run of so many rounds begins, or goes on, with `first_round`."""

    def stage(self, round: int, name: str, cohorts_done: int, cohorts: int) -> None:
        """Say how far a stage of a round is."""

    def round_done(
        self, round: int, accuracy: float | None, worst: float | None, bytes_so_far: int, seconds: float
    ) -> None:
        """Say that a round is committed, and what was measured after it."""

    def finished(self, message: str) -> None:
        """Say that the run is over."""

    def note(self, text: str) -> None:
        """Say anything else."""

    def close(self) -> None:
        """Leave the terminal as it was found; also after an interruption, and more than once."""


class Closing:
    """Closes what it is when a `with` block is left, however it is left."""

    metric = "accuracy"

    def close(self) -> None:
        """Leave the terminal as it was found."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SilentProgress(Closing):
    """Says nothing."""

    def started(self, title: str, rounds: int, first_round: int) -> None:
        """Say nothing."""

    def stage(self, round: int, name: str, cohorts_done: int, cohorts: int) -> None:
        """Say nothing."""

    def round_done(
        self, round: int, accuracy: float | None, worst: float | None, bytes_so_far: int, seconds: float
    ) -> None:
        """Say nothing."""

    def finished(self, message: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class State:
    """What has been told so far."""

    def __init__(self) -> None:
        self.title = ""
        self.rounds = 0
        self.round = 0
        self.stage = ""
        self.cohorts_done = 0
        self.cohorts = 0
        self.bytes = 0
        self.accuracies: list[float] = []
        self.worst: float | None = None
        self.lengths: list[float] = []

    def start(self, title: str, rounds: int, first_round: int) -> None:
        """Begin, or go on with `first_round`."""
        self.title, self.rounds, self.round = clean(title), rounds, max(first_round - 1, 0)

    def end_round(
        self, round: int, accuracy: float | None, worst: float | None, bytes_so_far: int, seconds: float
    ) -> None:
        """Take in a committed round."""
        self.round, self.bytes, self.stage = round, bytes_so_far, ""
        if round > 0:  # round 0 only measures
            self.lengths = [*self.lengths, seconds][-RECENT_ROUNDS:]
        if accuracy is not None:
            self.accuracies.append(accuracy)
        if worst is not None:
            self.worst = worst

    def left(self) -> float | None:
        """Estimate the seconds left from the median of the last rounds."""
        if not self.lengths:
            return None
        return statistics.median(self.lengths) * max(self.rounds - self.round, 0)
