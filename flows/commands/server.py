"""``codistill server start|stop|status``: a local Prefect server that is kept."""

from __future__ import annotations

import os
from datetime import timedelta

from .. import kept
from ..report.text import bytes_text, plural


def start_command(host: str, port: int) -> None:
    """Start a server, or say which is kept already."""
    found = kept.kept()
    if found is None:
        found = kept.start(host, port)
        print(f"Prefect's server runs at {found.ui} (process {found.pid}); `codistill server stop` ends it")
    else:
        print(f"it runs already, at {found.ui} (process {found.pid})")
    print(f"export PREFECT_API_URL={found.url}")


def stop_command() -> None:
    """Stop the server that is kept; its database stays."""
    found = kept.kept()
    if found is None:
        print("no server is kept")
        return
    running = _running(found)
    kept.stop(found)
    print(f"the server at {found.ui} has ended")
    if running:
        print(f"{plural(running, 'run')} went on there; a run goes on by its own folder and is recorded no more")


def status_command() -> None:
    """Say what there is of a server; exit with status 1 where none is kept."""
    found = kept.kept()
    if found is None:
        print("no server is kept; start one with `codistill server start`")
        raise SystemExit(1)
    if not found.answers():
        print(f"process {found.pid} is there and {found.url} does not answer; see {kept.log()}")
        raise SystemExit(1)
    database = kept.home() / "prefect.db"
    size = bytes_text(database.stat().st_size) if database.exists() else "elsewhere"
    print(f"{found.ui} (process {found.pid}), for {timedelta(seconds=round(_age(found)))}")
    print(f"  Prefect:  {found.ask('admin/version')}")
    print(f"  database: {size}")
    print(f"  running:  {plural(_running(found), 'run')}")
    used = os.environ.get("PREFECT_API_URL") == found.url
    print("  used by:  this shell" if used else f"  to use it: export PREFECT_API_URL={found.url}")


def _age(server: kept.Kept) -> float:
    with open("/proc/uptime", encoding="utf-8") as file:
        return float(file.read().split()[0]) - server.born / os.sysconf("SC_CLK_TCK")


def _running(server: kept.Kept) -> int:
    count = server.ask("flow_runs/count", said={"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    return int(count or 0)
