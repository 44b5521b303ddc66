"""A Prefect server of these tests' own, on a free port and with a home of its own, and commands that know it."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from codistill.flows import server as prefect_server


class Server:
    """What the server at ``url`` says."""

    def __init__(self, url):
        self.url = url

    def ask(self, path, method="POST", **said):
        body = json.dumps(said).encode() if method == "POST" else None
        request = urllib.request.Request(
            f"{self.url}/{path}", body, {"Content-Type": "application/json"}, method=method
        )
        for waited in (0.5, 1, 2, 4, 8, 16, 0):
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or not waited:  # its database is locked; Prefect's own client asks again too
                    raise
            time.sleep(waited)
        raise AssertionError

    def deployment(self, name):
        return self.ask(f"deployments/name/codistill/{name}", "GET")

    def runs_of(self, deployment, *states):
        wanted = {"state": {"type": {"any_": list(states)}}} if states else {}
        return self.ask(
            "flow_runs/filter",
            deployments={"id": {"any_": [deployment["id"]]}},
            flow_runs=wanted,
            sort="EXPECTED_START_TIME_ASC",
            limit=200,
        )

    def start(self, deployment, **parameters):
        return self.ask(f"deployments/{deployment['id']}/create_flow_run", parameters=parameters)


def until(found, seconds, what):
    """Return what ``found`` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, what()
        time.sleep(0.3)
    return answer


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of commands: a Prefect home of its own, and no server yet."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def server(environment):
    """`prefect server start` with the settings of docs/operations.md."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment | prefect_server.SETTINGS | {"PREFECT_SERVER_UI_ENABLED": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"

    def healthy():
        assert process.poll() is None
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
        except OSError:
            return False
        return True

    until(healthy, 120, lambda: "the server did not come up")
    environment["PREFECT_API_URL"] = url
    yield Server(url)
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """The folder in which commands are given."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="session")
def codistill(environment, place):
    """A function that does a ``codistill`` command and returns how it ended; in this process, which knows Prefect."""
    # Prefect sets logging up at this import, and absl (which dp-accounting brings) then closes the stream it logs to
    # unless that is sys.stderr: inside the redirection below it would close the one that pytest captures with.
    import prefect.main  # noqa: F401
    from codistill.flows import cli
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def command(*arguments):
        out, err, status = io.StringIO(), io.StringIO(), 0
        with ExitStack() as given:
            given.enter_context(patch.dict(os.environ, environment))
            given.enter_context(patch.object(sys, "argv", ["codistill", *map(str, arguments)]))
            given.enter_context(temporary_settings({PREFECT_API_URL: environment.get("PREFECT_API_URL")}))
            given.enter_context(chdir(place))
            given.enter_context(redirect_stdout(out))
            given.enter_context(redirect_stderr(err))
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
        return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())

    return command


@pytest.fixture
def begin(environment, place):
    """A function that begins a command; it and what it started are killed when the test ends."""
    begun, before = [], processes_of(environment["PREFECT_HOME"])

    def started(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process

    yield started
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()
    for pid in (
        processes_of(environment["PREFECT_HOME"]) - before
    ):  # the runs that a worker began are no children of ours
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of(home):
    """The ids of the processes that have this home of Prefect."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PREFECT_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


@pytest.fixture(scope="session")
def write(place):
    """A function that writes a file into the folder of the commands and returns its name."""

    def written(name, text):
        (place / name).write_text(text, encoding="utf-8")
        return name

    return written
