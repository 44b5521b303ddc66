"""Regenerates the tables of docs/fkge.md: federated knowledge graphs, what each method reaches and what it costs.

    python -m codistill.tests.benchmarks.fkge --runs fkge-runs

Runs are kept in the folder and found again by their digest, as in results.py. Names choose tables: ``codex``,
``fb15k237-3``, ``fb15k237-r10``, ``forgetting``, ``central``, ``memory``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from codistill.flows.check.check import carries
from codistill.flows.check.holdings import checked_holdings
from codistill.flows.launch import Ready, launch
from codistill.flows.report.estimates import estimate
from codistill.flows.report.text import bytes_text
from codistill.specs.library import recipe_names
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from codistill.specs.schema import Spec

from . import fkge_central, fkge_forgetting, fkge_memory
from .fkge_measured import Reached, collective, reached
from .fkge_protocols import METHODS, PROTOCOLS, Protocol
from .markers import replace_between, table
from .runner import ROOT, do_runs, is_finished

DOCUMENT = ROOT / "docs" / "fkge.md"
SPEC = Path(__file__).with_name("fkge.yaml")
HEADS = ["method", "pattern", "MRR", "Hits@1", "Hits@3", "Hits@10", "worst client", "gain over local", "clients up"]
HEADS += ["bytes a run", "CPU s"]


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; None: as a protocol says."""

    runs: Path
    workers: int
    seeds: int | None
    rounds: int | None
    methods: tuple[str, ...] | None
    only_read: bool


@dataclass(frozen=True)
class Row:
    """A method under a pattern: the spec of each seed, or why there is none."""

    label: str
    pattern: str
    specs: dict[int, Spec]
    refused: str | None


def rows(name: str, protocol: Protocol, asked: Asked) -> list[Row]:
    """Lay a table out. Raises ``SpecError`` where the data are not there."""
    made = []
    for label in protocol.methods:
        method = METHODS[label]
        if method.recipe not in recipe_names() or (asked.methods and label not in asked.methods):
            continue
        patterns = method.pattern if protocol.patterns else dict([next(iter(method.pattern.items()))])
        for pattern, said in patterns.items():
            specs, refused = {}, None
            for seed in range(1, 1 + (asked.seeds or protocol.seeds)):
                (loaded,) = load_specs(str(SPEC), protocol.overrides(name, label, said, seed, asked.rounds))
                refused = carries(loaded, loaded.value.pattern.name)
                if refused is None:
                    checked_holdings([loaded], asked.runs)
                    specs[seed] = loaded.value
            made.append(Row(label, pattern, specs, refused))
    return made


def found(row: Row, ready: dict[int, Ready], clients: dict[int, Spec], runs: Path) -> dict[int, Reached]:
    """Return what a row's finished runs reached, by seed."""
    made = {}
    for seed, one in ready.items():
        if is_finished(one):
            if row.label == "collective":
                names = [f"client-{number}" for number in range(1, 1 + clients[seed].agents[0].count)]
                made[seed] = collective(one, clients[seed], names, runs)
            else:
                made[seed] = reached(one.folder.path)
    return made


def gains(mine: Reached, local: Reached) -> list[float]:
    """Return how much each client's MRR is above its own alone."""
    return [value - local.values["mrr"][client] for client, value in mine.values["mrr"].items()]


def several(values: Sequence[float], scale: float = 1, digits: int = 3, sign: str = "") -> str:
    """Write a mean over seeds and its interval."""
    one = estimate(values)
    if one is None:
        return "–"
    text = f"{scale * one.mean:{sign}.{digits}f}".replace("-", "−")
    return text if one.half_width is None else f"{text} ± {scale * one.half_width:.{digits}f}"


def table_row(row: Row, seen: dict[int, Reached], local: dict[int, Reached]) -> list[str]:
    """Return a row of a table."""
    head = [row.label, row.pattern]
    if row.refused is not None or not seen:
        return [*head, f"cannot run: {row.refused}" if row.refused else "not run", *[""] * (len(HEADS) - 3)]
    every = list(seen.values())
    head.append(several([one.weighted("mrr") for one in every]))
    head += [several([one.weighted(f"hits_at_{k}") for one in every], 100, 1) for k in (1, 3, 10)]
    head.append(several([min(one.values["mrr"].values()) for one in every]))
    both = [gains(one, local[seed]) for seed, one in seen.items() if seed in local]
    if not both:
        head += ["–", "–"]
    else:
        head.append(several([statistics.fmean(one) for one in both], sign="+"))
        up, clients = sum(gain > 0 for one in both for gain in one), sum(map(len, both))
        head.append(f"{up} of {clients}")
    head.append(bytes_text(statistics.fmean(one.bytes for one in every)))
    return [*head, f"{statistics.fmean(one.cpu for one in every):.0f}"]


