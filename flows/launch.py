"""From a checked spec to a run folder that is ready to be done, or to be gone on with."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..specs.document import Loaded
from ..specs.printing import dump
from ..specs.problems import Problem, SpecError
from ..specs.schema import Recipe, Spec
from ..specs.tree import locate
from ..tasks.choice import Choice
from .compile import agent_names, compile_spec
from .folder import PARTS, RunFolder, replace_text, replacing
from .holdings import Holdings, hold, write_ids
from .lock import NAME as LOCK
from .lock import locked
from .origin import Origin, OriginError, finished_run, inherit, origin_of, refuse_unfitting
from .plan import Plan
from .report.reading import NotARunError, read_json

VERSIONS = ("torch", "numpy", "pyarrow", "prefect", "pydantic", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Ready:
    """A run that can be done: its folder, its plan, and the folder of its local control where it has one."""

    folder: RunFolder
    plan: Plan
    control: RunFolder | None = None
    track: tuple[Choice, ...] = ()
    """Who is told of the run."""

    @property
    def left(self) -> list[RunFolder]:
        """What is to be done, in order: the control unless another run has done it, and the run."""
        control = self.control is not None and self.control.info().get("status") != "finished"
        return [self.control, self.folder] if control and self.control else [self.folder]


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
    finds its interrupted run again. ``at`` names another folder. What an interrupted launch left half written, or
    somebody damaged since, is written again. Raises ``FileExistsError`` where the folder holds anything else, and
    ``OriginError`` where the run that the spec goes on from does not fit.
    """
    holdings, origin = hold(spec, cache_folder(runs)), origin_of(spec, runs)
    plan = _compiled(spec, holdings, origin)
    folder = RunFolder(at or runs / f"{spec.name}-{plan.digest[:8]}")
    control = None
    if spec.measure.control == "local" and plan.exchanges:
        alone = control_spec(spec)
        alone_origin = None if origin is None else _control_of(origin)
        alone_plan = _compiled(alone, holdings, alone_origin)
        control = RunFolder(runs / "controls" / f"local-{alone_plan.digest[:8]}")
        _make(control, alone, holdings, alone_plan, alone_origin)
    _make(folder, spec, holdings, plan, origin, os.path.relpath(control.path, folder.path) if control else None)
    return Ready(folder, plan, control, tuple(spec.track))


def launch_loaded(loaded: Loaded[Spec], runs: Path, at: Path | None = None) -> Ready:
    """Do what ``launch`` does, and raise ``SpecError`` at the spec's line where it cannot go on from another run."""
    try:
        return launch(loaded.value, runs, at)
    except OriginError as error:
        mark = locate(loaded.node, ("continue",), key=True)
        raise SpecError([Problem(mark, "continue", str(error))]) from None


def _compiled(spec: Spec, holdings: Holdings, origin: Origin | None) -> Plan:
    plan = compile_spec(spec, holdings, None if origin is None else origin.plan)
    if origin is not None:
        refuse_unfitting(origin, plan)
    return plan


def _control_of(origin: Origin) -> Origin:
    """Return what the control goes on from: the control of the run before, else, where it had none, that run."""
    said = origin.folder.info().get("control")
    if said is None:
        return origin
    return finished_run(Path(os.path.normpath(origin.folder.path / said)))


def control_spec(spec: Spec) -> Spec:
    """Return the same experiment with every agent alone: the recipe's training without what others gave.

    Where agents train only together with visiting models, each trains as often without them. What keeps a companion's
    steps private goes with the companion.
    """
    data = spec.model_dump(mode="json", by_alias=True)
    plain = [{"train": _alone(step)} for step in trained_alone(spec.recipe)]
    start = [step for step in data["recipe"]["start"] if "train" in step]
    data |= {
        "name": "local",
        "recipe": {"name": "local", "start": start, "round": plain},
        "pattern": "distributed",
        "continue": "anew",
        "schedule": None,
        "deploy": {},
        "track": [],
        "measure": data["measure"] | {"control": "none", "predict": "classifier"},
        "participation": {},
    }
    for group in data["agents"]:
        group |= {"availability": 1.0, "joins": 1, "leaves": None, "speed": None, "bandwidth": None, "latency": 0.0}
    return Spec.model_validate(data)


