"""The memory of a run with a hundred clients of FB15k-237: the peak of all its processes."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

from .markers import table
from .watch import watch

SPEC = Path(__file__).with_name("fkge.yaml")
CLIENTS, ROUNDS = 100, 3
WIDTHS = (64, 128)


def overrides(width: int) -> list[str]:
    """Return what makes the shared spec a run of FedE with a hundred clients."""
    training = {"epochs": 1, "lr": 0.005, "negatives": 64, "batch": 512}
    return [
        f"name=memory-{width}",
        f"rounds={ROUNDS}",
        "data.dataset=fb15k237",
        f"agents[0].count={CLIENTS}",
        f"agents[0].model={{transe: {{dimension: {width}, margin: 8.0}}}}",
        "measure.every=3",
        *(f"recipe.round[0].train.{key}={value}" for key, value in training.items()),
    ]


def measure(runs: Path, workers: int) -> str:
    """Run each width unless it was run, and return the table."""
    lines = []
    for width in WIDTHS:
        kept = runs / f"memory-{width}-{workers}.json"
        if not kept.exists():
            runs.mkdir(parents=True, exist_ok=True)
            seen = watch(SPEC, overrides(width), runs / f"memory-{width}-{workers}", workers, False, True)
            assert seen.folder is not None
            moments = [after.wall - before.wall for before, after in zip(seen.rounds, seen.rounds[1:], strict=False)]
            stored = sum(path.stat().st_size for path in (seen.folder / "state").rglob("*") if path.is_file())
            found = {"peak": seen.peak_memory, "stored": stored, "round": statistics.median(moments)}
            kept.write_text(json.dumps(found | {"load": os.getloadavg()[0]}), encoding="utf-8")
        told = json.loads(kept.read_text(encoding="utf-8"))
        sizes = [f"{told[key] / 2**20:,.0f} MiB" for key in ("peak", "stored")]
        lines.append([str(CLIENTS), str(width), *sizes, f"{told['round']:.0f}", f"{told['load']:.0f}"])
    heads = ["clients", "dimension", "peak memory of all processes", "state on disk", "wall s a round", "load average"]
    said = f"FedE with {workers} workers, FB15k-237 by relation, {ROUNDS} rounds with the ranking of all test triples."
    return f"{table(heads, lines, words=0)}\n\n{said}"
