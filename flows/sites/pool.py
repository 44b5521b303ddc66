"""Sites as the workers of a run: each site's agents are done there, aggregators here."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

from ...specs.engine import Engine
from ...specs.load import load_specs
from ..folder import RunFolder, replace_text
from ..left_out import read_left_out, read_plan
from ..plan import Plan
from ..pool import Pool, Processes, SiteAwayError, StageError
from ..privacy import write_rows
from .line import Line, as_json
from .mail import Letters
from .messages import RUN, Assignment, FinishRequest, Reply, StageRequest
from .tidy import Tidy


class SitePool:
    """A lane for each site and a last one for the coordinator."""

    writes = False

    def __init__(self, engine: Engine, line: Line | None = None, own: Pool | None = None) -> None:
        self._line, self._keep = line or Line(engine), engine.keep
        self.sites: tuple[str, ...] = (*engine.sites, "")
        self.store: str | None = None  # each keeps its agents to itself
        self.lanes = len(self.sites)
        self._own = own or Processes(1)
        self._locks = [threading.Lock() for _ in range(self.lanes)]
        self._folder: RunFolder | None = None

    def open(self, folder: Path) -> None:
        """Turn to the run at ``folder`` as it stands: write down for all what it is, and begin from what is on disk."""
        self._folder = RunFolder(folder)
        self._plan: Plan = read_plan(self._folder)
        self._run = self._plan.digest[:RUN]
        said = self._line.correspondence(self._run)
        replace_text(self._folder.mail, said.model_dump_json(indent=1) + "\n")
        self._letters: Letters = self._line.letters(self._run)
        self._tidy = Tidy(self._letters, self._plan, self._keep)
        spec = load_specs(str(self._folder.spec))[0].value
        assignment = Assignment(
            spec=spec.model_dump(mode="json", by_alias=True),
            plan=self._folder.plan.read_text(encoding="utf-8"),
            left_out=read_left_out(self._folder),
        )
        self._assignment = f"assignments/{uuid.uuid4().hex}"
        self._letters.write(self._assignment, as_json(assignment).encode())
        self._eras, self._begun = [uuid.uuid4().hex for _ in self.sites], set[int]()
        self._own.open(folder)

    def perform(self, lane: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do a stage at a site, or here; raise what :meth:`.line.Line.ask` raises."""
        self._tidy.before(request["round"])
        site = self.sites[lane]
        if not site:
            return self._own.perform(0, request)
        with self._locks[lane]:
            said = StageRequest(
                era=self._eras[lane], begins=lane not in self._begun, assignment=self._assignment, **request
            )
            self._begun.add(lane)
            stage = self._plan.start if said.stage < 0 else self._plan.stages[said.stage]
            title = f"{self._plan.name}, round {said.round}: {stage.name}"
            reply = self._ask(site, title, as_json(said))
        rows = reply.model_dump(exclude={"description", "privacy", "replaced", "error"})
        return {name: _lists(value) for name, value in rows.items()}

    def _ask(self, site: str, title: str, request: str) -> Reply:
        reply = self._line.ask(site, self._run, title, request)
        own = frozenset(place for place, agent in enumerate(self._plan.agents) if agent.site == site)
        if reply.strange(own, frozenset(range(self._plan.learners, len(self._plan.agents)))):
            raise StageError(f"the site {site} tells of agents that are not its own; nothing of it was taken")
        return reply

    def replace(self, lane: int) -> None:
        """Have a lane begin from what is on disk."""
        if not self.sites[lane]:
            self._own.replace(0)
            return
        self._eras[lane] = uuid.uuid4().hex
        self._begun.discard(lane)

    def away(self) -> frozenset[str]:
        """Return the sites that were waited for in vain and not heard of since."""
        return self._line.away()

    def committed(self, number: int, superseded: list[tuple[int, int]], keep_packets: bool) -> None:
        """Do nothing: each writer removes what is its own when the next round begins."""

    def finish(self) -> None:
        """Have each site put its models where they stay and tell what private steps have cost; empty the store.

        A site that is away keeps what it has until it works on the run again.
        """
        assert self._folder is not None
        rows: list[tuple[Any, ...]] = []
        request = as_json(FinishRequest(assignment=self._assignment))
        for site in self.sites:
            if site and site not in self.away():
                try:
                    rows += self._ask(site, f"{self._plan.name}: the end", request).privacy
                except SiteAwayError:
                    continue
        write_rows(self._folder, rows)
        self._tidy.everything()

    def close(self) -> None:
        """End the worker here; sites end what they are at, and wait for the next run."""
        self._line.close()
        self._own.close()


def _lists(value: Any) -> Any:
    return [list(row) for row in value] if isinstance(value, tuple) else value
