"""After the last round: tables, models, summary, report."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from .folder import RunFolder, replace_text, replacing
from .inherit import left_by, state_digest
from .plan import Plan
from .privacy import write_privacy
from .tables import write_tables


def finish(folder: RunFolder, plan: Plan, control: RunFolder | None) -> None:
    """Write what a finished run holds. Doing it again gives the same files."""
    seconds = write_tables(folder, plan)
    if control is not None:
        _copy(control.table("metrics"), folder.table("control"))
    put_models(folder, plan)
    write_privacy(folder, plan)
    _summarise(folder)
    finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    folder.note(status="finished", finished=finished, seconds=seconds, state_digest=state_digest(folder, plan))
    from .report.write import write_report

    write_report(folder.path)


def put_models(folder: RunFolder, plan: Plan) -> None:
    """Write the models that the last rounds left, of those agents whose state is in the folder."""
    left = left_by(folder, plan)
    for agent in plan.agents:
        if agent.model is not None and agent.name in left:
            _copy(left[agent.name], folder.model(agent.name))


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _summarise(folder: RunFolder) -> None:
    from .report.summary import summary

    replace_text(folder.summary, json.dumps(summary(folder.path), indent=1) + "\n")
