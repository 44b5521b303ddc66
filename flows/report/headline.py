"""The few figures that a run is judged by, from its tables, or from its summary where a table is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .memories import hit_rate
from .results import Results


@dataclass(frozen=True)
class Headline:
    """The figures at the end of a run; `None` where nothing was measured."""

    name: str
    recipe: str
    pattern: str
    dataset: str
    cite: str
    seed: int | None
    rounds: int | None
    last_round: int | None
    learners: int
    metric: str
    accuracy: float | None
    accuracy_mean: float | None
    accuracy_worst: float | None
    control_accuracy: float | None
    gain_mean: float | None
    gain_worst: float | None
    agents_below_control: int | None
    bytes: int | None
    packets: int | None
    bytes_held: int | None
    hit_rate: float | None
    simulated_seconds: float | None
    seconds: float | None


def _number(value: object) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _named(value: object, *keys: str) -> str:
    """Give the name in a spec's entry: text itself, `{name: ...}`, or the single key of a mapping."""
    if isinstance(value, dict):
        for key in keys:
            if isinstance(value.get(key), str):
                return str(value[key])
        return str(next(iter(value))) if len(value) == 1 else ""
    return value if isinstance(value, str) else ""


def headline(results: Results) -> Headline:
    """Compute a run's headline figures."""
    summary, run, spec = results.summary, results.run, results.spec()

    def said(key: str) -> Any:
        return next((place[key] for place in (summary, run, spec, results.plan) if place.get(key) is not None), None)

    rounds = results.accuracy_by_round()
    control = results.control_by_round()
    gains = list(results.gain_by_agent().values())
    last = rounds[-1] if rounds else None
    control = [at for at in control if last is None or at.round <= last.round] or control
    held = {number for by_round in results.bytes_held_by_kind().values() for number in by_round}
    final = max(held, default=0)
    held_bytes = sum(by_round.get(final, 0) for by_round in results.bytes_held_by_kind().values()) if held else None
    told_held = summary.get("bytes_held")
    if held_bytes is None and isinstance(told_held, dict):
        held_bytes = sum(_whole(value) or 0 for value in told_held.values())
    ledger = results.ledger.num_rows > 0
    ends = results.simulated_ends()
    learners = sum(agent.role == "learner" for agent in results.agents())
    return Headline(
        name=str(said("name") or results.folder.resolve().name),
        recipe=_named(said("recipe"), "use", "name"),
        pattern=_named(said("pattern"), "name", "kind", "use"),
        dataset=_named(said("dataset"), "name") or _named(said("data"), "dataset", "name"),
        cite=str(said("cite") or ""),
        seed=_whole(said("seed")),
        rounds=_whole(said("rounds")),
        last_round=last.round if last else None,
        learners=learners or _whole(summary.get("agents")) or 0,
        metric=results.metric,
        accuracy=last.total if last else _number(summary.get("accuracy")),
        accuracy_mean=last.mean if last else _number(summary.get("accuracy_mean")),
        accuracy_worst=last.worst if last else _number(summary.get("accuracy_worst")),
        control_accuracy=control[-1].total if control else _number(summary.get("control_accuracy")),
        gain_mean=math.fsum(gains) / len(gains) if gains else _number(summary.get("gain_mean")),
        gain_worst=min(gains) if gains else _number(summary.get("gain_worst")),
        agents_below_control=(
            sum(gain < -1e-12 for gain in gains) if gains else _whole(summary.get("agents_below_control"))
        ),
        bytes=sum(results.bytes_by_round().values()) if ledger else _whole(summary.get("bytes", 0)),
        packets=results.ledger.num_rows if ledger else _whole(summary.get("packets", 0)),
        bytes_held=held_bytes,
        hit_rate=hit_rate(results),
        simulated_seconds=max(ends.values()) if ends else _number(summary.get("simulated_seconds")),
        seconds=_number(run.get("seconds")),
    )
