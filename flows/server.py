"""Prefect: the one place that decides its settings and brings up its embedded server.

Prefect's own way to an embedded server imports the whole server into the client (7 s of a core and 100 MB) and stops it
before it has written what it was told. Here the same server command runs as a process of its own, starts while
everything else is read, and is stopped when every task run is recorded.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # One event a transaction loses most records of a run that ends soon; see docs/orchestration.md.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""Defaults; what the environment says already wins."""

FOR_RUNS = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
"""What the processes of deployed runs are given; a heartbeat tells a run that works from one whose process died."""

STARTUP_SECONDS = 120
"""How long the server may take; the very first start also makes its database."""


def apply_settings() -> None:
    """Put the defaults into the environment. To be called before Prefect is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def configured() -> bool:
    """Whether a Prefect server or Cloud is configured, in the environment or in Prefect's profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    # Prefect itself is not asked: once imported, it no longer looks for the address of a server that starts later.
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = _toml(Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml")).expanduser())
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    said = [
        profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL"),
        _toml(Path("prefect.toml")).get("api", {}).get("url"),
        _toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {}).get("api", {}).get("url"),
    ]
    return any(said)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


class ServerError(RuntimeError):
    """Prefect's server did not come up."""


class EmbeddedServer:
    """Prefect's server as a child process that ends with this one, however this one ends."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        environment = os.environ | {
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_API_URL": self.url,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.server", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C is not for the server: what was interrupted must still be recorded
        )
        self._said: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()
        os.environ["PREFECT_API_URL"] = self.url

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said = [*self._said[-20:], line]

    def wait(self) -> None:
        """Return when the server answers; raise ``ServerError`` with its last words where it does not."""
        until = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                said = b"".join(self._said).decode(errors="replace")
                raise ServerError(f"Prefect's embedded server ended with status {self.process.returncode}:\n{said}")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise ServerError(f"Prefect's embedded server did not answer within {STARTUP_SECONDS} s")

    def stop(self) -> None:
        """Stop the server."""
        os.environ.pop("PREFECT_API_URL", None)
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(port: int) -> None:
    """Run the server until standard input ends: then whoever started it is gone."""
    import uvicorn

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
