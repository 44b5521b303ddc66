"""What a site does when it is asked: describe its data, do a stage, put a finished run away. It decides what leaves."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from ...specs.engine import COORDINATOR
from ...specs.schema import Spec
from ...tasks.data.registry import DATASETS
from ...tasks.knowledge import FORMS
from ...tasks.parameters import Parameters
from ..compile import agent_names
from ..faults import storage_fault
from ..finish import put_models
from ..folder import RunFolder, replace_text
from ..holdings import Holdings, hold, write_ids
from ..left_out import read_plan, write_left_out
from ..plan import Plan
from ..pool import Pool, Processes, StageError, WorkerDiedError
from ..privacy import write_privacy
from ..shared_store import SharedStoreError
from ..versions import Versions
from .home import private_folder, site_folder
from .keys import NAME, SigningKey
from .letter import LetterRefusedError
from .line import MEGABYTE
from .mail import Correspondence, Letters
from .messages import Assignment, DescribeRequest, Description, FinishRequest, Reply, StageRequest
from .tidy import Tidy

RUN_NAME, REQUEST_NAME = r"[0-9a-f]{16}|about-[0-9a-f]{16}", r"requests/[0-9a-f]{32}"
LOG = logging.getLogger("codistill.site")


class RefusalError(RuntimeError):
    """The site does not do what it is asked; the sentence is for the coordinator and tells nothing of the data."""


class Desk:
    """Answers one request after another. ``allowed``: the forms of knowledge that may leave; None: all."""

    def __init__(
        self,
        site: str,
        data: Path,
        store: str,
        coordinator: str,
        key: SigningKey,
        key_folder: Path,
        allowed: frozenset[str] | None = None,
        limit: float = 256,
        workers: Pool | None = None,
    ) -> None:
        self._site, self._data, self._allowed = site, data.resolve(), allowed
        self._said = Correspondence(
            store=store,
            run="",
            writer=site,
            key_file=str(key_folder / NAME),
            keys={COORDINATOR: coordinator},
            limit=round(limit * MEGABYTE),
        )
        self._secret = key.sign(b"codistill: digests of this site's data")
        self._processes = workers or Processes(1)
        self._era, self._round = "", -1
        self._answered = set[str]()
        self._doing: dict[str, tuple[type[Parameters], Callable[[str, Any], Reply]]] = {
            "describe": (DescribeRequest, self._describe),
            "stage": (StageRequest, self._stage),
            "finish": (FinishRequest, self._finish),
        }

    def answer(self, run: str, name: str) -> str | None:
        """Answer the request that the coordinator's letter ``name`` of ``run`` holds; return what went wrong, or None.

        Whatever happens is told in a letter as far as it tells nothing of the data; the rest is in the site's log.
        """
        if not (re.fullmatch(RUN_NAME, run) and re.fullmatch(REQUEST_NAME, name)):  # no paths that lead elsewhere
            return "it names no request"
        letters = Letters(self._said.model_copy(update={"run": run}))
        try:
            if name in self._answered:
                raise RefusalError("it was asked that already")
            self._answered.add(name)
            reply = self._replied(letters, run, name)
        except (LetterRefusedError, RefusalError, SharedStoreError) as error:
            reply = Reply(error=str(error))
        except WorkerDiedError as error:
            LOG.warning("%s", error)
            self._era = ""
            reply = Reply(replaced=True)
        except Exception as error:  # noqa: BLE001  # a message or a trace may hold values of the data: they stay here
            LOG.exception("a request failed")
            what = storage_fault(error) or type(error).__name__
            reply = Reply(error=f"it failed ({what}); the site's own log says more")
        letters.write(f"replies/{name.rpartition('/')[2]}", reply.model_dump_json().encode())
        return reply.error

    def _replied(self, letters: Letters, run: str, name: str) -> Reply:
        said = json.loads(_read(letters, name))
        kind = said.get("kind") if isinstance(said, dict) else None
        if kind not in self._doing:
            raise RefusalError(f"it is asked for {kind!r}, and knows {', '.join(self._doing)}")
        shape, do = self._doing[kind]
        try:
            request = shape.model_validate(said)
        except ValidationError as error:
            raise RefusalError(f"the request is of another version ({error.error_count()} things differ)") from None
        return do(run, request)

    def _own(self, said: dict[str, Any]) -> Spec:
        """Return the spec as this site sees it: its own agents alone, and its own folder of data."""
        try:
            spec = Spec.model_validate(said)
        except ValidationError as error:
            raise RefusalError(f"the spec is of another version ({error.error_count()} things differ)") from None
        agents = [group for group in spec.agents if group.site == self._site]
        if spec.engine.kind != "sites" or not agents:
            raise RefusalError(f"the spec has no agents at {self._site}")
        data = spec.data.model_copy(update={"root": str(self._data)})
        self._refuse_elsewhere(data.dataset)
        if data.public is not None and data.public.dataset is not None:
            self._refuse_elsewhere(data.public.dataset)
        return spec.model_copy(update={"agents": agents, "data": data, "engine": type(spec.engine)()})

    def _refuse_elsewhere(self, dataset: Any) -> None:
        """Refuse data that are not files in this site's folder: whoever writes a spec must not name other files."""
        source = DATASETS[dataset.name].function
        if source.find_files is None:
            raise RefusalError(f"data from {dataset.name} are none that a site reads, for they run code")
        for file in source.files(dataset.parameters, self._data) or []:
            if not file.resolve().is_relative_to(self._data):
                raise RefusalError("the spec names data outside the site's own folder")

    def _held(self, said: dict[str, Any]) -> tuple[Spec, Holdings]:
        spec = self._own(said)
        return spec, hold(spec, site_folder(self._site) / "prepared")

    def _describe(self, run: str, request: DescribeRequest) -> Reply:
        _, held = self._held(request.spec)
        return Reply(
            description=Description(
                labels=held.labels,
                input_shape=held.input_shape,
                train=tuple(len(ids) for ids in held.partition.train),
                test=tuple(len(ids) for ids in held.partition.test),
                digest=hmac.new(self._secret, held.digest.encode(), "sha256").hexdigest(),
                public=public_digest(held),
            )
        )

    def _stage(self, run: str, request: StageRequest) -> Reply:
        if request.begins:
            self._begin(run, request)
        elif request.era != self._era:
            return Reply(replaced=True)
        if request.round != self._round:
            self._turn_to(request.round)
        strange = [place for place in (*request.places, *request.measured) if place not in self._places]
        if strange:
            raise RefusalError(f"it is asked to work for agents that do not live at {self._site}")
        asked = {"round": request.round, "stage": request.stage}
        try:
            made = self._processes.perform(0, asked | {"places": request.places, "measured": request.measured})
        except StageError as error:
            LOG.error("%s", error)
            self._era = ""
            self._processes.replace(0)
            raise RefusalError(
                f"the stage failed ({str(error).partition(':')[0]}); the site's own log says more"
            ) from None
        rows = {name: tuple(tuple(row) for row in made[name]) for name in ("metrics", "ledger", "memory", "stores")}
        events = tuple(tuple(row) for row in made["events"])
        return Reply.model_validate(
            rows | {"events": events, "seconds": made["seconds"], "cpu_seconds": made["cpu_seconds"]}
        )

    def _begin(self, run: str, request: StageRequest) -> None:
        """Take up a run, or take it up again, from what this site's folder of it holds."""
        self._era = ""
        folder, plan = self._taken_up(run, request.assignment)
        self._processes.open(folder.path)
        self._folder, self._plan, self._versions = folder, plan, Versions(plan)
        self._places = frozenset(place for place, agent in enumerate(plan.agents) if agent.site == self._site)
        self._round, self._era = -1, request.era

    def _taken_up(self, run: str, name: str) -> tuple[RunFolder, Plan]:
        letters = Letters(self._said.model_copy(update={"run": run}))
        assignment = Assignment.model_validate_json(_read(letters, name))
        plan = Plan.parse(assignment.plan)
        told = sorted({exchange.form for exchange in plan.exchanges} - (self._allowed or frozenset(FORMS)))
        if told:
            raise RefusalError(
                f"it lets {', '.join(sorted(self._allowed or ()))} leave, and the plan asks for {told[0]}"
            )
        spec, held = self._held(assignment.spec)
        own = [agent for agent in plan.agents if agent.site == self._site]
        # Names become names of files: they are those of the spec, whose words are checked.
        if [agent.name for agent in own] != agent_names(spec) or set(plan.memories) != set(spec.recipe.memories):
            raise RefusalError("the plan is not that of the spec")
        if [agent.samples for agent in own] != [len(ids) for ids in held.partition.train]:
            raise RefusalError("its data are not those that the plan was made for; run the spec again")
        folder = private_folder(self._site, run)
        folder.make()
        engine = Spec.model_validate(assignment.spec).engine
        said = self._said.model_copy(update={"run": run, "keys": {**engine.sites, **self._said.keys}})
        replace_text(folder.mail, said.model_dump_json(indent=1) + "\n")
        replace_text(folder.plan, assignment.plan)
        write_left_out(folder, assignment.left_out)
        places = [place for place, agent in enumerate(plan.agents) if agent.site == self._site]
        write_ids(folder.ids, held.ids(dict(enumerate(places)), plan.learners))
        replace_text(folder.run, json.dumps({"digest": plan.digest, "prepared": str(held.folder.resolve())}) + "\n")
        self._tidy = Tidy(Letters(said), plan, engine.keep)
        return folder, read_plan(folder)

    def _turn_to(self, number: int) -> None:
        """Begin a round: what earlier ones left is committed, and what nothing goes back to is removed."""
        for place in self._places:
            needed = self._versions.before(number, place)
            if needed is not None:
                there = (int(one.name) for one in (self._folder.path / "state").iterdir())
                older = [(version, place) for version in there if version < needed]
                self._folder.forget(needed, older, keep_packets=False)
        self._tidy.before(number)
        self._folder.begin(number)
        self._round = number

    def _finish(self, run: str, request: FinishRequest) -> Reply:
        folder, plan = self._taken_up(run, request.assignment)
        put_models(folder, plan)
        write_privacy(folder, plan)
        spent: list[Any] = []
        if folder.table("privacy").exists():
            spent = [tuple(row.values()) for row in pq.read_table(folder.table("privacy")).to_pylist()]
        self._tidy.everything()
        return Reply(privacy=tuple(spent))

    def close(self) -> None:
        """End the worker."""
        self._processes.close()


def _read(letters: Letters, name: str) -> bytes:
    """Return what the coordinator wrote. Raises ``RefusalError`` where there is no such letter."""
    body = letters.read(COORDINATOR, name)
    if body is None:
        raise RefusalError(f"there is no letter {name} of the coordinator in {letters.said.store}")
    content: bytes = body.to_pybytes()
    return content


def public_digest(held: Holdings) -> str:
    """Return the SHA-256 of the public samples and their classes; "" where there are none."""
    if not len(held.public):
        return ""
    whole = hashlib.sha256()
    for array in (held.data.x_train, held.data.y_train):
        whole.update(np.ascontiguousarray(array[held.public]).tobytes())
    return whole.hexdigest()
