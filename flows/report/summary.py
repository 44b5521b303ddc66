"""The figures at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .memories import event_counts, store_figures
from .privacy_section import largest_epsilon
from .results import PREFERRED_METRICS, Results


def summary(folder: Path) -> dict[str, Any]:
    """Return the figures of the run at ``folder`` from its tables (docs/run-folder.md)."""
    results = Results.read(folder)
    plan, spec = results.plan, results.spec()
    measured = results.metric in PREFERRED_METRICS and bool(results.accuracy_by_round())
    last = results.accuracy_by_round()[-1] if measured else None
    control = results.control_accuracy() if measured else {}
    gains = results.gain_by_agent() if measured else {}
    held = results.bytes_held_by_kind()
    final = max((number for rounds in held.values() for number in rounds), default=0)
    ends = results.simulated_ends()
    return {
        "name": plan["name"],
        "recipe": plan["recipe"],
        "pattern": plan["pattern"],
        "dataset": next(iter(spec["data"]["dataset"])),
        "seed": plan["seed"],
        "rounds": plan["rounds"],
        "agents": plan["learners"],
        "metric": results.metric,
        "accuracy": last.total if last else None,
        "accuracy_mean": last.mean if last else None,
        "accuracy_worst": last.worst if last else None,
        "control_accuracy": results.control_by_round()[-1].total if control else None,
        "gain_mean": sum(gains.values()) / len(gains) if gains else None,
        "gain_worst": min(gains.values(), default=None),
        "agents_below_control": sum(gain < 0 for gain in gains.values()) if gains else None,
        "bytes": sum(results.bytes_by_round().values()),
        "raw_bytes": sum(results.ledger.column("raw_bytes").to_pylist()),
        "packets": results.ledger.num_rows,
        "bytes_held": {kind: rounds[final] for kind, rounds in held.items() if final in rounds},
        "stores": {
            said.store: {key: getattr(said, key) for key in ("items", "bytes", "hit_rate", "mean_age")}
            for said in store_figures(results, by_role=False)
        },
        "events": event_counts(results),
        "epsilon": largest_epsilon(results),
        "simulated_seconds": ends.get(plan["rounds"], 0.0),
    }
