"""What the programs that write tables of runs have in common: options, the runs that are missing, and the document."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from codistill.flows.commands.run import plainly
from codistill.flows.launch import Ready
from codistill.flows.lock import locked
from codistill.flows.pool import Processes
from codistill.flows.progress import SilentProgress
from codistill.flows.report.text import seconds_text
from codistill.specs.problems import SpecError

from .markers import replace_between

ROOT = Path(__file__).resolve().parents[2]


def options(program: str, known: Collection[str], called: str, document: Path) -> argparse.ArgumentParser:
    """Return a parser of what every such program takes; ``called``: the option that chooses among ``known``."""
    parser = argparse.ArgumentParser(prog=f"python -m codistill.tests.benchmarks.{program}")
    runs = Path(f"{program}-runs")
    parser.add_argument("--runs", type=Path, default=runs, help="the folder of runs; it is kept")
    parser.add_argument(f"--{called}", default=",".join(known), help=f"some of {','.join(known)}")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="worker processes")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="for trying out: rounds=2")
    parser.add_argument("--no-write", action="store_true", help=f"print only, and leave {document} as it is")
    return parser


def chosen(parser: argparse.ArgumentParser, said: str, called: str, known: Collection[str]) -> list[str]:
    """Return the names that were ``said``; the parser ends the program where one is not ``known``."""
    names = said.split(",")
    if not set(names) <= {*known}:
        parser.error(f"--{called}: expected some of {','.join(known)}")
    return names


def write(names: Sequence[str], document: Path, made: Callable[[str], str], keep: bool) -> None:
    """Print each table that is ``made``, and put it into the document unless that is to be kept as it is.

    A table whose specs are wrong, or whose data are not there, is told of and left as it was.
    """
    shared = ROOT.parent / "shared" / "data"
    if shared.is_dir():
        os.environ.setdefault("CODISTILL_DATA", str(shared))
    for name in names:
        try:
            text = made(name)
        except SpecError as error:
            print(f"{name} is left as it was:\n{error}", file=sys.stderr)
            continue
        print(f"\n{name}\n\n{text}\n", flush=True)
        if not keep:
            replace_between(document, name, text)


def is_finished(ready: Ready) -> bool:
    """Whether there is nothing left to do."""
    return bool(ready.folder.info().get("status") == "finished")


def do_runs(title: str, ready: Mapping[tuple[str, str], list[Ready]], workers: int) -> None:
    """Do what is not finished, on the same workers throughout."""
    waiting = [(*cell, one) for cell, every in ready.items() for one in every if not is_finished(one)]
    total = sum(map(len, ready.values()))
    print(f"{title}: {total - len(waiting)} of {total} runs are there", file=sys.stderr, flush=True)
    if not waiting:
        return
    lengths: list[float] = []
    with contextlib.closing(Processes(workers)) as pool:
        for recipe, pattern, one in waiting:
            started = time.monotonic()
            with locked(one.folder.path):
                plainly(one, pool, SilentProgress())
            lengths.append(time.monotonic() - started)
            left = statistics.fmean(lengths) * (len(waiting) - len(lengths))
            print(
                f"{title} [{total - len(waiting) + len(lengths)}/{total}] {recipe}, {pattern}, seed {one.plan.seed}: "
                f"{seconds_text(lengths[-1])}, about {seconds_text(left)} left",
                file=sys.stderr,
                flush=True,
            )
