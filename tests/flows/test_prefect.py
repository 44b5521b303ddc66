"""What a run shows in Prefect. One dedicated server for all of it, with a home of its own."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from codistill.flows import server as prefect_server
from codistill.flows.plan import Plan
from PIL import Image

SPEC = """
name: shown
seed: 5
rounds: 4
data: {dataset: digits, partition: {by: iid}, take: {train: 120, test: 60}}
agents: [{name: a, count: 3, model: mlp}, {name: b, count: 3, model: linear}]
participation: {share: 0.7}
recipe: fd
"""
SAME = ("metrics", "ledger", "memory", "clock", "partition")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Server:
    def __init__(self, url, process):
        self.url, self.process = url, process

    def ask(self, path, **said):
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(said).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def flow_runs(self, name):
        return self.ask("flow_runs/filter", flow_runs={"name": {"any_": [name]}})

    def task_runs(self, flow_run):
        return self.ask("task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}}, limit=200)


@pytest.fixture(scope="module")
def server(environment, home):
    """`prefect server start`, with the services that an embedded one does without."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = prefect_server.SETTINGS | {"PREFECT_SERVER_UI_ENABLED": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url, until = f"http://127.0.0.1:{port}/api", time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
            time.sleep(0.2)
    yield Server(url, process)
    process.terminate()
    process.communicate(timeout=30)


