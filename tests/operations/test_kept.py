"""A kept local server, by its commands: started, found again, used, stopped; and what stands in its way."""

import json
import os
import socket
import subprocess
import sys

import pytest
from codistill.flows import kept

SPEC = """
name: small
rounds: 1
data: {dataset: digits, partition: {by: iid}, take: {train: 60, test: 30}}
agents: [{name: a, count: 2, model: linear}]
measure: {control: none}
engine: {workers: 1}
recipe: fedavg
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def command(home, tmp_path_factory):
    """A function that does a ``codistill`` command with a Prefect home of its own."""
    place = tmp_path_factory.mktemp("place")
    (place / "small.yaml").write_text(SPEC, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def done(*words, **more):
        line = [sys.executable, "-m", "codistill.flows.cli", *map(str, words)]
        return subprocess.run(line, cwd=place, env=environment | more, capture_output=True, text=True, timeout=300)

    return done


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def started(command):
    port = free_port()
    done = command("server", "start", "--port", port)
    yield done, f"http://127.0.0.1:{port}/api"
    command("server", "stop")


def test_a_server_is_started_and_found_again(command, started):
    done, url = started
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"export PREFECT_API_URL={url}"
    again = command("server", "start", "--port", free_port())
    assert again.returncode == 0 and "it runs already" in again.stdout and url in again.stdout


def test_it_has_the_settings_that_runs_need(home, started):
    pid = json.loads((home / "codistill-server.json").read_text())["pid"]
    with open(f"/proc/{pid}/environ", encoding="utf-8") as file:
        said = file.read().split("\0")
    assert "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE=200" in said


def test_runs_use_it_and_its_status_says_so(command, started):
    _, url = started
    done = command("run", "small.yaml", "-q", PREFECT_API_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    server = kept.Kept(0, 0, "127.0.0.1", int(url.split(":")[2].split("/")[0]))
    finished = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    assert server.ask("flow_runs/count", said=finished) == 1
    status = command("server", "status", PREFECT_API_URL=url)
    lines = dict(line.strip().split(":", 1) for line in status.stdout.splitlines()[1:])
    assert status.returncode == 0 and lines["running"].strip() == "0 runs" and lines["used by"].strip() == "this shell"
    assert lines["database"].strip().endswith("kB") or lines["database"].strip().endswith("MB")


def test_a_port_that_is_taken_is_said(command, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command("server", "start", "--port", port, PREFECT_HOME=str(tmp_path))
    assert done.returncode == 1
    said = f"port {port} of 127.0.0.1 cannot be had (Address already in use); name another with --port, or end "
    assert done.stderr == said + "what uses it\n"
    assert not (tmp_path / "codistill-server.json").exists()


def test_another_process_with_the_id_of_a_server_that_died_is_left_alone(command, tmp_path):
    other = subprocess.Popen(["sleep", "60"])
    try:
        record = {"pid": other.pid, "born": 1, "host": "127.0.0.1", "port": 4200}
        (tmp_path / "codistill-server.json").write_text(json.dumps(record))
        done = command("server", "stop", PREFECT_HOME=str(tmp_path))
        assert (done.returncode, done.stdout) == (0, "no server is kept\n")
        status = command("server", "status", PREFECT_HOME=str(tmp_path))
        assert status.returncode == 1 and "no server is kept; start one with" in status.stdout
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_dies_at_once_is_said_and_nothing_is_left(command, tmp_path):
    (tmp_path / "prefect.db").mkdir()  # no place for a database
    done = command("server", "start", "--port", free_port(), PREFECT_HOME=str(tmp_path))
    assert done.returncode == 1 and "the server ended with status" in done.stderr
    assert str(tmp_path / "codistill-server.log") in done.stderr
    assert not (tmp_path / "codistill-server.json").exists()


def test_when_it_is_stopped_nothing_of_it_is_left_but_its_database(command, started, home):
    server = kept.Kept(**json.loads((home / "codistill-server.json").read_text()))
    assert server.alive() and server.answers()
    assert command("server", "stop").stdout.endswith("has ended\n")
    assert not server.alive() and not server.answers() and not (home / "codistill-server.json").exists()
    assert (home / "prefect.db").exists()
    assert command("server", "stop").stdout == "no server is kept\n"
