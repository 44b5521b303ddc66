"""Running what is due of deployments that need no work pool, from one process."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from uuid import UUID

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from .deployed import ENTRYPOINT
from .deployments import FLOW
from .server import FOR_RUNS


class _Registered(RunnerDeployment):
    """A deployment that is registered already; Prefect's runner would register it anew, in part."""

    known: UUID

    async def aapply(self, *anything: Any, **more: Any) -> UUID:
        """Return the deployment's id."""
        return self.known


def serve(deployments: list[tuple[str, UUID]], limit: int | None) -> None:
    """Run what is due, each run a process of its own, at most ``limit`` at once; pause the deployments at the end."""
    for name, value in FOR_RUNS.items():
        os.environ.setdefault(name, value)
    runner = Runner(name="codistill", pause_on_shutdown=True, limit=limit)
    for name, known in deployments:
        runner.add_deployment(_Registered(name=name, flow_name=FLOW, entrypoint=ENTRYPOINT, known=known))
    asyncio.run(runner.start())