def children(pid):
    """The command lines of a process's children, by their process ids."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if parent == pid:
            found[int(folder.name)] = tuple(words)
    return found


@pytest.fixture(scope="module")
def embedded(server, codistill, write, tmp_path_factory):
    """A run by the embedded server, on the same home, so that the dedicated one can tell what was recorded."""
    runs, user = tmp_path_factory.mktemp("embedded"), tmp_path_factory.mktemp("user")
    done = codistill("run", write(SPEC), "--runs", runs, "--workers", 2, HOME=str(user))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (folder,) = runs.glob("shown-*")
    return folder, done.stdout, user


def test_every_task_run_is_recorded_and_named(server, embedded):
    folder, _, _ = embedded
    (run,) = server.flow_runs(folder.name)
    assert run["state_type"] == "COMPLETED" and run["parameters"]["spec"].endswith(f"{folder.name}/spec.yaml")
    found = server.task_runs(run)
    assert {one["state_type"] for one in found} == {"COMPLETED"}
    plan = Plan.read(folder / "plan.json")
    control = Plan.read(folder / json.loads((folder / "run.json").read_text())["control"] / "plan.json")
    names = Counter(one["name"] for one in found)
    expected = Counter(
        f"round {number} - {stage.name} - cohort {cohort} of {lanes}"
        for part in (plan, control)
        for number in range(5)
        for stage in (part.stages if number else [part.start])
        for lanes in [1 if stage.tier >= 0 else 2]
        for cohort in range(1, lanes + 1)
    )
    assert names == expected and sum(names.values()) == plan.task_runs(2) + control.task_runs(2)


def test_the_artifacts_of_a_run(server, embedded):
    folder, _, _ = embedded
    key = folder.name
    found = {one["key"]: one for one in server.ask("artifacts/filter", limit=100) if one["key"].startswith(key)}
    assert set(found) == {f"{key}-{what}" for what in ("progress", "plan", "rounds", "agents", "accuracy", "report")}
    assert found[f"{key}-progress"]["type"] == "progress" and float(found[f"{key}-progress"]["data"]) == 100
    assert re.search(r"```mermaid\n.*\n```", found[f"{key}-plan"]["data"], re.DOTALL)
    rows = json.loads(found[f"{key}-rounds"]["data"])
    assert found[f"{key}-rounds"]["type"] == "table" and [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    summary = json.loads((folder / "summary.json").read_text())
    assert rows[-1]["accuracy"] == summary["accuracy"] and rows[-1]["bytes so far"] == summary["bytes"]
    agents = {row["agent"]: row for row in json.loads(found[f"{key}-agents"]["data"])}
    assert min(row["accuracy"] for row in agents.values()) == pytest.approx(summary["accuracy_worst"], abs=1e-4)
    gains = [row["gain over local"] for row in agents.values()]
    assert len(agents) == 6 and sum(gains) / 6 == pytest.approx(summary["gain_mean"], abs=1e-3)
    assert sum(row["bytes sent"] for row in agents.values()) <= summary["bytes"]
    assert (folder / "report.html").resolve().as_uri() in found[f"{key}-report"]["data"]
    picture = re.search(r"\]\(data:image/png;base64,([^)]*)\)", found[f"{key}-accuracy"]["data"])
    corner = Image.open(io.BytesIO(base64.b64decode(picture[1]))).convert("RGBA").getpixel((0, 0))
    assert corner[3] == 255 and min(corner[:3]) > 200  # it is read on a dark page too


def test_the_users_own_prefect_is_left_alone(embedded, home):
    _, _, user = embedded
    assert not (user / ".prefect").exists() and (home / "prefect.db").exists()


def test_prefect_changes_no_number_and_prints_nothing_of_its_own(embedded, conduct):
    folder, said, _ = embedded
    plain = conduct(SPEC)
    for name in SAME:
        assert (folder / f"{name}.parquet").read_bytes() == plain.table(name).read_bytes(), name
    lines = said.splitlines()
    assert lines[0] == "shown: the control, each agent alone: 4 rounds"
    assert [line.split()[0] for line in lines] == ["shown:"] + ["round"] * 5 + ["shown:"] + ["round"] * 5 + [
        "accuracy", lines[-2].split()[0], str(folder / "report.html"),
    ]  # fmt: skip


def test_beyond_a_limit_rounds_are_merged_into_segments(server, environment, write, tmp_path):
    """And with a server configured no other one is started."""
    code = "import codistill.flows.plan as p; p.MOST_TASK_RUNS = 10; from codistill.flows.cli import main; main()"
    said = ["run", str(write(SPEC)), "--runs", str(tmp_path), "--workers", "2", "--set", "measure.control=none"]
    command = subprocess.Popen(
        [sys.executable, "-c", code, *said, "--set", "rounds=6", "--set", "name=merged"],
        env=environment | {"PREFECT_API_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = set()
    while command.poll() is None:
        started |= set(children(command.pid).values())
        time.sleep(0.05)
    assert command.returncode == 0, command.stdout.read()
    assert {word for words in started for word in words if word.startswith("codistill.")} == {"codistill.flows.worker"}
    (folder,) = tmp_path.glob("merged*")
    assert Plan.read(folder / "plan.json").task_runs(2) == 32  # 2 to start, then six rounds of 2 + 1 + 2
    (run,) = server.flow_runs(folder.name)
    until = time.monotonic() + 30
    while len(found := [one for one in server.task_runs(run) if one["state_type"] in FINAL]) < 2:
        assert time.monotonic() < until, found
        time.sleep(0.2)
    assert sorted(one["name"] for one in found) == ["rounds 0 to 3", "rounds 4 to 6"]
    assert json.loads((folder / "checkpoint.json").read_text())["round"] == 6


def test_a_killed_worker_an_interrupt_and_the_rest(server, begin, write, conduct, tmp_path):
    text = SPEC.replace("rounds: 4", "rounds: 25").replace("recipe: fd", "recipe: fd\nmeasure: {control: none}")
    path = write(text)

    def started():
        process = begin("run", path, "--runs", tmp_path, "--workers", 2, PREFECT_API_URL=server.url)
        until = time.monotonic() + 60
        return process, until

    def wait_for(least, process, until):
        while (committed := [json.loads(file.read_text())["round"] for file in tmp_path.glob("*/checkpoint.json")]) < [
            least
        ]:
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.01)
        return committed

    process, until = started()
    wait_for(3, process, until)
    worker = next(pid for pid, words in children(process.pid).items() if "codistill.flows.worker" in words)
    os.kill(worker, signal.SIGKILL)
    wait_for(8, process, until)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.rstrip().endswith("interrupted; the same command goes on from the last finished round"), said
    assert f"(process {worker}) ended with status -9; its part of round" in said and "KeyboardInterrupt" not in said
    process, _ = started()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and ", going on with round " in said
    (folder,) = tmp_path.glob("shown-*")
    plain = conduct(text)
    for name in SAME:
        assert (folder / f"{name}.parquet").read_bytes() == plain.table(name).read_bytes(), name
    states = Counter(run["state_type"] for run in server.flow_runs(folder.name))
    assert states["COMPLETED"] == 1 and sum(states.values()) == 2


DEPLOY = """
from datetime import timedelta
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from codistill.flows.flow import run_spec

