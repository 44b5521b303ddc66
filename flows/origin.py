"""From which run a run goes on: found, checked, and refused where it does not fit.

A run that goes on from another counts its rounds on from it, for ``when``, for the age of memories and for random
streams: going on is as if the run before had been longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..specs.operating import From
from ..specs.schema import Spec
from ..tasks.stores import StoreError
from .folder import RunFolder
from .inherit import state_digest, take_over
from .plan import Plan
from .report.reading import NotARunError

REMEDY = "say `continue: anew`, or name another run"


class OriginError(ValueError):
    """There is no going on from the run that the spec names; the sentence says why and what to do."""


@dataclass(frozen=True)
class Origin:
    """A finished run to go on from."""

    folder: RunFolder
    plan: Plan

    @property
    def rounds(self) -> int:
        """How many rounds were done when it ended, by itself and by those that it went on from."""
        return self.plan.before + self.plan.rounds

    def pinned(self) -> dict[str, str]:
        """Return it as a resolved spec says it."""
        return {"run": str(self.folder.path.resolve()), "digest": self.plan.digest}


def origin_of(spec: Spec, runs: Path) -> Origin | None:
    """Return the run that ``spec`` goes on from; None where it starts anew. Raises ``OriginError``."""
    if isinstance(spec.continue_, From):
        return finished_run(Path(spec.continue_.run).expanduser(), spec.continue_.digest)
    if spec.continue_ == "latest":
        path = latest(spec.name, runs)
        return None if path is None else finished_run(path)
    return None


def latest(name: str, runs: Path) -> Path | None:
    """Return the finished run of the spec called ``name`` that was begun last, or None."""
    ours = re.compile(rf"{re.escape(name)}-[0-9a-f]{{8}}")
    found: list[tuple[float, int, Path]] = []
    for path in runs.iterdir() if runs.is_dir() else ():
        if ours.fullmatch(path.name):
            info = _info(RunFolder(path))
            if info.get("status") == "finished":
                created = datetime.strptime(str(info["created"]), "%Y-%m-%dT%H:%M:%S%z")
                found.append((created.timestamp(), int(info.get("before", 0)), path))
    return max(found)[2] if found else None


def _info(folder: RunFolder) -> dict[str, Any]:
    try:
        return folder.info()
    except NotARunError:
        return {}


def finished_run(path: Path, digest: str | None = None) -> Origin:
    """Return the finished run at ``path`` (of that digest, or one that begins so). Raises ``OriginError``."""
    folder = RunFolder(path)
    info = _info(folder)
    if not info:
        raise OriginError(f"{path} is no run; {REMEDY}")
    if info.get("status") != "finished":
        raise OriginError(f"{path} is not finished; run it to its end first, or {REMEDY}")
    try:
        plan = Plan.read(folder.plan)
    except (OSError, ValueError, LookupError, TypeError):
        raise OriginError(
            f"the plan of {path} cannot be read, or is of another version of codistill; {REMEDY}"
        ) from None
    if digest is not None and not plan.digest.startswith(digest):
        raise OriginError(f"{path} is another run: its digest is {plan.digest[:8]} and not {digest[:8]}; {REMEDY}")
    return Origin(folder, plan)


def refuse_unfitting(origin: Origin, plan: Plan) -> None:
    """Raise ``OriginError`` where models or memories of the run before cannot be those of the agents of ``plan``."""
    before, where = {agent.name: agent for agent in origin.plan.agents}, origin.folder.path
    if origin.plan.input_shape != plan.input_shape:
        was, now = (" x ".join(map(str, one.input_shape)) for one in (origin.plan, plan))
        raise OriginError(f"{where} learned from samples of {was} values, and these have {now}; {REMEDY}")
    if origin.plan.classes != plan.classes:
        raise OriginError(f"{where} told {origin.plan.classes} classes apart, and here are {plan.classes}; {REMEDY}")
    common = [(before[agent.name], agent) for agent in plan.agents if agent.name in before]
    if not any(agent.model is not None for _, agent in common):
        names = ", ".join(agent.name for agent in origin.plan.agents[:3])
        raise OriginError(f"{where} has none of these agents (it has {names}, ...); {REMEDY}")
    for old, new in common:
        if old.architecture is not None and new.architecture is not None and old.architecture != new.architecture:
            raise OriginError(
                f"in {where} the model of {new.name} is {old.architecture}, and here it is {new.architecture}; "
                f"give it the same model, or {REMEDY}"
            )
    if origin.plan.companion and plan.companion and origin.plan.companion != plan.companion:
        raise OriginError(f"in {where} the recipe's companion is another model; give it the same, or {REMEDY}")
    for name, said in plan.memories.items():
        held = origin.plan.memories.get(name, said)
        if held != said:
            keys = ", ".join(sorted(key for key in {*held, *said} if held.get(key) != said.get(key)))
            raise OriginError(
                f"in {where} the memory {name!r} is declared with another {keys}; "
                f"declare it alike, give it another name, or {REMEDY}"
            )


def inherit(origin: Origin, folder: RunFolder, plan: Plan) -> dict[str, Any]:
    """Take over models and memories into ``folder`` and return what its ``run.json`` says of that.

    Raises ``OriginError`` where what the run before left is not what it finished with.
    """
    where, recorded = origin.folder.path, origin.folder.info().get("state_digest")
    if recorded is None:
        raise OriginError(f"{where} was finished without a digest of its models; run it again, which writes one")
    try:
        found = state_digest(origin.folder, origin.plan)
        if found != recorded:
            raise OriginError(
                f"the models or memories of {where} are not those that it finished with "
                f"(digest {recorded[:8]}, now {found[:8]}); restore them, or {REMEDY}"
            )
        take_over(origin.folder, origin.plan, folder, plan)
    except (FileNotFoundError, StoreError) as error:
        raise OriginError(f"of what {where} left something is missing ({error}); restore it, or {REMEDY}") from None
    return {"run": str(where.resolve()), "digest": origin.plan.digest, "state_digest": found, "rounds": origin.rounds}
