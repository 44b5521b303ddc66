"""The automation that ends runs whose process died: without it they stay Running, and hold their place, for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

NAME = "codistill: runs whose process died"
SILENCE = timedelta(seconds=75)
"""After the last sign of life, which comes every 30 s; a server that is busy may be told of one late."""

_ALIVE = "prefect.flow-run.heartbeat"
_ENDS = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "Paused"))


def ensure_watch(client: SyncPrefectClient, flow: str) -> bool:
    """Make the automation for runs of ``flow`` unless the server has it; return whether it was made."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    if client.read_automations_by_name(NAME):
        return False
    trigger = EventTrigger(
        posture=Posture.Proactive,
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification.model_validate(
            {"prefect.resource.role": "flow", "prefect.resource.name": flow}
        ),
        for_each={"prefect.resource.id"},
        after={_ALIVE},
        expect={_ALIVE, *_ENDS},
        threshold=1,
        within=SILENCE,
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED,
        name="Crashed",
        message="no sign of life: its process died. The next run or a retry goes on from the last round done",
    )
    client.create_automation(AutomationCore(name=NAME, trigger=trigger, actions=[action]))
    return True