def trained_alone(recipe: Recipe) -> list[Choice]:
    """Return the steps of a round in which an agent learns from its own samples: by itself, or else with visitors."""
    trains = [step for step in recipe.round if step.name == "train"]
    return trains or [step for step in recipe.round if step.name == "absorb" and step.parameters.by == "mutual"]


def _alone(step: Choice) -> dict[str, Any]:
    if step.name == "absorb":
        said: dict[str, Any] = step.parameters.model_dump(mode="json", by_alias=True)
        return {key: said[key] for key in ("epochs", "batch", "optimizer", "when")}
    alone: dict[str, Any] = step.parameters.alone()
    return alone


def _make(
    folder: RunFolder,
    spec: Spec,
    holdings: Holdings,
    plan: Plan,
    origin: Origin | None,
    control: str | None = None,
) -> None:
    """Make sure that ``folder`` is the run of ``plan``, whole, and nobody else's."""
    known = _digest_in(folder)
    if known is not None and known != plan.digest:
        raise FileExistsError(f"{folder.path} holds another run (digest {known[:8]}, this spec's is {plan.digest[:8]})")
    if known is None:
        _refuse_foreign(folder)
    # Only what can move without being another run: where the prepared data are, and the control.
    facts = {"prepared": str(holdings.folder.resolve()), "control": control}
    if not _whole(folder, plan, facts):
        with locked(folder.path, wait=True):
            _write(folder, spec, holdings, plan, facts, origin)


def _digest_in(folder: RunFolder) -> str | None:
    """Return the digest of the run in ``folder`` as run.json or, where that is damaged, plan.json says it."""
    for path in (folder.run, folder.plan):
        found = _read(path).get("digest")
        if isinstance(found, str):
            return found
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except NotARunError:
        return {}


def _refuse_foreign(folder: RunFolder) -> None:
    """Raise ``FileExistsError`` unless the folder is empty or what a launch left that was interrupted."""
    if folder.checkpoint.exists():
        raise FileExistsError(
            f"{folder.path} holds rounds, and neither run.json nor plan.json says of which run; "
            "delete it, or name another folder with --into"
        )
    there = folder.path.is_dir() and any(entry.name != LOCK for entry in folder.path.iterdir())
    if (there or folder.path.is_file()) and not (folder.path / PARTS[0]).is_dir():
        raise FileExistsError(f"{folder.path} is there and is no run; name another folder with --into")


def _whole(folder: RunFolder, plan: Plan, facts: dict[str, Any]) -> bool:
    """Return whether a launch was finished here and nothing was damaged since."""
    info = _read(folder.run)
    if info.get("digest") != plan.digest or any(info.get(key) != value for key, value in facts.items()):
        return False
    try:
        with pa.memory_map(str(folder.ids)) as source:
            pa.ipc.open_file(source)
        pq.read_metadata(folder.table("partition"))
        return folder.spec.exists() and Plan.read(folder.plan) == plan
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write(
    folder: RunFolder, spec: Spec, holdings: Holdings, plan: Plan, facts: dict[str, Any], origin: Origin | None
) -> None:
    """Write what a run begins with, ``run.json`` last: with it the folder is a run."""
    before = {"status": "ready", "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | _read(folder.run)
    folder.make()
    begun = folder.committed() >= 0
    if origin is not None and not (begun and "continues" in before):
        before["continues"] = inherit(origin, folder, plan)
    resolved = spec.model_dump(mode="json", by_alias=True)
    resolved["continue"] = "anew" if origin is None else origin.pinned()
    replace_text(folder.spec, dump(resolved))
    plan.write(folder.plan)
    write_ids(folder.ids, holdings.ids())
    with replacing(folder.table("partition")) as path:
        pq.write_table(holdings.table(agent_names(spec)), path)
    info = {
        "digest": plan.digest,
        "cite": spec.recipe.cite,
        "seed": spec.seed,
        "before": plan.before,
        "data_digest": holdings.digest,
        "partition_digest": holdings.partition.digest(),
        "versions": {"codistill": __version__, "python": platform.python_version()} | {n: version(n) for n in VERSIONS},
        "command": sys.argv,
    }
    replace_text(folder.run, json.dumps(before | info | facts, indent=1) + "\n")
