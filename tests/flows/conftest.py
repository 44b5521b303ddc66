"""Runs for the tests of this folder: whole specs in this process, or by the command in one of its own."""

import logging
import os
import signal
import subprocess
import sys

import boto3
import pytest
from codistill.flows.drive import run_plainly
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.load import load_specs
from codistill.tests.finishing import finish_without_report
from moto.server import ThreadedMotoServer

COMMAND = [sys.executable, "-m", "codistill.flows.cli"]


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """A function that writes a spec given as YAML and returns its path."""
    base, count = tmp_path_factory.mktemp("specs"), iter(range(10**6))

    def written(text):
        path = base / f"{next(count)}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.fixture(scope="session")
def launched(tmp_path_factory, write):
    """A function that compiles a spec given as YAML and writes its run's folder."""
    runs, count = tmp_path_factory.mktemp("runs"), iter(range(10**6))

    def ready(text, *overrides):
        (loaded,) = load_specs(str(write(text)), list(overrides))
        return launch(loaded.value, runs, runs / str(next(count)))

    return ready


@pytest.fixture(scope="session")
def conduct(launched):
    """A function that runs a spec given as YAML in this process, without a report, and returns its folder."""

    def run(text, *overrides, lanes=1):
        ready = launched(text, *overrides)
        session = open_session(ready.folder, Here(lanes))
        run_plainly(session, SilentProgress())
        finish_without_report(ready.folder, session.plan)
        return ready.folder

    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Prefect's home for these tests."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def environment(home):
    """The environment of commands: no server is configured, and the user's own home is left alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "COLUMNS": "100"}


@pytest.fixture(scope="session")
def codistill(environment, tmp_path_factory):
    """A function that does a ``codistill`` command and returns how it ended."""

    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def command(*arguments, folder=elsewhere, **more):
        said = [*COMMAND, *map(str, arguments)]
        return subprocess.run(said, cwd=folder, env=environment | more, capture_output=True, text=True, timeout=240)

    return command


@pytest.fixture
def begin(environment):
    """A function that begins a ``codistill`` command in a session of its own; what is left at the end is killed."""
    begun = []

    def started(*arguments, **more):
        said = [*COMMAND, *map(str, arguments)]
        process = subprocess.Popen(
            said,
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Whoever is started in the background of a script ignores interrupts, and so would this child.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        begun.append(process)
        return process

    yield started
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def bucket():
    """A bucket of an S3-compatible server in this process, spoken to over HTTP as any other."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    said = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="federation")
        yield "s3://federation"
    server.stop()
