"""What a worker of a cluster runs: one request in, one reply out, both JSON; the run's folder stays open between them.

A worker that was replaced in the middle of a round lacks what its agents have in memory, and must not go on as if it
had. So each lane names its ``era``, and a worker that does not know the era answers only where it is told to begin it.
"""

from __future__ import annotations

import atexit
import json
import shutil
from pathlib import Path
from typing import Any

from ..pool import WorkerDiedError, rows_of

_OPEN: dict[str, tuple[Any, Any]] = {}
"""The worker of the era that this process is in, and its folder: one at most, for a new era makes the old one void."""


def _close() -> None:
    """Let go of the era before, and remove what was fetched for it."""
    from ..mirror import Mirror

    for _, folder in _OPEN.values():
        if isinstance(folder, Mirror):
            shutil.rmtree(folder.path, ignore_errors=True)
    _OPEN.clear()


atexit.register(_close)


def warm() -> None:
    """Import what a stage needs, while the run still reads its data."""
    import torch

    torch.set_num_threads(1)


def perform_text(text: str) -> str:
    """Do the stage that a request names and return the reply; what goes wrong is a reply too."""
    from ..folder import RunFolder
    from ..mirror import mirrored
    from ..worker import answer, failed, open_worker

    request = json.loads(text)
    key = f"{request['era']} {request['folder']}"
    try:
        if key not in _OPEN:
            if not request["begins"]:
                return json.dumps({"replaced": True})
            _close()
            store = request["store"]
            folder = RunFolder(Path(request["folder"])) if store is None else mirrored(store, request["run"])
            _OPEN[key] = (open_worker(folder), folder)
        return json.dumps(answer(_OPEN[key][0], request))
    except Exception as error:  # noqa: BLE001  # the parent says it in its own words; the trace goes with it
        return json.dumps(failed(error))


def read_reply(text: str, lane: int) -> dict[str, Any]:
    """Return a reply's rows; raise ``StageError`` or ``WorkerDiedError``."""
    reply: dict[str, Any] = json.loads(text)
    if "replaced" in reply:
        raise WorkerDiedError(f"worker {lane} was replaced in the middle of a round")
    return rows_of(reply)
