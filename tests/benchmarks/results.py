"""Regenerates the tables of docs/results.md: every shipped recipe under every pattern.

    python -m codistill.tests.benchmarks.results --runs results-runs

Runs are kept in the folder and found again by their digest: what is finished is only read, what was interrupted goes
on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from codistill.flows.check.check import carries
from codistill.flows.check.holdings import checked_holdings
from codistill.flows.launch import Ready, launch
from codistill.flows.report.compare import estimate_text
from codistill.flows.report.estimates import estimate
from codistill.flows.report.headline import headline
from codistill.flows.report.results import Results
from codistill.specs.document import Loaded
from codistill.specs.library import recipe_names
from codistill.specs.load import load_specs
from codistill.specs.schema import Spec

from . import runner
from .markers import table
from .runner import ROOT

DOCUMENT = ROOT / "docs" / "results.md"

PATTERNS = {
    "distributed": "pattern=distributed",
    "hierarchical": "pattern={hierarchical: {tiers: [{name: edge, count: 4}, {name: cloud}]}}",
    "decentralized": "pattern={decentralized: {graph: {k-regular: {degree: 4}}}}",
}
MODELS_ABOVE = {
    "fedagg": {
        "distributed": "pattern={distributed: {server: {model: {mlp: {hidden: [256, 128]}}}}}",
        "hierarchical": "pattern={hierarchical: {forward: own, tiers: ["
        "{name: edge, count: 4, model: {mlp: {hidden: [256, 128]}}}, "
        "{name: cloud, model: {mlp: {hidden: [512, 256]}}}]}}",
    }
}
"""Patterns whose aggregators have models, for recipes in which they learn."""
PICTURES = ("fedavg", "fd", "fedmd", "feddf", "fedproto")
"""The recipes that are shown on larger cuts of pictures of 28x28."""
FIRST = ("local", "ds-fl", "fd", "fedavg", "feddf", "fedkd", "fedmd", "fedntd", "fedproto", "fedprox", "fml")
"""The recipes that need no memory of their own."""
LEARNING_RATE = 0.01
"""On pictures. At the digits' rate of 0.05 a dense network on 784 pixels in [-1, 1] is on the edge of divergence."""


@dataclass(frozen=True)
class Asked:
    """What a table shows: the data, a cut of it (training and test samples) and rounds; None: as the specs say."""

    dataset: str
    cut: tuple[int, int] | None = None
    rounds: int | None = None

    def shows(self, name: str, recipe: str) -> bool:
        """Whether ``recipe`` is in the table called ``name``."""
        return {
            "digits": recipe in FIRST,
            "digits-memory": recipe not in FIRST or recipe == "local",
            "mnist-all": True,
        }.get(name, recipe in PICTURES)


TABLES = {
    "digits": Asked("digits"),
    "digits-memory": Asked("digits"),
    "mnist-all": Asked("mnist", (1000, 500), 5),
    "mnist": Asked("mnist", (6000, 2000), 15),
    "fashion-mnist": Asked("fashion-mnist", (6000, 2000), 15),
}
FIGURES = {
    "accuracy": "accuracy",
    "accuracy_worst": "worst agent",
    "gain_mean": "gain over local",
    "bytes": "bytes a run",
    "bytes_held": "bytes held",
}


@dataclass(frozen=True)
class Cell:
    """A recipe under a pattern: its runs, or why there are none."""

    recipe: str
    pattern: str
    variants: list[Loaded[Spec]]
    refused: str | None


def shipped_recipes() -> list[str]:
    """Return the recipes that a spec is shipped for; learning alone comes first."""
    found = [recipe for recipe in recipe_names() if (ROOT / "specs" / "fl" / f"{recipe}.yaml").exists()]
    return sorted(found, key=lambda recipe: (recipe != "local", recipe))


