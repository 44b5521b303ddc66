"""Compile every kernel that the launchers launch for an H100, without one, and measure what came out.

``python -m codistill.tests.kernels.build.dry [NAME ...] [--write]``

The cases come from the files ``cases_NAME.py`` beside this one: each has ``cases()``, which returns, by name, functions
that call a launcher on CPU tensors of a representative shape. Names given restrict what is compiled. Prints JSON,
case -> kernel -> quantity -> number, on standard output; what breaks ``budgets.json`` on standard error, with exit
status 1. ``--write`` puts new budgets, with a margin, into the file instead, for the cases that were compiled.

Not under ``TRITON_INTERPRET``. Compilation is measured in a cache of its own, so nothing old is.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import budgets

HERE = Path(__file__).parent


def discovered(only: list[str]) -> dict[str, Callable[[], object]]:
    """Return the cases of ``cases_*.py`` as ``name/case``; those named in ``only``, or all."""
    found = {}
    for path in sorted(HERE.glob("cases_*.py")):
        name = path.stem.removeprefix("cases_")
        if not only or name in only:
            module = importlib.import_module(f".{path.stem}", __package__)
            found.update({f"{name}/{case}": call for case, call in module.cases().items()})
    missing = set(only) - {case.partition("/")[0] for case in found}
    if missing:
        raise SystemExit(f"there is no cases_{sorted(missing)[0]}.py in {HERE}")
    return found


def measured(cases: dict[str, Callable[[], object]]) -> budgets.Measured:
    """Compile and take apart; a case that fails is ``{"error": what was said}``."""
    from .driver import dry_launch
    from .sass import counts

    made: budgets.Measured = {}
    for case, call in cases.items():
        kernels: dict[str, dict[str, float]] = {}
        try:
            for one in dry_launch(call):
                number = sum(name.partition(" ")[0] == one.name for name in kernels) + 1
                name = one.name if number == 1 else f"{one.name} {number}"
                kernels[name] = {**counts(one.kernel), "seconds": round(one.seconds, 2)}
            made[case] = kernels
        except Exception as error:  # the other cases are of interest too
            made[case] = {"error": f"{type(error).__name__}: {error}"}
    return made


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="NAME", help="of cases_NAME.py; all if none is given")
    parser.add_argument("--write", action="store_true", help="write budgets.json")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        found = measured(discovered(said.only))
    print(json.dumps(found, indent=1))
    kept = budgets.load()
    if said.write:
        others = {case: one for case, one in kept.items() if said.only and case.partition("/")[0] not in said.only}
        budgets.save({**others, **budgets.budgets(found)})
        return 0
    broken = budgets.breaches(found, kept)
    print("\n".join(broken), file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
