"""Running ``codistill run`` as a person would, and reading the clocks and the memory of all its processes.

A round ends when its line is printed; at that moment the CPU time of every process of the run is read. Linux alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
ROUND = re.compile(r"round +(\d+)/")
SAMPLED_EVERY = 0.2


@dataclass(frozen=True)
class Moment:
    """Wall seconds since the command was entered, and CPU seconds of its processes and of Prefect's server."""

    wall: float
    cpu: float
    server_cpu: float


@dataclass
class Watched:
    """One run as seen from outside. ``rounds[0]`` is the end of round 0, after which training begins."""

    began: Moment | None = None
    rounds: list[Moment] = field(default_factory=list)
    wall: float = 0.0
    peak_memory: int = 0
    peak_server_memory: int = 0
    folder: Path | None = None
    said: list[str] = field(default_factory=list)


def processes(root: int) -> dict[int, bool]:
    """Return the processes that descend from ``root``, itself included, and whether each belongs to the server."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None:
                parents[int(entry)] = int(fields[1])
    found = {root: False}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for pid in [pid for pid, its in parents.items() if its == parent]:
            found[pid] = found[parent] or _is_server(pid)
            waiting.append(pid)
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat after the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _is_server(pid: int) -> bool:
    try:
        return b"flows.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended."""
    try:
        own = time.clock_gettime((~pid << 3) | 2)  # the clock that clock_getcpuclockid(3) names
    except OSError:
        return 0.0
    fields = _stat(pid)
    return own + (sum(map(int, fields[13:15])) / TICKS if fields else 0.0)


def memory(pid: int) -> int:
    """Return a process's share of memory in bytes: pages that several processes map are divided among them (PSS)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def watch(
    spec: Path,
    overrides: Sequence[str],
    folder: Path,
    workers: int,
    prefect: bool,
    watch_memory: bool = False,
) -> Watched:
    """Run a spec into ``folder`` and return what was seen. Raises ``RuntimeError`` where the command fails."""
    command = [sys.executable, "-m", "codistill.flows.cli", "run", str(spec), "--runs", str(folder.parent)]
    command += ["--into", str(folder), "--workers", str(workers), *([] if prefect else ["--without-prefect"])]
    command += [word for override in overrides for word in ("--set", override)]
    seen = Watched(folder=folder)
    entered = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TERM": "dumb"},
    ) as process:
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, seen, ended))
        if watch_memory:
            sampler.start()
        assert process.stdout is not None
        for line in process.stdout:
            seen.said.append(line.rstrip())
            if seen.began is None and re.search(r": \d+ rounds?$", line):
                seen.began = _moment(process.pid, entered)
            elif ROUND.match(line):
                seen.rounds.append(_moment(process.pid, entered))
        status = process.wait()
        ended.set()
        if watch_memory:
            sampler.join()
    seen.wall = time.perf_counter() - entered
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}\nended with status {status}:\n" + "\n".join(seen.said[-30:]))
    return seen


def _moment(root: int, entered: float) -> Moment:
    wall = time.perf_counter() - entered
    found = processes(root)
    own = sum(cpu_seconds(pid) for pid, server in found.items() if not server)
    return Moment(wall, own, sum(cpu_seconds(pid) for pid, server in found.items() if server))


def _sample(root: int, seen: Watched, ended: threading.Event) -> None:
    while not ended.wait(SAMPLED_EVERY):
        found = [(memory(pid), server) for pid, server in processes(root).items()]
        seen.peak_memory = max(seen.peak_memory, sum(size for size, server in found if not server))
        seen.peak_server_memory = max(seen.peak_server_memory, sum(size for size, server in found if server))
