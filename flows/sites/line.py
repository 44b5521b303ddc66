"""The coordinator's line to its sites: a flow run in a site's work pool for each request, a letter each way."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from ...specs.durations import written
from ...specs.engine import COORDINATOR, Engine
from ..pool import PoolClosedError, SiteAwayError, StageError, WorkerDiedError
from ..service import ServiceError, connected
from .home import home
from .keys import NAME, own_key
from .mail import Correspondence, Letters
from .messages import Reply
from .patience import patiently, where_nobody_asks_again

T = TypeVar("T")
FLOW = "codistill-site"
"""What the flow of all sites is called at the server; a site's deployment has the site's name."""
LOOK, LOOK_AT_MOST = 0.05, 0.5
"""Seconds between looks whether a request is done: at first, and for what takes long."""
LISTEN = 2.0
"""Seconds between looks whether a site is there."""
MEGABYTE = 10**6


class Line:
    """Asks sites. Several threads may, each of another site."""

    def __init__(self, engine: Engine) -> None:
        assert engine.store is not None
        self._engine, self._closed = engine, False
        self._key_file = home() / NAME
        own = own_key(home())
        self._keys = {COORDINATOR: own.public, **engine.sites}
        self._open = ExitStack()
        self._client, self._address = self._open.enter_context(connected())
        self._impatient = where_nobody_asks_again()
        self._deployments: dict[str, Any] = {}
        self._heard: dict[str, tuple[Any, float]] = {}
        self._away: dict[str, Any] = {}
        self._waiting = set[str]()
        self._lock = threading.Lock()

    def correspondence(self, run: str) -> Correspondence:
        """Return how letters of a run are written here and read."""
        return Correspondence(
            store=str(self._engine.store),
            run=run,
            writer=COORDINATOR,
            key_file=str(self._key_file),
            keys=self._keys,
            limit=round(self._engine.limit * MEGABYTE),
        )

    def letters(self, run: str) -> Letters:
        """Return the letters of a run."""
        return Letters(self.correspondence(run))

    def ask(self, site: str, run: str, title: str, request: str) -> Reply:
        """Have a site answer ``request``, JSON of :mod:`.messages`; ``title`` is what people see at the server.

        Raises ``SiteAwayError`` where it is not heard of for as long as the spec waits, ``WorkerDiedError`` where
        what it had begun is lost, ``StageError`` where it refuses or fails, ``LetterRefusedError`` where what comes
        back is not its letter.
        """
        letters, name = self.letters(run), f"requests/{uuid.uuid4().hex}"
        letters.write(name, request.encode())
        lost = self.have_answered(site, run, name, title)
        answer = None if lost else letters.read(site, f"replies/{name.rpartition('/')[2]}")
        if not self._engine.keep:
            letters.forget(name)
        if answer is None:
            raise WorkerDiedError(f"what the site {site} had begun is lost ({lost or 'there is no reply'})")
        try:
            reply = Reply.model_validate_json(answer.to_pybytes())
        except ValidationError as error:
            differ = error.error_count()
            raise StageError(f"the site {site} answers in another version ({differ} things differ)") from None
        if reply.replaced:
            raise WorkerDiedError(f"the worker of the site {site} was replaced in the middle of a round")
        if reply.error is not None:
            raise StageError(f"at the site {site}: {reply.error}")
        return reply

    def have_answered(self, site: str, run: str, name: str, title: str) -> str | None:
        """Have a site answer the letter ``name``; return what ended it before it had, or None where it has."""
        self._heard.pop(site, None)  # how long it is waited for begins now
        deployment = self._deployment(site)
        with self._lock:  # at once, they would wait for each other at the server's database, and longer
            asked = self._patiently(
                lambda: self._client.create_flow_run_from_deployment(
                    deployment,
                    parameters={"run": run, "request": name},
                    name=title,
                    tags=[FLOW],
                    idempotency_key=name,
                )
            )
        self._waiting.add(site)
        try:
            state = self._wait(site, asked.id)
        finally:
            self._waiting.discard(site)
        lost = state.is_crashed() or state.is_cancelled()
        return f"{state.name}: {state.message or 'no word'}" if lost else None

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns; this client asks again by our measure, and others in this process by theirs."""
        from httpx import HTTPError

        try:
            return self._impatient.copy().run(patiently, ask)
        except HTTPError as error:
            raise ServiceError(
                f"{self._address} went away ({error or type(error).__name__}); the same command goes on from the last "
                "finished round"
            ) from None

    def _wait(self, site: str, flow_run: Any) -> Any:
        """Return the final state of a flow run. Raises ``SiteAwayError``, and then it is never begun."""
        look, listened = LOOK, 0.0
        while True:
            state = self._patiently(lambda: self._client.read_flow_run(flow_run)).state
            if state is not None and state.is_final():
                return state
            if self._closed:
                self._cancel(flow_run)
                raise PoolClosedError("the run was ended")
            if time.monotonic() - listened > LISTEN:
                listened = time.monotonic()
                try:
                    self._listen(site)
                except SiteAwayError:
                    self._cancel(flow_run)
                    raise
            time.sleep(look)
            look = min(look * 1.2, LOOK_AT_MOST)

    def _listen(self, site: str) -> None:
        """Raise ``SiteAwayError`` where nothing was heard of a site for as long as the spec waits."""
        beat = self._beat(site)
        with self._lock:
            last, since = self._heard.setdefault(site, (beat, time.monotonic()))
            if beat != last:
                self._heard[site] = (beat, time.monotonic())
                return
            if time.monotonic() - since <= self._engine.wait:
                return
            self._away[site] = beat
        raise SiteAwayError(
            site, f"nothing was heard of the site {site} for {written(self._engine.wait)} (engine.wait)"
        )

    def _beat(self, site: str) -> Any:
        """Return when the site's worker was heard of last, by the server's clock; None: never."""
        with suppress(ServiceError):  # a server that is down for a moment says nothing of a site
            workers = self._patiently(lambda: self._client.read_workers_for_work_pool(site))
            return max((one.last_heartbeat_time for one in workers if one.last_heartbeat_time), default=None)
        return None

    def away(self) -> frozenset[str]:
        """Return the sites that were waited for in vain and not heard of since."""
        for site, beat in list(self._away.items()):
            if self._beat(site) not in (beat, None):
                del self._away[site]
        return frozenset(self._away)

    def _deployment(self, site: str) -> Any:
        from prefect.exceptions import ObjectNotFound

        while site not in self._deployments:
            with suppress(ObjectNotFound):
                found = self._patiently(partial(self._client.read_deployment_by_name, f"{FLOW}/{site}"))
                self._deployments[site] = found.id
                break
            self._listen(site)
            time.sleep(LOOK_AT_MOST)
        return self._deployments[site]

    def _cancel(self, flow_run: Any) -> None:
        from prefect.states import Cancelled

        with suppress(Exception):
            state: Any = Cancelled(message="not waited for any longer")
            self._patiently(lambda: self._client.set_flow_run_state(flow_run, state, force=True))

    def close(self) -> None:
        """Let go of the server; whoever waits for a site stops, and what it was asked is taken back."""
        self._closed = True
        until = time.monotonic() + 4 * LOOK_AT_MOST
        while self._waiting and time.monotonic() < until:
            time.sleep(LOOK)
        self._open.close()


def as_json(message: Any) -> str:
    """Return a message as JSON."""
    return json.dumps(message.model_dump(mode="json"))