schedules = {"interval": IntervalSchedule(interval=timedelta(minutes=10)), "cron": CronSchedule(cron="0 3 * * *")}
with get_client(sync_client=True) as client:
    flow = client.create_flow(run_spec)
    for name, schedule in schedules.items():
        made = DeploymentScheduleCreate(schedule=schedule, active=True)
        print(client.create_deployment(flow, name, schedules=[made], entrypoint="codistill.flows.flow.run_spec",
                                       parameters={"spec": "fl/fedmd", "runs": "/nowhere"}))
"""


def test_schedules_make_runs(server, environment):
    """With what pip would pick beside Prefect's own ranges, none would ever be made: hence the pins."""
    done = subprocess.run(
        [sys.executable, "-c", DEPLOY],
        env=environment | {"PREFECT_API_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    deployments = done.stdout.split()
    assert len(deployments) == 2
    wanted = {"deployments": {"id": {"any_": deployments}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    until = time.monotonic() + 60
    while True:
        found = server.ask("flow_runs/filter", **wanted, limit=200)
        if {run["deployment_id"] for run in found} == set(deployments):
            break
        assert time.monotonic() < until, found
        time.sleep(0.5)
    assert all(run["auto_scheduled"] and run["parameters"]["spec"] == "fl/fedmd" for run in found)
    assert Counter(run["deployment_id"] for run in found)[deployments[0]] >= 3


# --- the settings, without a server


@pytest.fixture
def bare(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path


PROFILES = 'active = "one"\n[profiles.one]\n{}\n[profiles.two]\nPREFECT_API_URL = "http://two/api"\n'


def test_nothing_is_configured_until_somebody_does(bare, monkeypatch):
    assert not prefect_server.configured()
    profiles = bare / "home" / "profiles.toml"
    profiles.write_text(PROFILES.format(""))
    assert not prefect_server.configured()
    monkeypatch.setenv("PREFECT_PROFILE", "two")
    assert prefect_server.configured()
    monkeypatch.delenv("PREFECT_PROFILE")
    profiles.write_text(PROFILES.format('PREFECT_API_URL = "http://one/api"'))
    assert prefect_server.configured()
    profiles.write_text("not [ TOML")
    assert not prefect_server.configured()
    monkeypatch.setenv("PREFECT_API_URL", "http://here/api")
    assert prefect_server.configured()


@pytest.mark.parametrize(
    ("name", "text"),
    [("prefect.toml", '[api]\nurl = "http://x/api"'), ("pyproject.toml", '[tool.prefect.api]\nurl = "http://x/api"')],
)
def test_projects_may_configure_a_server_too(bare, name, text):
    (bare / name).write_text(text)
    assert prefect_server.configured()


def test_what_the_environment_says_wins(bare, monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    for name in prefect_server.SETTINGS:
        monkeypatch.setenv(name, os.environ.get(name, ""))
        if name != "PREFECT_LOGGING_LEVEL":
            monkeypatch.delenv(name)
    prefect_server.apply_settings()
    assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_server_that_does_not_come_up_says_why(bare, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    server = prefect_server.EmbeddedServer()
    with pytest.raises(prefect_server.ServerError, match="ended with status 1"):
        server.wait()
    server.stop()
    assert "PREFECT_API_URL" not in os.environ
