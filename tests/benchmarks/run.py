"""Measures codistill beside bare loops; docs/benchmarks.md says what and how.

    python -m codistill.tests.benchmarks.run --write

Floors and runs alternate, so that a machine that gets slower slows both. Nothing else should be at work on it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from codistill.flows.server import EmbeddedServer, apply_settings

from .markers import replace_between, table
from .watch import Moment, Watched, watch
from .workload import HERE, write_workload

DOCUMENT = HERE.parents[1] / "docs" / "benchmarks.md"

METHODS = {
    "fedavg": ("FedAvg", "fedavg", "digits20.yaml"),
    "fedproto": ("FedProto", "fedproto", "digits20-fedproto.yaml"),
    "fd": ("FD", "fd", "digits20-fd.yaml"),
    "fml": ("FML", "fml", "digits20-fml.yaml"),
    "fedkd": ("FedKD, SVD once a round", "fedkd", "digits20-fedkd.yaml"),
    "fedkd-both-ways": ("FedKD, SVD both ways (the recipe)", "fedkd", "digits20-fedkd-both-ways.yaml"),
}
"""What a row is called, its floor, its spec."""

WAYS = {"one": (1, False), "two": (2, False), "prefect": (2, True)}
"""Workers, and whether Prefect conducts."""


class Bench:
    """Where files go, how often and how long; counts jobs to say what is left."""

    def __init__(self, work: Path, rounds: int, repeat: int, jobs: int) -> None:
        self.work, self.rounds, self.repeat = work, rounds, repeat
        self._jobs, self._done, self._since = jobs, 0, time.monotonic()

    def job(self, what: str) -> None:
        """Say what comes next."""
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._since) / self._done * (self._jobs - self._done)
            left = f", about {max(1, round(seconds / 60))} min left"
        self._done += 1
        print(f"[{self._done}/{self._jobs}{left}] {what}", file=sys.stderr, flush=True)

    def run(self, spec: str, overrides: Sequence[str], workers: int, prefect: bool, memory: bool = False) -> Watched:
        """Run a spec into a fresh folder."""
        folder = self.work / "runs" / "run"
        shutil.rmtree(folder, ignore_errors=True)
        return watch(HERE / spec, overrides, folder, workers, prefect, memory)


def per_round(moments: Sequence[Moment], what: Callable[[Moment], float]) -> float:
    """Return the median over rounds from the second of what a round cost; ``moments[0]`` is the end of round 0."""
    costs = [what(after) - what(before) for before, after in zip(moments, moments[1:], strict=False)]
    return statistics.median(costs[1:] or costs)


def between_stages(folder: Path) -> float:
    """Return the seconds of a round in which no stage is under way (median): dealing out, committing, orchestration."""
    stages: dict[int, dict[str, list[tuple[float, float]]]] = {}
    for row in pq.read_table(folder / "timings.parquet").to_pylist():
        stages.setdefault(row["round"], {}).setdefault(row["stage"], []).append((row["started"], row["seconds"]))
    begins = {number: min(s for spans in by.values() for s, _ in spans) for number, by in stages.items()}
    gaps = []
    for number, by_stage in stages.items():
        if number > 0 and number + 1 in begins:
            busy = sum(max(s + d for s, d in spans) - min(s for s, _ in spans) for spans in by_stage.values())
            gaps.append(begins[number + 1] - begins[number] - busy)
    return statistics.median(gaps) if gaps else float("nan")


def several(values: Sequence[float], digits: int = 2) -> str:
    """Write a median, and the range where there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def percent(values: Sequence[float]) -> str:
    """Write a share as a percentage, with its range."""
    return several([100 * value for value in values], 1) + " %"


def mib(size: float) -> str:
    """Write bytes."""
    return f"{size / 2**20:,.0f} MiB"


# Rounds


def floor(bench: Bench, method: str) -> dict[str, float]:
    """Run a floor in a process of its own on one thread."""
    command = [sys.executable, str(HERE / "floors.py"), method, "--data", str(bench.work / "data")]
    command += ["--rounds", str(bench.rounds)]
    said = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found = json.loads(said.stdout)
    costs = {kind: statistics.median(found[kind][1:] or found[kind]) for kind in ("cpu", "wall")}
    return costs | {"accuracy": found["accuracy"][-1]}


def method_run(bench: Bench, spec: str, way: str) -> dict[str, float]:
    """Run a method's spec one of the ways, and return what a round cost."""
    seen = bench.run(spec, [f"rounds={bench.rounds}"], *WAYS[way])
    assert seen.folder is not None
    return {
        "cpu": per_round(seen.rounds, lambda moment: moment.cpu),
        "wall": per_round(seen.rounds, lambda moment: moment.wall),
        "server_cpu": per_round(seen.rounds, lambda moment: moment.server_cpu),
        "between_stages": between_stages(seen.folder),
        "accuracy": json.loads((seen.folder / "summary.json").read_text(encoding="utf-8"))["accuracy"],
    }


