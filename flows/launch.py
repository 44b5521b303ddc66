"""From a checked spec to a run folder that is ready to be done, or to be gone on with."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..specs.printing import dump
from ..specs.schema import Spec
from .compile import agent_names, compile_spec
from .folder import RunFolder, replace_text
from .holdings import Holdings, hold
from .plan import Plan

VERSIONS = ("torch", "numpy", "pyarrow", "prefect", "pydantic", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Ready:
    """A run that can be done: its folder, its plan, and the folder of its local control where it has one."""

    folder: RunFolder
    plan: Plan
    control: RunFolder | None = None


def cache_folder(runs: Path) -> Path:
    """Return where prepared data are kept: beside the runs, to be found again by the next."""
    return runs / ".prepared"


def workers_of(spec: Spec) -> int:
    """Return the number of worker processes: what the spec says, else one a core that this process may use."""
    said = spec.engine.workers or len(os.sched_getaffinity(0))
    return int(min(said, sum(group.count for group in spec.agents)))


def launch(spec: Spec, runs: Path, at: Path | None = None) -> Ready:
    """Read the data, compile the plan and write the run's folder (and its control's); do nothing twice.

    The folder is named after the spec and the digest of everything that can change a number, so the same spec
    finds its interrupted run again. ``at`` names another folder. Raises ``FileExistsError`` where ``at`` holds a run of
    another spec.
    """
    holdings = hold(spec, cache_folder(runs))
    plan = compile_spec(spec, holdings)
    folder = RunFolder(at or runs / f"{spec.name}-{plan.digest[:8]}")
    known = folder.info().get("digest")
    if known is not None and known != plan.digest:
        raise FileExistsError(f"{folder.path} holds another run (digest {known[:8]}, this spec's is {plan.digest[:8]})")
    if known is None:
        _write(folder, spec, holdings, plan)
    control = None
    if spec.measure.control == "local" and plan.exchanges:
        alone = control_spec(spec)
        alone_plan = compile_spec(alone, holdings)
        control = RunFolder(runs / "controls" / f"local-{alone_plan.digest[:8]}")
        if not control.info():
            _write(control, alone, holdings, alone_plan)
        folder.note(control=os.path.relpath(control.path, folder.path))
    return Ready(folder, plan, control)


def control_spec(spec: Spec) -> Spec:
    """Return the same experiment with every agent alone: the recipe's training without what others gave."""
    data = spec.model_dump(mode="json", by_alias=True)
    steps = [step["train"] for step in data["recipe"]["round"] if "train" in step]
    plain = [{"train": step | {"losses": [], "ce_weight": 1.0}} for step in steps]
    start = [step for step in data["recipe"]["start"] if "train" in step]
    data |= {
        "name": "local",
        "recipe": {"name": "local", "start": start, "round": plain},
        "pattern": "distributed",
        "measure": data["measure"] | {"control": "none", "predict": "classifier"},
        "participation": {},
    }
    for group in data["agents"]:
        group |= {"availability": 1.0, "joins": 1, "leaves": None, "speed": None, "bandwidth": None, "latency": 0.0}
    return Spec.model_validate(data)


def _write(folder: RunFolder, spec: Spec, holdings: Holdings, plan: Plan) -> None:
    folder.make()
    replace_text(folder.spec, dump(spec.model_dump(mode="json", by_alias=True)))
    plan.write(folder.plan)
    table = holdings.ids()
    with pa.OSFile(str(folder.ids), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(holdings.table(agent_names(spec)), folder.table("partition"))
    folder.note(
        digest=plan.digest,
        status="ready",
        cite=spec.recipe.cite,
        seed=spec.seed,
        prepared=str(holdings.folder.resolve()),
        data_digest=holdings.digest,
        partition_digest=holdings.partition.digest(),
        versions={"codistill": __version__, "python": platform.python_version()} | {n: version(n) for n in VERSIONS},
        command=sys.argv,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
