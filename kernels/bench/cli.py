"""The command line of the benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from .case import OPERATIONS, all_cases
from .compare import compare
from .record import append, read
from .run import cores, run, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or ``compare`` two of its files; ``arguments`` are those of the process if None.

    Returns the exit status: 1 where one of our providers is wrong or, in a comparison, slower.
    """
    parser = argparse.ArgumentParser(prog="python -m codistill.kernels.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=OPERATIONS, default=[], metavar="NAME", help="an operation")
    parser.add_argument("--quick", action="store_true", help="smaller shapes, a fifth of the rounds")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="append the rows to this file")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU where there is one, if not said")
    parser.add_argument("--threads", default="", metavar="N,M", help="on a CPU; one thread, then all, if not said")
    commands = parser.add_subparsers(dest="command", metavar="compare A.csv B.csv")
    two = commands.add_parser("compare", help="fail where B.csv is slower than A.csv by 5 %% and by the spread")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    said = parser.parse_args(arguments)
    if said.command == "compare":
        return compare_files(said.before, said.after)
    device = torch.device(said.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    threads = [int(text) for text in said.threads.split(",") if text]
    if not threads:
        threads = [cores()] if device.type == "cuda" else sorted({1, cores()})
    rows = run(
        lambda: all_cases(device, said.quick, said.only),
        device,
        threads,
        said.quick,
        lambda text: print(text, flush=True),
        lambda made: append(said.csv, made) if said.csv else None,
    )
    bad = wrong(rows)
    for row in bad:
        print(f"\n{row.operation} {row.shape} {row.dtype}: {row.provider} {row.note}")
    return 1 if bad else 0


def compare_files(before: Path, after: Path) -> int:
    """Print what became slower or faster, and return 1 where one of ours became slower."""
    verdicts = compare(read(before), read(after))
    for verdict in sorted(verdicts, key=lambda one: -one.ratio):
        if verdict.word != "same":
            print(verdict)
    failing = sum(verdict.fails for verdict in verdicts)
    print(f"{len(verdicts)} compared, {failing} of ours slower")
    return 1 if failing else 0
