"""Whether a second measurement is slower than a first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .case import OURS
from .record import Row

SLOWER = 1.05
"""From here a median counts as slower, if it is also slower by more than the spread of either measurement."""


@dataclass(frozen=True)
class Verdict:
    """One provider at one shape, before and after."""

    before: Row
    after: Row

    @property
    def ratio(self) -> float:
        """Time after by time before."""
        return self.after.median_ms / self.before.median_ms

    @property
    def word(self) -> str:
        """Return "slower", "faster", "broken" (it was timed before) or "same"."""
        if not math.isnan(self.before.median_ms) and math.isnan(self.after.median_ms):
            return "broken"
        spread = max(row.p80_ms - row.p20_ms for row in (self.before, self.after))
        gap = self.after.median_ms - self.before.median_ms
        if gap > spread and self.ratio > SLOWER:
            return "slower"
        return "faster" if -gap > spread and self.ratio < 1 / SLOWER else "same"

    @property
    def fails(self) -> bool:
        """Whether one of ours became slower or broke. Peers may: that is the machine, or their next version."""
        return self.after.provider.startswith(OURS) and self.word in ("slower", "broken")

    def __str__(self) -> str:
        row = self.after
        return (
            f"{self.word:<7}{row.operation} {row.shape} {row.dtype}, {row.threads} threads, {row.provider}: "
            f"{self.before.median_ms:.3f} ms, now {row.median_ms:.3f} ms ({self.ratio:.2f} times)"
        )


def compare(before: Sequence[Row], after: Sequence[Row]) -> list[Verdict]:
    """Return a verdict for everything that both hold; of several rows for the same the last one counts.

    Raises ``ValueError`` where they have nothing in common.
    """
    first, second = ({row.key: row for row in rows} for rows in (before, after))
    both = [Verdict(first[key], second[key]) for key in first if key in second]
    if not both:
        raise ValueError(
            "the two files have nothing in common: device, threads, operation, shape, dtype and provider must be equal"
        )
    return both
