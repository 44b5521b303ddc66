"""Running what is due of deployments that need no work pool, from one process."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from .deployed import ENTRYPOINT
from .deployments import FLOW
from .server import FOR_RUNS

SECONDS_TO_END, TELLINGS = 20.0, 3
"""How long the runner may take to end when it is told to, and how often it is told; then the process ends as it is."""


class _Registered(RunnerDeployment):
    """A deployment that is registered already; Prefect's runner would register it anew, in part."""

    known: UUID

    async def aapply(self, *anything: Any, **more: Any) -> UUID:
        """Return the deployment's id."""
        return self.known


def serve(deployments: list[tuple[str, UUID]], limit: int | None) -> None:
    """Run what is due, each run a process of its own, at most ``limit`` at once, until an interrupt.

    The deployments are paused then, and what runs is ended.
    """
    for name, value in FOR_RUNS.items():
        os.environ.setdefault(name, value)
    runner = Runner(name="codistill", pause_on_shutdown=True, limit=limit)
    for name, known in deployments:
        runner.add_deployment(_Registered(name=name, flow_name=FLOW, entrypoint=ENTRYPOINT, known=known))
    asyncio.run(_until_interrupted(runner, [known for _, known in deployments]))


async def _until_interrupted(runner: Runner, known: list[UUID]) -> None:
    """Run the runner. An interrupt that comes while it does some things is lost on it, so it is told again."""
    asked, serving = asyncio.Event(), asyncio.ensure_future(runner.start())
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, asked.set)
    waiting = asyncio.ensure_future(asked.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not asked.is_set():
        await serving
        return
    async with get_client() as client:
        for one in known:
            await client.pause_deployment(one)
    for _ in range(TELLINGS):
        serving.cancel()
        await asyncio.wait({serving}, timeout=SECONDS_TO_END)
        if serving.done():
            return
    os._exit(1)