def measure_rounds(bench: Bench, methods: Sequence[str]) -> dict[str, Any]:
    """Measure floors and runs in turn: floor, one worker, two, two with Prefect; and again."""
    found: dict[str, Any] = {name: [] for name in methods}
    write_workload(bench.work / "data")
    for turn in range(bench.repeat):
        for name in methods:
            _, bare, spec = METHODS[name]
            bench.job(f"{name}: the floor, repetition {turn + 1}")
            measured: dict[str, Any] = {"floor": floor(bench, bare)}
            for way in WAYS:
                bench.job(f"{name}: codistill, {way}, repetition {turn + 1}")
                measured[way] = method_run(bench, spec, way)
            found[name].append(measured)
    return found


def write_rounds(found: dict[str, Any], bench: Bench) -> str:
    """Write both tables."""
    rounds, conducted = [], []
    for name, turns in found.items():

        def over(way: str, kind: str, other: str = "", turns: Any = turns) -> list[float]:
            """Give a figure of each turn, or its ratio to that of another way."""
            return [turn[way][kind] / (turn[other][kind] if other else 1) for turn in turns]

        def share(kind: str, turns: Any = turns) -> list[float]:
            return [(turn["prefect"][kind] - turn["two"][kind]) / turn["prefect"][kind] for turn in turns]

        title = METHODS[name][0]
        rounds.append([
            title,
            f"{statistics.median(over('floor', 'cpu')):.2f}",
            f"{statistics.median(over('one', 'cpu')):.2f}",
            several(over("one", "cpu", "floor")),
            several(over("two", "cpu", "floor")),
            f"{statistics.median(over('floor', 'wall')):.2f}",
            f"{statistics.median(over('two', 'wall')):.2f}",
            several(over("two", "wall", "floor")),
            f"{statistics.median(over('floor', 'accuracy')):.3f}",
            f"{statistics.median(over('two', 'accuracy')):.3f}",
        ])  # fmt: skip
        conducted.append([
            title,
            percent(share("cpu")),
            percent(share("wall")),
            f"{statistics.median(over('prefect', 'server_cpu')):.2f}",
            f"{1000 * statistics.median(over('two', 'between_stages')):.0f}",
            f"{1000 * statistics.median(over('prefect', 'between_stages')):.0f}",
        ])  # fmt: skip
    heads = ["method", "floor, CPU s a round", "codistill, CPU s", "ratio", "ratio, two workers"]
    heads += ["floor, wall s a round", "codistill, wall s, two workers", "ratio"]
    heads += [f"accuracy after {bench.rounds}, floor", "codistill"]
    first = table(heads, rounds)
    heads = ["method", "Prefect's share of CPU", "of wall time", "server, CPU s a round"]
    heads += ["between stages, ms a round", "with Prefect"]
    return f"{first}\n\n{table(heads, conducted)}"


# Start-up


