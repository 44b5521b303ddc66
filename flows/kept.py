"""A local Prefect server that is kept: started once, found again by its record, stopped when it is no longer wanted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .server import SETTINGS, STARTUP_SECONDS, ServerError

SECONDS_TO_END = 15
"""How long a server that was told to end may take; then it is killed."""


@dataclass(frozen=True)
class Kept:
    """A server that was started, and may have died since."""

    pid: int
    born: int
    """Clock ticks after boot at which the process began: another process may be given the same id later."""
    host: str
    port: int

    @property
    def url(self) -> str:
        """The address for PREFECT_API_URL."""
        return f"http://{self.host}:{self.port}/api"

    @property
    def ui(self) -> str:
        """The address for a browser."""
        return f"http://{self.host}:{self.port}"

    def alive(self) -> bool:
        """Whether the process is there."""
        return _born(self.pid) == self.born

    def answers(self, seconds: float = 2) -> bool:
        """Whether the server says that it is well."""
        return self.ask("health", seconds) is True

    def ask(self, path: str, seconds: float = 5, said: dict[str, Any] | None = None) -> Any:
        """Return what the server says at ``path``, posting ``said`` where there is something; None if nothing."""
        body = None if said is None else json.dumps(said).encode()
        request = urllib.request.Request(f"{self.url}/{path}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None


def home() -> Path:
    """Prefect's folder, in which the server has its database and we the record of it."""
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()


def record() -> Path:
    """The file that says which server is kept."""
    return home() / "codistill-server.json"


def log() -> Path:
    """The file that has what the server says."""
    return home() / "codistill-server.log"


def kept() -> Kept | None:
    """Return the server that is kept; None where there is none or it died."""
    try:
        found = Kept(**json.loads(record().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive() else None


def start(host: str, port: int) -> Kept:
    """Start a server and return it when it answers. Raises ``ServerError``; then nothing is left running."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServerError(
                f"port {port} of {host} cannot be had ({reason}); name another with --port, or end what uses it"
            ) from None
    home().mkdir(parents=True, exist_ok=True)
    environment = SETTINGS | os.environ | {"PREFECT_UI_API_URL": f"http://{host}:{port}/api"}
    environment.pop("PREFECT_API_URL", None)
    with log().open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,  # it outlives the terminal
        )
    made = Kept(process.pid, _born(process.pid) or 0, host, port)
    draft = record().with_suffix(".draft")
    draft.write_text(json.dumps(asdict(made)), encoding="utf-8")
    draft.replace(record())
    until = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            record().unlink(missing_ok=True)
            last = log().read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise ServerError(f"the server ended with status {process.returncode}: {''.join(last)}; see {log()}")
        if made.answers():
            return made
        time.sleep(0.1)
    stop(made)
    raise ServerError(f"the server did not answer within {STARTUP_SECONDS} s; see {log()}")


def stop(server: Kept) -> None:
    """End the server with all its processes, and forget it."""
    for number, patience in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, 5)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        until = time.monotonic() + patience
        while server.alive() and time.monotonic() < until:
            with suppress(ChildProcessError):  # where we are its parent it stays until it is waited for
                os.waitpid(server.pid, os.WNOHANG)
            time.sleep(0.05)
        if not server.alive():
            break
    record().unlink(missing_ok=True)


def _born(pid: int) -> int | None:
    """Return when a process began; None where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
