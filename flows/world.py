"""Opening a run's folder as a worker sees it: the plan, the data resident, the ids of each learner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

from ..tasks.agent import World
from ..tasks.architecture import Architecture
from ..tasks.data.prepared import open_prepared
from ..tasks.kinds import DATA_KINDS
from ..tasks.models import architecture
from ..tasks.patterns import ModelChoice
from .folder import RunFolder
from .left_out import read_plan
from .mail import FolderMail, Mail
from .mirror import Mirror, StoreMail
from .plan import Plan


@dataclass(frozen=True)
class Holding:
    """What a worker needs to do any stage of a run."""

    folder: RunFolder
    plan: Plan
    world: World
    ids: list[tuple[torch.Tensor, torch.Tensor]]
    valid: list[torch.Tensor]
    """Ids of each learner's validation data; nothing where the data have no such part."""
    mail: Mail


def open_holding(folder: RunFolder) -> Holding:
    """Return the run at ``folder``, its data mapped into memory and shared with other processes."""
    plan = read_plan(folder)
    data = open_prepared(Path(folder.info()["prepared"]))
    with pa.memory_map(str(folder.ids)) as source:
        columns = pa.ipc.open_file(source).read_all().to_pydict()
    pairs = [(_ids(a), _ids(b)) for a, b in zip(columns["train"], columns["test"], strict=True)]
    valid = [_ids(ids) for ids in columns.get("valid", [])[:-1]]
    names = (agent.name for agent in plan.agents[: plan.learners])
    nothing = _ids([])
    holders = {
        name: (train, valid[place] if valid else nothing, test)
        for place, (name, (train, test)) in enumerate(zip(names, pairs[:-1], strict=True))
    }
    world = DATA_KINDS[plan.kind].function.world(
        data,
        holders,
        classes=plan.classes,
        public=pairs[-1][0],
        public_labelled=plan.public_labelled,
        architectures=_architectures(plan),
    )
    return Holding(folder, plan, world, pairs[:-1], valid, _mail(folder, plan))


def _mail(folder: RunFolder, plan: Plan) -> Mail:
    if isinstance(folder, Mirror):
        return StoreMail(folder)
    if not folder.mail.exists():
        return FolderMail(folder)
    from .sites.mail import Correspondence, SignedMail

    return SignedMail(Correspondence.model_validate_json(folder.mail.read_text(encoding="utf-8")), plan)


def _ids(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _architectures(plan: Plan) -> dict[str, Architecture]:
    said = [agent.model for agent in plan.agents if agent.model is not None]
    if plan.companion is not None:
        said.append(plan.companion)
    made: dict[str, Architecture] = {}
    for value in {str(value): value for value in said}.values():
        one = ModelChoice.model_validate(value)
        built = architecture(one.name, one.parameters, plan.input_shape, plan.classes)
        made[built.name] = built
    return made
