"""Writes the table of engines in docs/operations.md: seconds a round by engine, workers and agents, and what is moved.

    python -m codistill.tests.benchmarks.engines

All rows are done one after another in one call, so their ratios compare; the load of the machine is told beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codistill.flows.drive import do_round
from codistill.flows.engines import open_engine
from codistill.flows.launch import launch
from codistill.flows.pool import Pool
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.engine import Engine
from codistill.specs.load import load_specs

from .markers import replace_between, table
from .runner import ROOT

DOCUMENT = ROOT / "docs" / "operations.md"
SPEC = """
name: engines
rounds: 100
data: {dataset: digits, partition: {by: iid}}
agents: [{name: agent, count: 20, model: mlp}]
measure: {control: none, every: 100}
recipe: fedavg
"""
MEASURED = {
    "local": Engine(),
    "local, `save: stage`": Engine(save="stage"),
    "dask": Engine(kind="dask"),
    "ray": Engine(kind="ray"),
}
"""Every engine that has its workers on one machine, by what its rows are called."""
HEADS = (
    "engine",
    "workers",
    "agents",
    "s to start",
    "s a round",
    "over local",
    "told and answered a round",
    "packets a round",
)


@dataclass(frozen=True)
class Measured:
    """What one engine took: seconds, and bytes a round of requests with replies, and of packets."""

    start: float
    rounds: list[float]
    text: float
    packets: float


def measure(engine: Engine, workers: int, agents: int, rounds: int, work: Path) -> Measured:
    """Do some rounds of one spec on one engine. Round 0 and round 1 are not counted."""
    path = work / "spec.yaml"
    path.write_text(SPEC, encoding="utf-8")
    (loaded,) = load_specs(str(path), [f"agents[0].count={agents}"])
    ready = launch(loaded.value, work, work / f"{engine.kind}-{engine.save}-{workers}-{agents}")
    started = time.perf_counter()
    with contextlib.closing(open_engine(engine, workers)) as pool:
        session, said = open_session(ready.folder, pool), _weigh(pool)
        spent = []
        for number in range(rounds + 2):
            before = time.perf_counter()
            if number == 2:
                said.clear()
            do_round(session, number, SilentProgress())
            found = session.commit(number)
            spent.append(time.perf_counter() - before)
            if number == 0:
                start = time.perf_counter() - started
    return Measured(start, spent[2:], sum(said) / rounds, float(found["bytes"]))


def _weigh(pool: Pool) -> list[int]:
    """Have the pool tell how many bytes of text each stage takes and gives."""
    said: list[int] = []
    perform = pool.perform

    def weighed(lane: int, request: dict[str, Any]) -> dict[str, Any]:
        reply = perform(lane, request)
        said.append(len(json.dumps(request)) + len(json.dumps(reply)))
        return reply

    pool.perform = weighed  # type: ignore[method-assign]
    return said


def write(found: dict[tuple[str, int, int], Measured], rounds: int) -> str:
    """Return the table; a ratio is over the local engine with as many workers and agents."""
    rows = []
    for (kind, workers, agents), one in found.items():
        middle = statistics.median(one.rounds)
        local = statistics.median(found["local", workers, agents].rounds)
        rows.append(
            [kind, str(workers), f"{agents:,}", f"{one.start:.1f}", f"{middle:.2f}", f"{middle / local:.2f}"]
            + [f"{one.text / 1e3:.0f} kB", f"{one.packets / 1e6:.1f} MB"]
        )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "distributed", "ray"))
    machine = f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f} at the end"
    return (
        f"{table(HEADS, rows)}\n\nFedAvg over digits, the median of {rounds} rounds. *s to start*: until the agents "
        f"are there, importing torch included. {machine}. With {versions}, {time.strftime('%Y-%m-%d')}."
    )


def main() -> None:
    """Measure all engines and write the table."""
    parser = argparse.ArgumentParser(prog="python -m codistill.tests.benchmarks.engines")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are timed, of each")
    parser.add_argument("--no-write", action="store_true", help=f"print only, and leave {DOCUMENT} as it is")
    said = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as work:
        for agents in (20, 1000):
            for workers in (1, 2):
                for name, engine in MEASURED.items():
                    found[name, workers, agents] = measure(engine, workers, agents, said.rounds, Path(work))
    text = write(found, said.rounds)
    print(text)
    if not said.no_write:
        replace_between(DOCUMENT, "engines", text)


if __name__ == "__main__":
    main()
