"""The Prefect worker of a site: it asks its work pool for requests and has the desk answer them, one after another.

Nothing that a flow run says is run as code: its parameters name a letter, and the desk knows what to do with that.
"""

from __future__ import annotations

from typing import Any

import anyio
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import Abort
from prefect.states import Completed, Failed, Running
from prefect.utilities.engine import propose_state
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from ...specs.engine import SIGNS_OF_LIFE
from .desk import LOG, Desk
from .patience import patiently_async


def in_pool(pool: str, *states: StateType) -> dict[str, Any]:
    """Return what asks Prefect's client for the flow runs of a work pool that are in one of ``states``."""
    return {
        "work_pool_filter": WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        "flow_run_filter": FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*states]))),
    }


class Answered(BaseWorkerResult):
    """That a request was answered, well or not."""


class SiteWorker(BaseWorker[BaseJobConfiguration, BaseVariables, Answered]):
    """Answers requests in the process of its own desk, which stays, so that data and models stay resident."""

    type = "codistill-site"
    job_configuration = BaseJobConfiguration
    _description = "A site of codistill: it does stages for its own agents and keeps their data and models."

    def __init__(self, pool: str, desk: Desk) -> None:
        super().__init__(pool, name=pool, heartbeat_interval_seconds=SIGNS_OF_LIFE - 1, create_pool_if_not_found=False)
        self._desk = desk

    async def sync_with_backend(self) -> None:
        """Give a sign of life. Prefect's own way opens a channel for work that is sent, and none is sent here."""
        if self._work_pool is None:
            self._work_pool = await patiently_async(lambda: self.client.read_work_pool(self._work_pool_name))
        await patiently_async(
            lambda: self.client.send_worker_heartbeat(
                work_pool_name=self._work_pool_name,
                worker_name=self.name,
                heartbeat_interval_seconds=self.heartbeat_interval_seconds,
            )
        )
        self._has_successfully_synced = True

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Answer the request that has waited longest in the pool, if there is one; signs of life go on meanwhile.

        Prefect's own way asks the pool for what is due, prepares infrastructure, of which there is none here, and
        writes eight times to the server's database for each flow run. A few sites that do so lock SQLite for a minute:
        each time that a pool is asked, two tasks of the server may wait for each other that long. To look at what waits
        writes nothing.
        """
        if not self._has_successfully_synced:
            return []
        waiting = await patiently_async(
            lambda: self.client.read_flow_runs(
                **in_pool(self._work_pool_name, StateType.SCHEDULED),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=1,
            )
        )
        for flow_run in waiting:
            await self.run(flow_run, BaseJobConfiguration())
        return waiting

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> Answered:
        """Answer the request that the flow run's parameters name; its state says whether that went well."""
        if not await self._say(flow_run, Running()):
            return Answered(identifier=str(flow_run.id), status_code=0)
        said = flow_run.parameters
        try:
            wrong = await anyio.to_thread.run_sync(self._desk.answer, str(said.get("run")), str(said.get("request")))
        except Exception as error:  # noqa: BLE001  # Prefect would send the trace to the server, and it may hold data
            LOG.exception("a request could not be answered")
            wrong = f"it could not be answered ({type(error).__name__})"
        await self._say(flow_run, Completed() if wrong is None else Failed(message=wrong))
        return Answered(identifier=str(flow_run.id), status_code=0)

    async def _say(self, flow_run: FlowRun, state: State[Any]) -> bool:
        """Tell the server of a state; return whether it took that."""
        try:
            taken = await patiently_async(lambda: propose_state(self.client, state, flow_run_id=flow_run.id))
        except Abort:  # somebody ended it meanwhile
            LOG.info("%s was ended by somebody else", flow_run.name)
            return False
        return taken.type == state.type
