"""Reading the data of every variant and checking what needs them, before anything runs."""

from __future__ import annotations

from pathlib import Path

from ...specs.document import Loaded
from ...specs.problems import Problem, SpecError
from ...specs.schema import Spec
from ...specs.tree import locate
from ..holdings import Holdings, hold
from ..launch import cache_folder
from .check import check, check_with, problems_of_holding


def refuse_wrong(variants: list[Loaded[Spec]]) -> None:
    """Raise ``SpecError`` with all that can be told to be wrong without reading the data; write nothing."""
    problems = [problem for variant in variants for problem in check(variant)]
    going_on = [variant for variant in variants if variant.value.continue_ == "latest"]
    if len(variants) > 1 and going_on:
        mark = locate(going_on[0].node, ("continue",), key=True)
        message = f"which of the sweep's {len(variants)} runs of one name is the latest cannot be told apart"
        problems.append(Problem(mark, "continue", message, "deploy or run one of them, or say `continue: anew`"))
    if problems:
        raise SpecError(problems)


def checked_holdings(variants: list[Loaded[Spec]], runs: Path) -> list[Holdings]:
    """Return who holds what in each variant. Raises ``SpecError`` with all that is wrong in any of them."""
    refuse_wrong(variants)
    found: list[Holdings] = []
    problems: list[Problem] = []
    for variant in variants:
        try:
            holdings = hold(variant.value, cache_folder(runs))
        except ValueError as error:
            problems += problems_of_holding(variant, error)
            continue
        wrong: list[Problem] = check_with(variant, holdings)
        problems += wrong
        found.append(holdings)
    if problems:
        raise SpecError(problems)
    return found
