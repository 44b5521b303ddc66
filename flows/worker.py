"""A worker process: one thread, one JSON line in for each stage, one JSON line out.

Started as ``python -m codistill.flows.worker``. It ends when its standard input does, in the middle of a stage if
need be, so no worker outlives the process that started it or writes into a run that somebody else has taken up.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .faults import storage_fault
from .folder import RunFolder


def open_worker(folder: RunFolder) -> Any:
    """Return the :class:`~.stage.Worker` of the run in ``folder``; torch is imported here."""
    import torch

    torch.set_num_threads(1)
    from .stage import Worker
    from .world import open_holding

    return Worker(open_holding(folder))


def answer(worker: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do the stage that ``request`` names and return its rows with the seconds that it took."""
    started, cpu = time.perf_counter(), time.process_time()
    whom = request["places"], request["measured"]
    rows = worker.perform(request["round"], request["stage"], *whom, write=request.get("write", False))
    return {
        "metrics": rows.metrics,
        "ledger": rows.ledger,
        "memory": rows.memory,
        "stores": rows.stores,
        "events": rows.events,
        "embeddings": rows.embeddings,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


def failed(error: Exception) -> dict[str, str]:
    """Return the reply of a stage that raised ``error``."""
    fault = storage_fault(error)
    if fault is not None:
        return {"storage": fault}
    return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _requests() -> Iterator[str]:
    """Yield the lines of standard input as they come; end the process when there are no more."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield lines.get()


def main() -> None:
    """Answer requests until there are no more. One for another folder opens that run, and ``anew`` opens it again."""
    # Whatever a library prints must not be taken for an answer: answers get the real standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker, opened, requests = None, None, _requests()
    try:
        import torch  # noqa: F401  # imported while the parent still reads its data

        for line in requests:
            request = json.loads(line)
            if request["folder"] != opened or request["anew"]:
                opened = request["folder"]
                worker = open_worker(RunFolder(Path(opened)))
            answers.write(json.dumps(answer(worker, request)) + "\n")
            answers.flush()
    except Exception as error:  # noqa: BLE001  # the parent says it in its own words; the trace goes with it
        answers.write(json.dumps(failed(error)) + "\n")
        answers.flush()
        os._exit(1)  # the thread that listens holds standard input, so an orderly end would wait for it


if __name__ == "__main__":
    main()
