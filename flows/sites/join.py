"""Joining: a site's work pool and deployment are there, what an earlier worker left undone is told, and work begins."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lock import locked
from ..service import ServiceError, connected
from .home import home, site_folder
from .keys import own_key
from .line import FLOW
from .patience import ask_again_ourselves, patiently

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SECONDS_BETWEEN_LOOKS = "0.3"
"""How often a site asks whether there is anything to do."""


def join(pool: str, data: Path, store: str, coordinator: str, allowed: frozenset[str] | None, limit: float) -> None:
    """Be the site ``pool`` until interrupted.

    Raises ``ServiceError``, ``SharedStoreError``, ``KeyFileError``; ``InUseError`` where it is joined from here twice.
    """
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", SECONDS_BETWEEN_LOOKS)
    ask_again_ourselves()
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"  # what is logged here stays here
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for quiet in ("httpx", "httpcore"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    with locked(site_folder(pool)):
        with connected() as (client, address):
            _register(client, pool)
            undone = _told_as_lost(client, pool)
        from .desk import Desk
        from .site_worker import SiteWorker

        desk = Desk(pool, data, store, coordinator, own_key(home()), home(), allowed, limit)
        print(f"{pool} has joined {address}; Ctrl-C ends it, and whoever waits for it waits as long as the spec says")
        if undone:
            print(f"{undone} that an earlier worker was at begin anew")
        try:
            asyncio.run(SiteWorker(pool, desk).start(printer=lambda *words: None))
        finally:
            desk.close()


def _register(client: SyncPrefectClient, pool: str) -> None:
    """See to it that the server has the site's pool, with its flow's deployment."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    from .site_worker import SiteWorker

    with suppress(ObjectAlreadyExists):
        template = SiteWorker.get_default_base_job_template()
        made = WorkPoolCreate(name=pool, type=SiteWorker.type, base_job_template=template)
        patiently(partial(client.create_work_pool, made))
    found = patiently(partial(client.read_work_pool, pool))
    if found.type != SiteWorker.type:
        raise ServiceError(
            f"the work pool {pool} is of type {found.type}, a site's is of type {SiteWorker.type}; take another name"
        )
    flow = patiently(partial(client.create_flow_from_name, FLOW))
    patiently(
        lambda: client.create_deployment(
            flow,
            pool,
            entrypoint="codistill.flows.sites.desk.Desk.answer",
            work_pool_name=pool,
            description=f"What the site {pool} is asked to do. Runs ask; there is nothing to start by hand.",
        )
    )


def _told_as_lost(client: SyncPrefectClient, pool: str) -> int:
    """Mark as crashed what an earlier worker of the site was at when it ended; return how many that were."""
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    from .site_worker import in_pool

    begun: list[Any] = patiently(
        lambda: client.read_flow_runs(**in_pool(pool, StateType.PENDING, StateType.RUNNING), limit=200)
    )
    for one in begun:
        state: Any = Crashed(message="the site's worker ended in the middle of it")
        patiently(partial(client.set_flow_run_state, one.id, state, force=True))
    return len(begun)
