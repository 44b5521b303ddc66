"""What the golden tests measure, and the command that writes it down: python -m codistill.tests.golden.measure.

Names of specs (``fl/dense``) after the command measure these anew and leave the others as they are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codistill.flows.check.check import carries
from codistill.flows.drive import run_plainly
from codistill.flows.launch import launch
from codistill.flows.live import SilentProgress
from codistill.flows.pool import Here
from codistill.flows.report.summary import summary
from codistill.flows.session import open_session
from codistill.flows.tables import write_tables
from codistill.specs.library import spec_names
from codistill.specs.load import load_specs

GOLDEN = Path(__file__).with_name("golden.json")
PATTERNS = {
    "distributed": "distributed",
    "hierarchical": "{hierarchical: {tiers: [{name: edge, count: 4}, {name: cloud}]}}",
    "decentralized": "{decentralized: {graph: {k-regular: {degree: 4}}}}",
}
SAMPLES = ("rounds=5", "measure.every=5", "measure.control=none", "measure.metrics=[accuracy, cross_entropy]")
"""What is measured between does not change what comes out in the end, which alone is looked at."""
TRIPLES = (
    "rounds=3",
    "measure.every=3",
    "measure.control=none",
    "measure.metrics=[mrr, hits_at_10]",
    "data.dataset=codex",
    "recipe.train.batch=512",
)
LIGHTER = {
    "fl/dense": [
        "rounds=1",
        "recipe.train.epochs=10",
        "recipe.aggregate.epochs=2",
        "recipe.aggregate.generator_steps=5",
    ],
    "fl/fedgen": ["recipe.aggregate.steps=10"],
    "fl/idkd": ["recipe.aggregate[1].when.from=2", "recipe.forget.when.from=2"],
    "fl/fedtgp": ["recipe.aggregate.epochs=10"],
}
"""What is cut of a server's work, for among peers every agent does it; and what comes too late for so few rounds."""
LIKE_A_STAR = (
    *(f"fkge/{name}-umls" for name in ("fedr", "feds", "fkge", "local")),
    *(f"fl/{name}" for name in ("def-kt", "dfml", "ds-fl", "fd", "fedavg", "fedcache", "fedmd", "fedntd", "fedproto")),
    *(f"fl/{name}" for name in ("fml", "idkd", "kt-pfl", "local", "proxyfl", "selective-fd")),
)
"""Specs whose tree gives what their star gives, to every digit that is kept, also after two rounds: two show that."""
UNLEARNING = "fkge/fedlu-unlearning-fb15k237-r10"
"""Asks for sets to forget, which CoDEx-S has none of: on a graph of its own, so under one pattern alone."""
FORGETTING = (
    "rounds=2",
    "measure.control=none",
    "measure.every=1",
    "measure.metrics=[mrr, hits_at_10, mrr_forgotten]",
    "agents[0].model={transe: {dimension: 32}}",
    "recipe.companion={transe: {dimension: 32}}",
    "recipe.round[0].train.when.from=2",
    "recipe.round[1].train.without_forgotten.from=2",
    "recipe.round[1].train.epochs=1",
    "recipe.round[1].train.negatives=32",
    "recipe.round[1].train.lr=0.01",
)


def names() -> list[str]:
    """Return the shipped specs that have golden values."""
    return [name for name in spec_names() if name.startswith(("fl/", "fkge/"))]


def patterns(name: str) -> Iterator[str]:
    """Yield the patterns that carry a shipped spec; one agent alone needs none."""
    for pattern in PATTERNS:
        (loaded,) = load_specs(name, overrides(name, pattern))
        once = name == UNLEARNING or sum(group.count for group in loaded.value.agents) == 1
        if not (once and pattern != "distributed") and carries(loaded, loaded.value.pattern.name) is None:
            yield pattern


def overrides(name: str, pattern: str) -> list[str]:
    """Return what makes a shipped spec short."""
    said = [f"pattern={PATTERNS[pattern]}", *LIGHTER.get(name, ())]
    if name == UNLEARNING:
        return [*FORGETTING, *said]
    if pattern == "hierarchical" and name in LIKE_A_STAR:
        said += ["rounds=2", "measure.every=2"]
    return [*(TRIPLES if name.startswith("fkge/") else SAMPLES), *said]


def measured(name: str, pattern: str, runs: Path) -> dict[str, Any]:
    """Run a shipped spec for a few rounds in this process and return what is held against the golden values."""
    (loaded,) = load_specs(name, overrides(name, pattern))
    ready = launch(loaded.value, runs)
    session = open_session(ready.folder, Here())
    run_plainly(session, SilentProgress())
    write_tables(ready.folder, session.plan)
    found = summary(ready.folder.path)
    rows = json.loads(ready.folder.rows(session.plan.rounds).read_text())["metrics"]
    if name.startswith("fkge/"):
        quality = {metric: _weighted(rows, metric) for metric in session.plan.metrics}
    else:
        losses = [value for _, metric, value, _ in rows if metric == "cross_entropy"]
        quality = {"accuracy": round(found["accuracy"], 4), "cross_entropy": round(sum(losses) / len(losses), 4)}
    return quality | {"bytes": found["bytes"], "packets": found["packets"]}


def _weighted(rows: list[list[Any]], metric: str) -> float:
    each = [(value, weight) for _, one, value, weight in rows if one == metric]
    return round(sum(value * weight for value, weight in each) / sum(weight for _, weight in each), 4)


def main() -> None:
    """Write golden.json anew. To be looked at line by line in a review: a change here is a change of a method."""
    known, chosen = json.loads(GOLDEN.read_text()), sys.argv[1:] or names()
    golden: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, pattern in ((one, pattern) for one in names() for pattern in patterns(one)):
            case = f"{name} {pattern}"
            if name in chosen:
                golden[case] = measured(name, pattern, Path(folder))
                print(case, golden[case], flush=True)
            elif case in known:
                golden[case] = known[case]
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    GOLDEN.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
