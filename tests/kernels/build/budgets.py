"""What a kernel may need: a measurement with a margin, kept in ``budgets.json`` and held against the next one."""

import json
import math
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("budgets.json")

NEVER = ("spill_bytes", "stack_bytes", "local_bytes", "ldl", "stl", "fp64")
"""A new budget forgives none of these, whatever was measured. Who must have one writes it into the file by hand."""

MEANING = {
    "registers": "registers a thread",
    "spill_bytes": "bytes of spilled registers",
    "stack_bytes": "bytes of stack",
    "local_bytes": "bytes of local memory",
    "ldl": "loads from local memory",
    "stl": "stores to local memory",
    "fp64": "float64 instructions",
    "hgmma": "warp-group matrix instructions (HGMMA)",
    "tensor_core": "tensor-core instructions",
    "ldg": "global loads",
    "ldg128": "16-byte global loads",
    "ldgsts": "global loads into shared memory",
    "ldgsts128": "16-byte global loads into shared memory",
    "stg128": "16-byte global stores",
    "shared_bytes": "bytes of shared memory",
    "instructions": "instructions",
    "seconds": "seconds of compilation",
    "programs_at_once": "programs at once on a multiprocessor",
}

Measured = dict[str, Any]
"""case -> kernel -> quantity -> number; or case -> {"error": why it does not compile}."""


def budget(measured: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return {"at_most": ..., "at_least": ...} for one kernel, with room for another version of the compiler."""
    at_most: dict[str, float] = dict.fromkeys(NEVER, 0)
    at_most["registers"] = measured["registers"] + 8
    at_most["instructions"] = math.ceil(measured["instructions"] * 1.1)
    at_most["ldg"] = math.ceil(measured["ldg"] * 1.1)
    at_most["ldgsts"] = math.ceil(measured["ldgsts"] * 1.1)
    at_most["shared_bytes"] = measured["shared_bytes"]
    at_most["seconds"] = max(15, math.ceil(measured["seconds"] * 5))
    at_least = {name: measured[name] for name in ("ldg128", "ldgsts128", "stg128", "hgmma") if measured[name]}
    if measured["dots"]:
        at_least["tensor_core"] = max(1, measured["tensor_core"])
    return {"at_most": at_most, "at_least": at_least}


def budgets(measured: Measured) -> Measured:
    """Return budgets for all that was measured; raise ``ValueError`` for what does not compile."""
    broken = [f"{case}: {kernels['error']}" for case, kernels in measured.items() if "error" in kernels]
    if broken:
        raise ValueError("no budget for what does not compile\n" + "\n".join(broken))
    return {case: {name: budget(one) for name, one in kernels.items()} for case, kernels in measured.items()}


def breaches(measured: Measured, allowed: Measured) -> list[str]:
    """Return a sentence for each budget that is missing or broken, none where all is well."""
    found = []
    for case, kernels in measured.items():
        if "error" in kernels:
            found.append(f"{case}: does not compile: {kernels['error']}")
            continue
        if not kernels:
            found.append(f"{case}: launches no kernel")
        for name, has in kernels.items():
            may = allowed.get(case, {}).get(name)
            if may is None:
                found.append(f"{case}: {name} has no budget; see `python -m codistill.tests.kernels.build.dry --help`")
                continue
            for what, most in may["at_most"].items():
                if has[what] > most:
                    found.append(f"{case}: {name} has {has[what]:g} {MEANING[what]}; its budget is {most:g}")
            for what, least in may["at_least"].items():
                if has[what] < least:
                    found.append(f"{case}: {name} has {has[what]:g} {MEANING[what]}; its budget is at least {least:g}")
    return found


def left_over(measured: Measured, allowed: Measured) -> list[str]:
    """Return a sentence for each budget of a case or a kernel that is gone."""
    gone = [f"{case}: there is a budget and no such case" for case in allowed if case not in measured]
    for case, kernels in measured.items():
        if "error" not in kernels:
            unused = allowed.get(case, {}).keys() - kernels.keys()
            gone += [f"{case}: there is a budget for {name}, which is not launched" for name in sorted(unused)]
    return gone


def load() -> Measured:
    """Read ``budgets.json``."""
    kept: Measured = json.loads(FILE.read_text()) if FILE.exists() else {}
    return kept


def save(allowed: Measured) -> None:
    """Write ``budgets.json``, a line for each kernel."""
    lines = []
    for case in sorted(allowed):
        kernels = [f"    {json.dumps(name)}: {json.dumps(one)}" for name, one in allowed[case].items()]
        lines.append(f"  {json.dumps(case)}: {{\n" + ",\n".join(kernels) + "\n  }")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