def curves(seen: dict[tuple[str, str], dict[int, Reached]]) -> str:
    """Return the table of MRR by round, of what was run."""
    there = {key: every for key, every in seen.items() if every and key[0] != "collective"}
    rounds = sorted({at for every in there.values() for one in every.values() for at in one.curve})
    lines = [
        [label, pattern, *(f"{statistics.fmean(one.curve[at] for one in every.values()):.3f}" for at in rounds)]
        for (label, pattern), every in there.items()
    ]
    return table(["MRR after round", "pattern", *map(str, rounds)], lines, words=2)


def by_client(seen: dict[tuple[str, str], dict[int, Reached]]) -> str:
    """Return the table of each client's MRR, mean over seeds."""
    there = {key: every for key, every in seen.items() if every}
    clients = list(next(iter(next(iter(there.values())).values())).weights)
    lines = [
        [label, *(f"{statistics.fmean(one.values['mrr'][client] for one in every.values()):.3f}" for client in clients)]
        for (label, _), every in there.items()
    ]
    return table(["MRR of", *(client.removeprefix("client-") for client in clients)], lines)


def protocol_table(name: str, asked: Asked) -> str:
    """Do the runs of a protocol that are missing and write its tables."""
    protocol = PROTOCOLS[name]
    laid = rows(name, protocol, asked)
    ready = {
        (row.label, row.pattern): {seed: launch(spec, asked.runs) for seed, spec in row.specs.items()} for row in laid
    }
    # Seed by seed: a table of one seed is there early.
    for seed in sorted({seed for each in ready.values() for seed in each} if not asked.only_read else ()):
        do_runs(name, {key: [each[seed]] for key, each in ready.items() if seed in each}, asked.workers)
    clients = next(row.specs for row in laid if row.label == "local")
    seen = {
        (row.label, row.pattern): found(row, ready[row.label, row.pattern], clients, asked.runs)
        for row in laid
        if row.refused is None
    }
    alone = {label: each for (label, _), each in seen.items()}
    lines = [
        table_row(row, seen.get((row.label, row.pattern), {}), alone.get(METHODS[row.label].against or "", {}))
        for row in laid
    ]
    parts = [table(HEADS, lines, words=2), curves(seen)]
    if not protocol.patterns:
        parts.append(by_client(seen))
    counts = {len(each) for each in seen.values() if each}
    spread = "one seed" if counts == {1} else f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else ""
    spread = spread or f"{max(counts)} seeds; ± is the half width of Student's 95 % interval"
    settings = ", ".join(f"{key} {value}" for key, value in protocol.train.items())
    parts.append(
        f"{protocol.title}. {protocol.score} of dimension {protocol.dimension}, margin {protocol.margin:g}; "
        f"{asked.rounds or protocol.rounds} rounds; each: {settings}. {spread}. {stamp()}"
    )
    return "\n\n".join(parts)


def stamp() -> str:
    """Say with what and when."""
    versions = " and ".join(f"{name} {version(name)}" for name in ("codistill", "torch"))
    return f"With {versions}, {time.strftime('%Y-%m-%d')}."


TABLES: dict[str, Callable[[Asked], str]] = {
    **{name: (lambda asked, name=name: protocol_table(name, asked)) for name in PROTOCOLS},  # type: ignore[misc]
    "forgetting": lambda asked: f"{fkge_forgetting.measure(asked.runs, asked.workers, asked.rounds)}\n\n{stamp()}",
    "central": lambda asked: f"{fkge_central.measure(asked.runs, asked.rounds)}\n\n{stamp()}",
    "memory": lambda asked: f"{fkge_memory.measure(asked.runs, asked.workers)}\n\n{stamp()}",
}


def main() -> None:
    """Do the runs that are missing and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m codistill.tests.benchmarks.fkge")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(TABLES)}; all if not said")
    parser.add_argument("--runs", type=Path, default=Path("fkge-runs"), help="the folder of runs; it is kept")
    parser.add_argument("--seeds", type=int, help="seeds 1 to N; as each table says if not said")
    parser.add_argument(
        "--rounds", type=int, help="rounds, or epochs of `central`, to try out; then nothing is written"
    )
    parser.add_argument("--methods", help="some methods, as local,fede")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="worker processes")
    parser.add_argument(
        "--only-read", action="store_true", help="do no run of a graph's clients; write what is finished"
    )
    parser.add_argument("--no-write", action="store_true", help=f"print only, and leave {DOCUMENT} as it is")
    said = parser.parse_args()
    shared = ROOT.parent / "shared" / "data"
    if shared.is_dir():
        os.environ.setdefault("CODISTILL_DATA", str(shared))
    names = said.names or list(TABLES)
    if not set(names) <= {*TABLES}:
        parser.error(f"expected some of {', '.join(TABLES)}")
    methods = tuple(said.methods.split(",")) if said.methods else None
    asked = Asked(said.runs, said.workers, said.seeds, said.rounds, methods, said.only_read)
    for name in names:
        try:
            text = TABLES[name](asked)
        except SpecError as error:
            print(f"{name} is left as it was:\n{error}", file=sys.stderr)
            continue
        print(f"\n{name}\n\n{text}\n", flush=True)
        if not said.no_write and not said.rounds and not methods:
            replace_between(DOCUMENT, name, text)


if __name__ == "__main__":
    main()
