"""``codistill ablate``: what each memory is worth, as ordinary runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...specs.load import load_specs
from ..ablate import ablations
from ..check.holdings import refuse_wrong
from ..report.ablation import WHOLE, side_by_side, write_ablation
from ..report.compare import print_comparison
from .run import conduct


def ablate_command(
    name: str, overrides: list[str], memories: list[str], runs: Path, without_prefect: bool, quiet: bool
) -> None:
    """Run the spec called ``name`` as it is and once for each ablation, and print and write what came of them.

    A run that was done before, by this command or by ``codistill run``, is found again and not repeated.
    """
    whole = load_specs(name, overrides)
    refuse_wrong(whole)
    asked = ablations(memories, whole)
    variants = {WHOLE: whole} | {one.label: load_specs(name, [*overrides, *one.overrides]) for one in asked}
    labels = [label for label, some in variants.items() for _ in some]
    every = [variant for some in variants.values() for variant in some]
    titles = [
        f"ablation, run {number} of {len(every)}: {label}" + (f", seed {one.value.seed}" if len(whole) > 1 else "")
        for number, (label, one) in enumerate(zip(labels, every, strict=True), start=1)
    ]
    done = [one.folder.path for one in conduct(every, runs, None, without_prefect, quiet, titles)]
    found = side_by_side({label: [d for d, at in zip(done, labels, strict=True) if at == label] for label in variants})
    folder = runs / "ablations" / done[0].name
    facts: dict[str, dict[str, Any]] = {one.label: {"memory": one.memory, "left": one.left} for one in asked}
    write_ablation(found, facts | {WHOLE: {"memory": None, "left": 1.0}}, folder)
    if quiet:
        print(folder)
        return
    from rich.console import Console

    print_comparison(found, Console())
    print(folder / "ablation.html")
