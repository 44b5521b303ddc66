"""What a worker of a cluster runs: one request in, one reply out, both JSON; the run's folder stays open between them.

A worker that was replaced in the middle of a round lacks what its agents have in memory, and must not go on as if it
had. So each lane names its ``era``, and a worker that does not know the era answers only where it is told to begin it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..pool import WorkerDiedError, rows_of

_OPEN: dict[str, Any] = {}
"""The worker of the era that this process is in: one at most, for a new era makes what was held void."""


def warm() -> None:
    """Import what a stage needs, while the run still reads its data."""
    import torch

    torch.set_num_threads(1)


def perform_text(text: str) -> str:
    """Do the stage that a request names and return the reply; what goes wrong is a reply too."""
    from ..worker import answer, failed, open_worker

    request = json.loads(text)
    key = f"{request['era']} {request['folder']}"
    try:
        if key not in _OPEN:
            if not request["begins"]:
                return json.dumps({"replaced": True})
            _OPEN.clear()
            _OPEN[key] = open_worker(Path(request["folder"]))
        return json.dumps(answer(_OPEN[key], request))
    except Exception as error:  # noqa: BLE001  # the parent says it in its own words; the trace goes with it
        return json.dumps(failed(error))


def read_reply(text: str, lane: int) -> dict[str, Any]:
    """Return a reply's rows; raise ``StageError`` or ``WorkerDiedError``."""
    reply: dict[str, Any] = json.loads(text)
    if "replaced" in reply:
        raise WorkerDiedError(f"worker {lane} was replaced in the middle of a round")
    return rows_of(reply)
