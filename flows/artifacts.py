"""What a run shows in Prefect: progress, the plan as a diagram, tables of rounds and agents, a picture, the report."""

from __future__ import annotations

import base64
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from .diagram import mermaid
from .launch import Ready
from .report.results import Results
from .session import Session

SECONDS_BETWEEN = 5.0
"""An update of the progress costs some 20 ms on either side; a short round must not pay that."""


class Artifacts:
    """The artifacts of one run; of the control, progress alone."""

    def __init__(self, session: Session, ready: Ready) -> None:
        self._plan = session.plan
        self._folder = session.folder
        self._control = session.folder is ready.control
        self._key = _key(f"{session.plan.name}-{session.plan.digest[:8]}")
        self._updated = time.monotonic()
        about = f"Rounds of {session.plan.name}"
        made: Any = create_progress_artifact(0.0, key=f"{self._key}-progress", description=about)
        self._progress: UUID = made
        if not self._control:
            create_markdown_artifact(
                f"# {session.plan.name}\n\n```mermaid\n{mermaid(session.plan)}\n```\n",
                key=f"{self._key}-plan",
                description="The stages of a round and what passes between them",
            )

    def progressed(self, number: int) -> None:
        """Say how far the run is, not more often than every few seconds."""
        last = number >= self._plan.rounds
        if last or time.monotonic() - self._updated > SECONDS_BETWEEN:
            self._updated = time.monotonic()
            update_progress_artifact(self._progress, 100.0 * number / max(self._plan.rounds, 1))

    def finished(self) -> None:
        """Show the rounds as a table and the accuracy as a picture."""
        if self._control:
            return
        results = Results.read(self._folder.path)
        sent = results.cumulative_bytes(range(self._plan.rounds + 1))
        table = [
            {"round": at.round, "accuracy": at.total, "mean": at.mean, "worst": at.worst}
            | {"bytes so far": sent.get(at.round, 0)}
            for at in results.accuracy_by_round()
        ]
        create_table_artifact(table, key=f"{self._key}-rounds", description="Accuracy and bytes by round")
        create_table_artifact(
            self._agents(results), key=f"{self._key}-agents", description="Each agent after the last round"
        )
        create_link_artifact(
            (self._folder.path / "report.html").resolve().as_uri(),
            link_text="The whole report",
            key=f"{self._key}-report",
            description="It lies in the run's folder, on the machine that the run was on",
        )
        from .report.drawing import png
        from .report.pictures import accuracy_by_round

        drawn = accuracy_by_round(results)
        assert drawn is not None  # a finished run is measured
        picture = base64.b64encode(png(drawn)).decode()
        create_markdown_artifact(
            f"![accuracy by round](data:image/png;base64,{picture})\n",
            key=f"{self._key}-accuracy",
            description="Accuracy by round",
        )

    def _agents(self, results: Results) -> list[dict[str, Any]]:
        """Return a row for each learner: what it reached, what it gained over learning alone, what it sent."""
        gained, sent = results.gain_by_agent(), results.bytes_sent_by_agent()
        return [
            {"agent": agent, self._plan.headline: round(value, 4)}
            | ({"gain over local": round(gained[agent], 4)} if agent in gained else {})
            | {"bytes sent": sent.get(agent, 0)}
            for agent, value in results.last_accuracy().items()
        ]


def _key(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")
