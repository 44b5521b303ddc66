"""What the golden tests measure, and the command that writes it down: python -m codistill.tests.golden.measure.

Names of specs (``fl/dense``) after the command measure these anew and leave the others as they are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

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
ROUNDS = 5
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


def names() -> list[str]:
    """Return the shipped specs of the setting fl."""
    return [name for name in spec_names() if name.startswith("fl/")]


def measured(name: str, pattern: str, runs: Path) -> dict[str, Any]:
    """Run a shipped spec for a few rounds in this process and return what is held against the golden values."""
    said = [
        f"rounds={ROUNDS}",
        "measure.control=none",
        f"pattern={PATTERNS[pattern]}",
        "measure.metrics=[accuracy, cross_entropy]",
        *LIGHTER.get(name, ()),
    ]
    (loaded,) = load_specs(name, said)
    ready = launch(loaded.value, runs)
    session = open_session(ready.folder, Here())
    run_plainly(session, SilentProgress())
    write_tables(ready.folder, session.plan)
    found = summary(ready.folder.path)
    rows = json.loads(ready.folder.rows(session.plan.rounds).read_text())["metrics"]
    losses = [value for _, metric, value, _ in rows if metric == "cross_entropy"]
    return {
        "accuracy": round(found["accuracy"], 4),
        "cross_entropy": round(sum(losses) / len(losses), 4),
        "bytes": found["bytes"],
        "packets": found["packets"],
    }


def main() -> None:
    """Write golden.json anew. To be looked at line by line in a review: a change here is a change of a method."""
    known, chosen = json.loads(GOLDEN.read_text()), sys.argv[1:] or names()
    golden: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, pattern in ((name, pattern) for name in names() for pattern in PATTERNS):
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
