"""Writes the table of Prefect's settings in docs/orchestration.md: what a short run costs with each put back.

    python -m codistill.tests.benchmarks.prefect_settings

Variants are done in turn, and again, so that a machine that gets slower slows all. Nothing else should be at work.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from codistill.flows.server import SETTINGS

from .markers import replace_between, table
from .runner import ROOT

DOCUMENT = ROOT / "docs" / "orchestration.md"
SPEC = """
name: settings
rounds: 10
data: {dataset: digits, partition: {by: iid}}
agents: [{name: agent, count: 20, model: linear}]
measure: {control: none}
recipe: fedavg
"""
RECORDER = "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_"
DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "true",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "true",
    f"{RECORDER}READ_BATCH_SIZE": "1",
    f"{RECORDER}BATCH_SIZE": "1",
    f"{RECORDER}FLUSH_INTERVAL": "5",
}
"""What Prefect 3.8 has where we have something else (test_prefect_settings.py asks it)."""

SHIPPED, ALL = "as shipped", "all of them"
VARIANTS: dict[str, Mapping[str, str]] = {
    SHIPPED: {},
    **{name: {name: value} for name, value in DEFAULTS.items()},
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_*": {k: v for k, v in DEFAULTS.items() if k.startswith(RECORDER)},
    ALL: DEFAULTS,
}
HEADS = ("put back to Prefect's default", "shipped", "default", "s", "CPU s", "over shipped", "task runs recorded")


@dataclass(frozen=True)
class Cost:
    """What one run took in seconds, with the embedded server's CPU, and which share of its task runs is recorded."""

    wall: float
    cpu: float
    recorded: float


def measure(spec: Path, home: Path, runs: Path, settings: Mapping[str, str]) -> Cost:
    """Run the spec into a fresh folder with the embedded server."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1", **settings}
    command = [sys.executable, "-m", "codistill.flows.cli", "run", str(spec), "--runs", str(runs), "--workers", "2"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, _recorded(home / "prefect.db") / task_runs())


def task_runs() -> int:
    """Return how many task runs the spec has: on two workers two for each stage of learners, and one at the server."""
    return 2 + 10 * (2 + 1 + 2)


def _recorded(database: Path) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        last = "SELECT id FROM flow_run ORDER BY created DESC LIMIT 1"
        asked = f"SELECT count(*) FROM task_run WHERE state_type = 'COMPLETED' AND flow_run_id = ({last})"
        (count,) = opened.execute(asked).fetchone()
    return int(count)


def rows(found: Mapping[str, list[Cost]]) -> list[list[str]]:
    """Return the table's rows: medians."""
    base = statistics.median(cost.wall for cost in found[SHIPPED])
    made = []
    for name, costs in found.items():
        wall = statistics.median(cost.wall for cost in costs)
        cpu = statistics.median(cost.cpu for cost in costs)
        least = min(cost.recorded for cost in costs)
        said = [SETTINGS.get(name, ""), DEFAULTS.get(name, "")]
        over = "–" if name == SHIPPED else f"{100 * (wall / base - 1):+.0f} %"
        called = f"`{name}`" if name.startswith("PREFECT") else name
        made.append([called, *said, f"{wall:.1f}", f"{cpu:.1f}", over, f"{100 * least:.0f} %"])
    return made


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(prog="python -m codistill.tests.benchmarks.prefect_settings")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each")
    parser.add_argument("--no-write", action="store_true", help=f"print only, and leave {DOCUMENT} as it is")
    said = parser.parse_args()
    found: dict[str, list[Cost]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as work:
        spec, home = Path(work) / "settings.yaml", Path(work) / "prefect"
        spec.write_text(SPEC, encoding="utf-8")
        measure(spec, home, Path(work) / "first", {})  # the first start makes the database, and the data are prepared
        for turn in range(said.repeat):
            for index, (name, settings) in enumerate(VARIANTS.items()):
                cost = measure(spec, home, Path(work) / f"{turn}-{index}", settings)
                print(f"turn {turn + 1} of {said.repeat}: {name}: {cost}", file=sys.stderr, flush=True)
                found[name].append(cost)
    made = table(HEADS, rows(found), words=3)
    made += (
        f"\n\n20 agents, 10 rounds, {task_runs()} task runs; medians of {said.repeat}, of recorded task runs the least."
    )
    made += f" Prefect {version('prefect')}, {os.cpu_count()} cores, load at the end {os.getloadavg()[0]:.1f};"
    made += f" {time.strftime('%Y-%m-%d')}."
    print(made)
    if not said.no_write:
        replace_between(DOCUMENT, "prefect-settings", made)


if __name__ == "__main__":
    main()
