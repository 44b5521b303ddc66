"""What was unlearned, beside what was kept and what was never seen: figures from a run's tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .results import Results

PARTS = {"forgotten": "_forgotten", "kept": "_kept", "never seen": ""}
"""What triples are called, and how the names of their metrics end."""
WITHIN = (1, 3, 10)


@dataclass(frozen=True)
class Unlearned:
    """Ranks of triples that agents were asked to forget, that they keep, and that they never saw.

    ``mrr``: part -> round -> mean reciprocal rank over all such triples. ``hits``: part -> (before, after) -> k ->
    share of heads and tails that rank among the first k. ``began`` is the first round in which any agent unlearned;
    ``before`` the last measured round before it, ``after`` the last of all. They are None where nobody unlearned, and
    ``hits`` is empty.
    """

    mrr: dict[str, dict[int, float]]
    hits: dict[str, tuple[dict[int, float], dict[int, float]]]
    began: int | None
    before: int | None
    after: int


def unlearned(results: Results) -> Unlearned | None:
    """Return what became of what was to be forgotten; None where its ranks were not measured."""
    mrr = {part: _by_round(results, f"mrr{end}") for part, end in PARTS.items()}
    mrr = {part: by_round for part, by_round in mrr.items() if by_round}
    if "forgotten" not in mrr:
        return None
    rounds, after = sorted(mrr["forgotten"]), max(mrr["forgotten"])
    events = zip(*(results.events.column(name).to_pylist() for name in ("round", "what")), strict=True)
    began = min((number for number, what in events if what == "unlearned"), default=None)
    before = None if began is None else max((number for number in rounds if number < began), default=None)
    hits: dict[str, tuple[dict[int, float], dict[int, float]]] = {}
    for part in mrr if before is not None else ():
        shares = {k: _by_round(results, f"hits_at_{k}{PARTS[part]}") for k in WITHIN}
        moments = [{k: share[at] for k, share in shares.items() if at in share} for at in (before, after)]
        if moments[0]:
            hits[part] = (moments[0], moments[1])
    return Unlearned(mrr, hits, began, before, after)


def _by_round(results: Results, metric: str) -> dict[int, float]:
    """Return the mean of a metric over learners, each weighing as many triples as are behind its value, by round."""
    names = ("round", "role", "metric", "value", "weight")
    columns = (results.metrics.column(name).to_pylist() for name in names)
    found: dict[int, list[tuple[float, int]]] = {}
    for number, role, name, value, weight in zip(*columns, strict=True):
        if role == "learner" and name == metric and weight and value is not None and math.isfinite(value):
            found.setdefault(number, []).append((value, weight))
    return {
        number: math.fsum(value * weight for value, weight in values) / sum(weight for _, weight in values)
        for number, values in sorted(found.items())
    }