def overrides(asked: Asked, recipe: str) -> list[str]:
    """Return what makes the shipped spec of ``recipe`` one of a table: the part of the data, and who holds what."""
    if asked.cut is None:
        return []
    (shipped,) = load_specs(f"fl/{recipe}")
    spec, (train, test) = shipped.value, asked.cut
    said = [f"name={recipe}-{asked.dataset}", f"data.dataset={asked.dataset}"]
    said += [f"data.take={{train: {train}, test: {test}}}", "data.partition={by: dirichlet, alpha: 0.5, min_size: 10}"]
    if spec.rounds > 1:  # a method of one round has one
        said.append(f"rounds={asked.rounds}")
    for part, steps in (("start", spec.recipe.start), ("round", spec.recipe.round)):
        for index, step in enumerate(steps):
            chosen = getattr(step.parameters, "optimizer", None)
            if step.name in ("train", "absorb") and chosen is not None and chosen.name == "sgd":
                lr = min(chosen.parameters.lr, LEARNING_RATE)
                said.append(f"recipe.{part}[{index}].{step.name}.optimizer.sgd.lr={lr}")
    # Peers do the server's work twenty times over: in full it takes an hour and more.
    fewer = {"feddf": "steps=20", "dense": "epochs=5", "fedgen": "steps=20", "fedtgp": "epochs=20"}
    if recipe in fewer:
        said.append(f"recipe.aggregate.{fewer[recipe]}")
    return said if spec.data.public is None else [*said, "data.public.share=0.2"]


def cells(recipes: Sequence[str], seeds: Sequence[int], asked: Asked, more: Sequence[str], runs: Path) -> list[Cell]:
    """Lay the table out. Raises ``SpecError`` where the data are not there."""
    made = []
    for recipe in recipes:
        said = [*overrides(asked, recipe), *more]
        # Who learns alone has no pattern, and is no different under any.
        patterns = PATTERNS | MODELS_ABOVE.get(recipe, {}) if recipe != "local" else {"any": "pattern=distributed"}
        for pattern, override in patterns.items():
            variants = load_specs(f"fl/{recipe}", [*said, override, f"seed={list(seeds)}"])
            refused = carries(variants[0], variants[0].value.pattern.name)
            if refused is None:
                checked_holdings(variants[:1], runs)
            made.append(Cell(recipe, pattern, variants, refused))
    return made


def ready_runs(table_cells: Sequence[Cell], runs: Path) -> dict[tuple[str, str], list[Ready]]:
    """Launch every run of a table: write the folders that are not there yet."""
    return {
        (cell.recipe, cell.pattern): [launch(variant.value, runs) for variant in cell.variants]
        for cell in table_cells
        if cell.refused is None
    }


def write_table(table_cells: Sequence[Cell], ready: dict[tuple[str, str], list[Ready]]) -> str:
    """Write the table, and why some of its cells are empty."""
    rows, seeds = [], {len(cell.variants) for cell in table_cells}
    for cell in table_cells:
        head = [cell.recipe, cell.pattern]
        if cell.refused is not None:
            rows.append([*head, f"cannot run: {cell.refused}", *[""] * (len(FIGURES) - 1)])
            continue
        seen = [headline(Results.read(one.folder.path)) for one in ready[cell.recipe, cell.pattern]]
        for figure in FIGURES:
            values = [value for one in seen if (value := getattr(one, figure)) is not None]
            head.append(estimate_text(estimate(values), figure, seen[0].metric))
        rows.append(head)
    spread = (
        "± is the half width of Student's 95 % interval over seeds" if seeds != {1} else "one seed, so no intervals"
    )
    made = table(["recipe", "pattern", *FIGURES.values()], rows, words=2)
    versions = " and ".join(f"{name} {version(name)}" for name in ("codistill", "torch"))
    return f"{made}\n\nGains are in percentage points; {spread}. With {versions}, {time.strftime('%Y-%m-%d')}."


def main() -> None:
    """Do the runs that are missing and write the tables."""
    parser = runner.options("results", TABLES, "tables", DOCUMENT)
    parser.add_argument("--recipes", help="some recipes; all that a table has if not said")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N of the digits")
    parser.add_argument("--picture-seeds", type=int, default=1, help="seeds 1 to N of MNIST and Fashion-MNIST")
    said = parser.parse_args()

    def made(name: str) -> str:
        asked = TABLES[name]
        recipes = [recipe for recipe in shipped_recipes() if asked.shows(name, recipe)]
        if said.recipes:
            recipes = [recipe for recipe in recipes if recipe in said.recipes.split(",")]
        seeds = range(1, 1 + (said.seeds if asked.dataset == "digits" else said.picture_seeds))
        laid = cells(recipes, seeds, asked, said.set, said.runs)
        ready = ready_runs(laid, said.runs)
        runner.do_runs(name, ready, said.workers)
        return write_table(laid, ready)

    runner.write(runner.chosen(parser, said.tables, "tables", TABLES), DOCUMENT, made, keep=said.no_write)


if __name__ == "__main__":
    main()
