"""Regenerates the tables of docs/fidelity.md: published figures beside ours and local training.

    python -m codistill.tests.benchmarks.fidelity --runs fidelity-runs

Runs are kept in the folder and found again by their digest, as in results.py. With ``--set`` nothing is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from codistill.flows.check.holdings import checked_holdings
from codistill.flows.holdings import hold
from codistill.flows.launch import Ready, cache_folder, launch
from codistill.flows.report.results import Results
from codistill.flows.report.text import bytes_text
from codistill.specs.document import Loaded
from codistill.specs.load import load_specs
from codistill.specs.schema import Spec
from codistill.tasks.streams import numpy_stream

from . import runner
from .markers import table
from .protocols import PATHOLOGICAL, PROTOCOLS, Method, Protocol, two_classes_each
from .runner import ROOT

DOCUMENT = ROOT / "docs" / "fidelity.md"
SEED = 1
HEADS = ("method", "published", "ours, best round", "ours, last", "over local", "less published", "rounds", "bytes")


@dataclass(frozen=True)
class Found:
    """What one run reached: percent, best over rounds and after the last."""

    best: float
    at: int
    last: float
    rounds: int
    bytes: int


def overrides(name: str, protocol: Protocol, method: Method, partition: str) -> list[str]:
    """Return what makes the shipped spec of the method's recipe a run of the protocol."""
    train, test = protocol.take
    return [
        f"name={name}-{method.recipe}",
        f"seed={SEED}",
        f"rounds={protocol.rounds}",
        f"data.dataset={protocol.dataset}",
        f"data.take={{train: {train}, test: {test}}}",
        f"data.partition={partition}",
        "measure.control=none",
        *protocol.common,
        *method.said,
    ]


def specs(name: str, protocol: Protocol, partition: str, more: Sequence[str]) -> dict[str, Loaded[Spec]]:
    """Return the spec of every method of a protocol. Raises ``SpecError`` where one is wrong."""
    made = {}
    for label, method in protocol.methods.items():
        said = overrides(name, protocol, method, partition)
        (made[label],) = load_specs(f"fl/{method.recipe}", [*said, *more])
    return made


def partition_of(name: str, protocol: Protocol, runs: Path, more: Sequence[str]) -> str:
    """Return the partition as a spec says it; write the file that states it where the protocol needs one."""
    if protocol.partition != PATHOLOGICAL:
        return protocol.partition
    one = next(iter(specs(name, protocol, "{by: iid}", more).values()))
    labels = hold(one.value, cache_folder(runs)).y_train
    parts = two_classes_each(labels, numpy_stream(SEED, "fidelity", "pathological"))
    text = json.dumps({"train": [part.tolist() for part in parts]})
    path = (runs / f"{name}-{len(labels)}.json").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"{{by: given, path: {json.dumps(str(path))}}}"


def found(results: Results, reads: str) -> Found:
    """Read what a run reached; of equally good rounds the first counts."""
    accuracies = [(at.round, 100 * float(getattr(at, reads))) for at in results.accuracy_by_round() if at.round > 0]
    at, best = max(accuracies, key=lambda one: (one[1], -one[0]))
    last, reached = accuracies[-1]
    return Found(best, at, reached, last, sum(results.bytes_by_round().values()))


def row(label: str, method: Method, mine: Found | None, local: Found | None) -> list[str]:
    """Return a row of a table; a run that is not finished leaves it empty."""
    if mine is None:
        return [label, method.published, "not run", *[""] * (len(HEADS) - 3)]
    over = f"{mine.best - local.best:+.2f}" if local is not None and method.recipe != "local" else "–"
    less = "–" if method.figure is None else f"{mine.best - method.figure:+.2f}"
    reached = [f"{mine.best:.2f} ({mine.at})", f"{mine.last:.2f}"]
    return [label, method.published, *reached, over, less, str(mine.rounds), bytes_text(mine.bytes)]


def write_table(protocol: Protocol, reached: dict[str, Found | None]) -> str:
    """Write a protocol's table and what its numbers are."""
    local = next((one for label, one in reached.items() if protocol.methods[label].recipe == "local"), None)
    rows = [row(label, method, reached.get(label), local) for label, method in protocol.methods.items()]
    what = {"total": "right answers over all test samples", "mean": "the mean of the agents' accuracies"}
    train, test = protocol.take
    versions = " and ".join(f"{name} {version(name)}" for name in ("codistill", "torch"))
    return (
        f"{table(HEADS, rows)}\n\nPercent, {what[protocol.reads]}; in brackets the best round. Differences are in "
        f"percentage points, of best rounds. {train:,} train and {test:,} test samples, one seed. With {versions}, "
        f"{time.strftime('%Y-%m-%d')}."
    )


def launched(name: str, protocol: Protocol, runs: Path, more: Sequence[str]) -> dict[str, Ready]:
    """Launch every run of a protocol: write the folders that are not there yet."""
    made = specs(name, protocol, partition_of(name, protocol, runs, more), more)
    checked_holdings(list(made.values()), runs)
    return {label: launch(spec.value, runs) for label, spec in made.items()}


def main() -> None:
    """Do the runs that are missing and write the tables."""
    parser = runner.options("fidelity", PROTOCOLS, "protocols", DOCUMENT)
    parser.add_argument("--methods", help="some methods, as local,FD; the others are only read")
    said = parser.parse_args()

    def made(name: str) -> str:
        protocol = PROTOCOLS[name]
        ready = launched(name, protocol, said.runs, said.set)
        asked = said.methods.split(",") if said.methods else list(ready)
        runner.do_runs(name, {(label, name): [one] for label, one in ready.items() if label in asked}, said.workers)
        reached = {
            label: found(Results.read(one.folder.path), protocol.reads) if runner.is_finished(one) else None
            for label, one in ready.items()
        }
        return write_table(protocol, reached)

    names = runner.chosen(parser, said.protocols, "protocols", PROTOCOLS)
    runner.write(names, DOCUMENT, made, keep=said.no_write or bool(said.set))


if __name__ == "__main__":
    main()
