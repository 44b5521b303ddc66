"""Waiting until Prefect has written down every task run of a flow run."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.client.orchestration import get_client

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def recorded(flow_run: UUID) -> tuple[int, int]:
    """Return how many task runs of ``flow_run`` the server knows, and how many of them in a final state."""
    runs = {"flow_runs": {"id": {"any_": [str(flow_run)]}}}
    with get_client(sync_client=True) as client:
        known = client._client.post("/task_runs/count", json=runs).json()
        ended = {"task_runs": {"state": {"type": {"any_": list(FINAL)}}}}
        return int(known), int(client._client.post("/task_runs/count", json=runs | ended).json())


def wait_for_records(flow_run: UUID, expected: int, seconds: float = 60.0) -> bool:
    """Return whether ``expected`` task runs are recorded as ended, after waiting for at most ``seconds``."""
    until = time.monotonic() + seconds
    while True:
        _, ended = recorded(flow_run)
        if ended >= expected or time.monotonic() > until:
            return ended >= expected
        time.sleep(0.1)
