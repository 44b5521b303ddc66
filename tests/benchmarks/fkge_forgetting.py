"""What FedLU's unlearning takes away, on the triples of FB15k-237-R10FL that each client is asked to forget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from codistill.flows.check.holdings import checked_holdings
from codistill.flows.holdings import hold
from codistill.flows.launch import Ready, cache_folder, launch
from codistill.flows.report.results import Results
from codistill.specs.load import load_specs
from codistill.specs.schema import Spec

from .fkge_protocols import PROTOCOLS
from .markers import table
from .runner import do_runs

SPEC = Path(__file__).with_name("fkge.yaml")
LEARNED, AFTER, NEVER = 15, 5, 1_000_000
"""Rounds in which all triples are learned, rounds after a client was asked to forget, and a round that never comes."""

WAYS = {
    "goes on learning them": (NEVER, NEVER),
    "stops learning them": (NEVER, LEARNED + 1),
    "unlearns them": (LEARNED + 1, LEARNED + 1),
    "never learned them": (NEVER, 1),
}
"""From which round on a client confuses the triples, and from which on it no longer learns them."""


def overrides(way: str, learned: int, rounds: int) -> list[str]:
    """Return what makes the shared spec a run of unlearning."""
    shared = PROTOCOLS["fb15k237-r10"]
    confuses, leaves = (at if at in (1, NEVER) else learned + 1 for at in WAYS[way])
    model = f"{{{shared.score}: {{dimension: {shared.dimension}, margin: {shared.margin}}}}}"
    return [
        f"name=forgetting-{way.replace(' ', '-')}",
        f"rounds={rounds}",
        f"data.dataset={shared.dataset}",
        f"data.partition={shared.partition}",
        f"agents[0].count={shared.clients}",
        f"agents[0].model={model}",
        "measure.every=5",
        "measure.metrics=[mrr, hits_at_10, mrr_forgotten]",
        "recipe=fedlu-unlearning",
        f"recipe.companion={model}",
        f"recipe.round[0].train.when.from={confuses}",
        f"recipe.round[0].train.lr={shared.train['lr']}",
        f"recipe.round[1].train.without_forgotten.from={leaves}",
        *(f"recipe.round[1].train.{key}={value}" for key, value in shared.train.items()),
    ]


def measure(runs: Path, workers: int, rounds: int | None = None) -> str:
    """Do the runs that are missing and return the table; ``rounds`` shortens both parts to try out."""
    learned, after = (LEARNED, AFTER) if rounds is None else (rounds, rounds)
    ready: dict[tuple[str, str], list[Ready]] = {}
    spec: Spec | None = None
    for way in WAYS:
        (loaded,) = load_specs(str(SPEC), overrides(way, learned, learned + after))
        checked_holdings([loaded], runs)
        spec = loaded.value
        ready[way, "star"] = [launch(spec, runs)]
    do_runs("forgetting", ready, workers)
    assert spec is not None
    asked = asked_of(spec, runs)
    last = learned + after
    moments = sorted({learned, learned + min(5, after), last})
    lines = []
    for (way, _), (one,) in ready.items():
        rows = Results.read(one.folder.path).metrics.to_pylist()
        figures = [
            (f"{mean(rows, at, 'mrr_forgotten', asked):.3f}", f"{mean(rows, at, 'mrr', None):.3f}")
            for at in moments
            if any(row["round"] == at for row in rows)
        ]
        hits = f"{100 * mean(rows, last, 'hits_at_10', None):.1f}"
        lines.append([way, *(figure for pair in figures for figure in pair), hits])
    heads = ["each client"]
    for at in moments:
        heads += [f"round {at}: MRR of what is to be forgotten", f"round {at}: MRR of test"]
    heads.append(f"Hits@10 of test, round {last}")
    count = sum(asked.values())
    said = f"{count:,} triples are to be forgotten from round {learned + 1} on; one seed."
    return f"{table(heads, lines)}\n\n{said}"


def asked_of(spec: Spec, runs: Path) -> dict[str, int]:
    """Return how many triples each client is asked to forget."""
    held = hold(spec, cache_folder(runs))
    forget = np.asarray(held.data.columns_train["unlearn"])
    group = spec.agents[0].name
    return {f"{group}-{place + 1}": int(forget[ids].sum()) for place, ids in enumerate(held.partition.train)}


def mean(rows: list[dict[str, object]], at: int, metric: str, weights: dict[str, int] | None) -> float:
    """Return a metric of round ``at`` over clients, weighing as ``weights`` say, or by test triples."""
    there = [row for row in rows if row["round"] == at and row["metric"] == metric and row["role"] == "learner"]
    each = [float(row["weight"]) if weights is None else weights[str(row["agent"])] for row in there]  # type: ignore[arg-type]
    return sum(float(row["value"]) * one for row, one in zip(there, each, strict=True)) / sum(each)  # type: ignore[arg-type]