def imports(statement: str) -> float:
    """Return the CPU seconds of a Python process that does nothing but import."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_startup(bench: Bench) -> dict[str, Any]:
    """Measure the way from Enter to the first round, without Prefect, with its embedded server, with one running."""
    found: dict[str, Any] = {"torch": [], "prefect": [], "plain": [], "embedded": [], "running": []}
    overrides = ["rounds=1"]
    for turn in range(bench.repeat):
        bench.job(f"start-up: imports, repetition {turn + 1}")
        found["torch"].append(imports("import torch"))
        found["prefect"].append(imports("from prefect import flow, task"))
        for way in ("plain", "embedded", "running"):
            bench.job(f"start-up: {way}, repetition {turn + 1}")
            server = EmbeddedServer() if way == "running" else None
            try:
                if server is not None:
                    server.wait()
                seen = bench.run("digits20.yaml", overrides, 2, way != "plain")
            finally:
                if server is not None:
                    server.stop()
            assert seen.began is not None
            moments = {"began": asdict(seen.began), "first_round": asdict(seen.rounds[0])}
            found[way].append(moments | {"after": seen.wall - seen.rounds[-1].wall})
    return found


def write_startup(found: dict[str, Any], bench: Bench) -> str:
    """Write the table."""
    rows = []
    torch, prefect = statistics.median(found["torch"]), statistics.median(found["prefect"])
    for way, title in (
        ("plain", "without Prefect"),
        ("running", "a server is running"),
        ("embedded", "embedded server"),
    ):
        first = [turn["first_round"] for turn in found[way]]
        imported = 2 * torch + (0 if way == "plain" else prefect)
        rows.append([
            title,
            several([turn["began"]["wall"] for turn in found[way]], 1),
            several([moment["wall"] for moment in first], 1),
            several([moment["cpu"] for moment in first], 1),
            several([moment["cpu"] - imported for moment in first], 1),
            several([moment["server_cpu"] for moment in first], 1),
            several([turn["after"] for turn in found[way]], 1),
        ])  # fmt: skip
    heads = ["Prefect", "s to the first stage", "s to round 1", "CPU s to round 1", "of these over imports"]
    heads += ["embedded server, CPU s", "s after the last round"]
    note = f"Imports: torch {torch:.1f} CPU s in each of two workers, Prefect {prefect:.1f} CPU s once."
    return f"{table(heads, rows)}\n\n{note}"


# Memory and scale


def measure_memory(bench: Bench) -> dict[str, Any]:
    """Measure the peak of all processes of a run of FedAvg and of FedKD, on two workers."""
    found = {}
    for name in ("fedavg", "fedkd"):
        for way in ("two", "prefect"):
            bench.job(f"memory: {name}, {way}")
            seen = bench.run(METHODS[name][2], ["rounds=3"], *WAYS[way], memory=True)
            found[f"{name}-{way}"] = {"peak": seen.peak_memory, "server": seen.peak_server_memory}
    return found


def write_memory(found: dict[str, Any], bench: Bench) -> str:
    """Write the table."""
    rows = []
    for key, one in found.items():
        name, _, way = key.rpartition("-")
        conducted = "with its embedded server" if way == "prefect" else "no"
        rows.append([METHODS[name][0], conducted, mib(one["peak"]), mib(one["server"]) if one["server"] else "–"])
    heads = ["method", "Prefect", "peak of codistill's processes, two workers", "peak of the server's"]
    return table(heads, rows, words=2)


def measure_scale(bench: Bench) -> dict[str, Any]:
    """Measure 100 agents a round out of 200, and out of 1,000."""
    found = {}
    for agents in (200, 1000):
        bench.job(f"scale: {agents} agents, 100 a round")
        seen = bench.run(
            "scale.yaml", [f"agents[0].count={agents}", f"participation.share={100 / agents}"], 2, False, True
        )
        assert seen.folder is not None
        stored = sum(file.stat().st_size for file in (seen.folder / "state").rglob("*") if file.is_file())
        found[str(agents)] = {
            "peak": seen.peak_memory,
            "stored": stored,
            "cpu": per_round(seen.rounds, lambda moment: moment.cpu),
            "wall": per_round(seen.rounds, lambda moment: moment.wall),
        }
    return found


def write_scale(found: dict[str, Any], bench: Bench) -> str:
    """Write the table."""
    rows = [
        [f"{int(agents):,}", "100", mib(one["peak"]), mib(one["stored"]), f"{one['cpu']:.1f}", f"{one['wall']:.1f}"]
        for agents, one in found.items()
    ]
    return table(
        ["agents", "a round", "peak memory", "state on disk", "CPU s a round", "wall s a round"], rows, words=0
    )


# All of it

PARTS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[dict[str, Any], Bench], str]]] = {
    "rounds": (measure_rounds, write_rounds),
    "startup": (measure_startup, write_startup),
    "memory": (measure_memory, write_memory),
    "scale": (measure_scale, write_scale),
}


def machine() -> str:
    """Say what this was measured on."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("codistill", "torch", "prefect", "numpy"))
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {size:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {versions}; {time.strftime('%Y-%m-%d')}, load average before "
        f"{os.getloadavg()[0]:.2f}"
    )


def named(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of names with commas between."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        wrong = [name for name in names if name not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: expected some of {', '.join(allowed)}")
        return names

    return read


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m codistill.tests.benchmarks.run")
    parser.add_argument("--parts", type=named([*PARTS]), default=[*PARTS], help=f"some of {','.join(PARTS)}")
    parser.add_argument("--methods", type=named([*METHODS]), default=[*METHODS], help=f"some of {','.join(METHODS)}")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each run of the part `rounds`")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of the parts `rounds` and `startup`")
    parser.add_argument("--work", type=Path, help="where files go; a temporary folder if not said")
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {DOCUMENT}")
    said = parser.parse_args()
    each = {"rounds": said.repeat * len(said.methods) * 4, "startup": said.repeat * 4, "memory": 4, "scale": 2}
    with tempfile.TemporaryDirectory(prefix="codistill-bench-") as temporary:
        work = (said.work or Path(temporary)).resolve()
        # A database of its own, so that neither this nor later runs of a person's Prefect slow the other down.
        os.environ["PREFECT_HOME"] = str(work / "prefect")
        os.environ.pop("PREFECT_API_URL", None)
        apply_settings()
        bench = Bench(work, said.rounds, said.repeat, 1 + sum(each[part] for part in said.parts))
        results: dict[str, Any] = {"machine": machine(), "rounds": said.rounds, "repeat": said.repeat}
        bench.job("making ready: data, Prefect's database")
        bench.run("digits20.yaml", ["rounds=1"], 2, True)
        for part in said.parts:
            measure, write = PARTS[part]
            results[part] = measure(bench, said.methods) if part == "rounds" else measure(bench)
            text = f"{write(results[part], bench)}\n\nMeasured on {results['machine']}."
            print(f"\n{part}\n\n{text}\n", flush=True)
            if said.write:
                replace_between(DOCUMENT, part, text)
            if said.json:
                said.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
