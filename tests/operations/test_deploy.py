"""Specs as deployments of a real server: registered once, run by schedule and by hand, going on from one another."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
from datetime import UTC, datetime
from pathlib import Path

import codistill
import pytest
import yaml
from codistill.specs.durations import written

from .conftest import until

ROOT = Path(codistill.__file__).parent
SPEC = """
name: {name}
seed: 1
rounds: 1
data: {{dataset: digits, partition: {{by: dirichlet, alpha: 5, min_size: 5}}, take: {{train: 120, test: 60}}}}
agents: [{{name: a, count: 2, model: linear}}]
measure: {{control: none}}
engine: {{workers: 1}}
recipe: fedavg
"""
NIGHTLY = SPEC.format(name="nightly") + (
    "continue: latest\nschedule: {interval: 10s}\ndeploy: {pool: here, tags: [b, a], timeout: 10m}\n"
)
DYING = []
"""The run whose worker and process one test kills, and when: another sees what became of it."""
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def pool(server):
    server.ask("work_pools/", name="here", type="process")
    return "here"


@pytest.fixture(scope="module")
def deployed(server, pool, codistill, write):
    """The deployments `nightly`, with a short schedule, and `asked`, without one; and what was said of them."""
    write("nightly.yaml", NIGHTLY)
    write("asked.yaml", SPEC.format(name="asked") + "deploy: {pool: here, concurrency: null}\n")
    dry = codistill("deploy", "nightly.yaml", "asked.yaml", "--dry-run")
    there = {one["name"] for one in server.ask("deployments/filter")}
    return dry, there & {"nightly", "asked"}, codistill("deploy", "nightly.yaml", "asked.yaml")


def test_a_dry_run_says_what_would_be_and_does_nothing(server, deployed, place):
    dry, before, done = deployed
    assert (dry.returncode, dry.stderr, before) == (0, "", set())
    assert dry.stdout.splitlines()[:5] == [
        "codistill/nightly: new", "  pool: here, queue default", "  schedule: every 10s, UTC", "  continue: latest",
        f"  runs: {place / 'runs'}",
    ]  # fmt: skip
    assert dry.stdout.splitlines()[-1] == f"nothing was changed at {server.url}"
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("codistill/nightly: new\n")


def test_what_is_registered(server, deployed, place):
    found = server.deployment("nightly")
    assert found["entrypoint"] == "codistill.flows.deployed.run_deployed" and "/" not in found["entrypoint"]
    assert found["parameters"]["runs"] == str(place / "runs")
    spec = found["parameters"]["spec"]
    assert spec["recipe"]["round"][0]["train"] and spec["seed"] == 1 and spec["continue"] == "latest"
    (schedule,) = found["schedules"]
    assert schedule["active"] and schedule["schedule"]["interval"] == 10.0
    assert sorted(found["tags"]) == ["a", "b"] and found["global_concurrency_limit"]["limit"] == 1
    form = found["parameter_openapi_schema"]
    assert form["properties"]["spec"]["$ref"] == "#/definitions/Spec"
    ours = json.loads((ROOT / "specs" / "spec.schema.json").read_text())
    assert json.loads(json.dumps(form["definitions"]["Spec"]).replace("#/definitions/", "#/$defs/")) == {
        key: ours[key] for key in form["definitions"]["Spec"]
    }


def test_a_second_deploy_changes_nothing(server, deployed, codistill):
    before = server.deployment("nightly")
    again = codistill("deploy", "nightly.yaml", "asked.yaml")
    assert again.returncode == 0
    assert [line for line in again.stdout.splitlines() if line.startswith("cod")] == [
        "codistill/nightly: unchanged", "codistill/asked: unchanged",
    ]  # fmt: skip
    after = server.deployment("nightly")
    moving = ("status", "last_polled")
    assert {k: v for k, v in after.items() if k not in moving} == {k: v for k, v in before.items() if k not in moving}


def test_what_differs_is_named(deployed, codistill, server):
    before = server.deployment("nightly")["updated"]
    said = ["--set", "seed=2", "--set", "schedule={cron: '0 3 * * *', timezone: Europe/Berlin, paused: true}"]
    done = codistill("deploy", "nightly.yaml", "--dry-run", *said, "--set", "deploy.tags=[c]")
    assert done.stdout.splitlines()[:5] == [
        "codistill/nightly: changed",
        "  spec.seed: 1 -> 2",
        "  spec.deploy.tags: ['b', 'a'] -> ['c']",
        "  tags: ['a', 'b'] -> ['c']",
        "  schedule: interval 10.0 from 2020-01-01T00:00:00+00:00, UTC -> cron 0 3 * * *, Europe/Berlin, paused",
    ]
    assert server.deployment("nightly")["updated"] == before


def test_refusals_that_a_server_must_be_asked_for(deployed, codistill, server, write):
    def refused(*said):
        done = codistill("deploy", *said)
        assert done.returncode == 2 and done.stdout == "", done
        return done.stderr.splitlines()

    pools = ", ".join(sorted(one["name"] for one in server.ask("work_pools/filter")))
    (line,) = refused("asked.yaml", "--set", "deploy.pool=her")
    assert line == (
        f"--set deploy.pool=her:1:13: deploy.pool: there is no work pool 'her' at {server.url} (there is {pools}); "
        "did you mean 'here'? Else make it with `prefect work-pool create her --type process`"
    )
    write("poolless.yaml", SPEC.format(name="poolless"))
    (line,) = refused("poolless.yaml")
    wanted = f"poolless.yaml:2:1: deploy.pool: missing; expected the name of a work pool (there is {pools})"
    assert line.startswith(wanted)
    assert line.endswith("or use `codistill serve`, which needs none")
    write("other.yaml", SPEC.format(name="other") + "deploy: {pool: here, name: asked}\n")
    (line,) = refused("other.yaml")
    assert line == (
        "other.yaml:10:22: deploy.name: codistill/asked is there already, of the spec 'asked'; give this one another "
        "`deploy.name`, or remove that with `prefect deployment delete codistill/asked`"
    )
    names = {one["name"] for one in server.ask("deployments/filter")}
    assert {"nightly", "asked"} <= names and not {"poolless", "other"} & names


def test_by_schedule_and_by_hand(deployed, server, begin, place):
    """Two runs by themselves, the second from the first; one makes up for those missed; and what people start."""
    nightly, asked = server.deployment("nightly"), server.deployment("asked")
    spec = asked["parameters"]["spec"]
    wrong = spec | {"rounds": 0, "sed": 1, "data": spec["data"] | {"partition": {"by": "dirichlet", "alpha": -1}}}
    right = server.start(asked, spec=spec | {"seed": 7, "data": spec["data"] | {"partition": {"by": "iid"}}})
    refused = server.start(asked, spec=wrong)
    until(lambda: len(missed_now(server, nightly)) >= 2, 60, lambda: server.runs_of(nightly))
    missed = {run["id"] for run in missed_now(server, nightly)}
    worker = begin("prefect", "worker", "start", "--pool", "here")
    try:
        until(
            lambda: len(server.runs_of(nightly, "COMPLETED")) >= 2 or worker.poll() is not None,
            240,
            lambda: [(run["name"], run["state"]) for run in server.runs_of(nightly)],
        )
        assert worker.poll() is None, worker.communicate()[0]
        folders = sorted((place / "runs").glob("nightly-*"), key=lambda folder: info(folder)["before"])
        first, second = (info(folder) for folder in folders[:2])
        assert "continues" not in first and first["status"] == second["status"] == "finished"
        assert second["continues"] == {
            "run": str(folders[0]), "digest": first["digest"], "state_digest": first["state_digest"], "rounds": 1,
        }  # fmt: skip
        done, again = server.runs_of(nightly, "COMPLETED")[:2]
        assert done["auto_scheduled"] and again["auto_scheduled"] and done["name"] == "nightly"
        aside = [run for run in server.runs_of(nightly, "CANCELLED") if run["id"] in missed]
        assert len(aside) >= len(missed) - 1
        assert {run["state_name"] for run in aside} == {"Skipped"}
        assert all(run["state"]["message"].startswith("missed, and made up for by the run") for run in aside)
        right, refused = (
            until(lambda one=one: final(server, one), 60, lambda one=one: one) for one in (right, refused)
        )
        dying = server.start(
            asked, spec=spec | {"name": "dying", "rounds": 100_000, "measure": spec["measure"] | {"every": 50_000}}
        )
        until(
            lambda: any((place / "runs").glob("dying-*/checkpoint.json")),
            90,
            lambda: server.ask(f"flow_runs/{dying['id']}", "GET")["state"],
        )
        DYING.append((dying, time.monotonic()))
    finally:
        worker.kill()
    assert right["state_name"] == "Completed", right
    (folder,) = (place / "runs").glob("asked-*")
    assert info(folder)["seed"] == 7 and "{by: iid}" in (folder / "spec.yaml").read_text()
    assert refused["state_name"] == "Refused" and refused["state"]["message"].splitlines() == [
        "data.partition.alpha: expected a number above 0 and of at most 1000000; got -1",
        "rounds: expected a whole number from 1 to 1000000; got 0",
        "sed: unknown key; expected one of agents, cite, continue, data, deploy, engine, measure, name, participation, "
        "pattern, recipe, rounds, schedule, seed, setting, track; did you mean 'seed'?",
    ]


def missed_now(server, deployment):

    now = datetime.now(UTC)
    waiting = server.runs_of(deployment, "SCHEDULED")
    return [run for run in waiting if datetime.fromisoformat(run["expected_start_time"]) < now]


def info(folder):
    return json.loads((folder / "run.json").read_text())


def final(server, run):
    now = server.ask(f"flow_runs/{run['id']}", "GET")
    return now if now["state_type"] in FINAL else None


def test_served_without_a_pool(server, codistill, begin, write, place):
    write("served.yaml", SPEC.format(name="served") + "schedule: {interval: 5s}\n")
    process = begin("codistill.flows.cli", "serve", "served.yaml", "--runs", place / "served")
    found = until(lambda: exists(server, "served") or process.poll() is not None, 60, lambda: "not registered")
    assert process.poll() is None, process.communicate()[0]
    assert found["work_pool_name"] is None and found["entrypoint"] == "codistill.flows.deployed.run_deployed"
    until(lambda: server.runs_of(found, "COMPLETED"), 90, lambda: server.runs_of(found))
    assert [info(folder)["status"] for folder in (place / "served").glob("served-*")] == ["finished"]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert "codistill/served: new" in said and "serving 1 deployment of" in said and "Traceback" not in said
    assert server.deployment("served")["paused"]
    again = codistill("serve", "served.yaml", "--runs", place / "served", "--dry-run")
    assert "codistill/served: changed\n  paused: true -> false\n" in again.stdout


def test_a_try_that_takes_too_long_is_ended_and_the_next_goes_on_from_its_last_round(server, begin, write, place):
    text = SPEC.format(name="slow").replace("rounds: 1", "rounds: 100000").replace("{control", "{every: 50000, control")
    limit = max(15, 3 * round(longest(server, "served")))  # enough for the first round, however slow the machine
    write("slow.yaml", text + f"deploy: {{timeout: {limit}s, retries: 1, retry_delay: 5s}}\n")
    process = begin("codistill.flows.cli", "serve", "slow.yaml", "--runs", place / "slow")
    found = until(lambda: exists(server, "slow") or process.poll() is not None, 60, lambda: "not registered")
    assert process.poll() is None, process.communicate()[0]
    run = server.start(found)

    def committed():
        (folder,) = (place / "slow").glob("slow-*")
        return json.loads((folder / "checkpoint.json").read_text())["round"]

    def tried():
        now = server.ask(f"flow_runs/{run['id']}", "GET")
        return committed() if now["run_count"] == 1 and now["state_name"] == "AwaitingRetry" else final(server, run)

    first = until(tried, 75 + limit, lambda: server.ask(f"flow_runs/{run['id']}", "GET")["state"])
    assert isinstance(first, int), first
    ended = until(lambda: final(server, run), 75 + limit, lambda: server.ask(f"flow_runs/{run['id']}", "GET")["state"])
    assert (ended["state_type"], ended["run_count"]) == ("FAILED", 2)
    assert f"longer than deploy.timeout, {written(limit)}" in ended["state"]["message"]
    assert committed() > first > 0


def longest(server, name):
    """Return the seconds of the longest run of a deployment that is done; 0 where there is none."""
    found = exists(server, name)
    return max((run["total_run_time"] for run in server.runs_of(found, "COMPLETED")), default=0) if found else 0


def exists(server, name):
    try:
        return server.deployment(name)
    except urllib.error.HTTPError:
        return None


def test_the_shipped_prefect_yaml(server, environment):
    server.ask("work_pools/", name="codistill", type="process")
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert len(said) == 3
    for one in said:
        found = server.deployment(one["name"])
        assert found["work_pool_name"] == "codistill" and len(found["schedules"]) == 1
        module, name = found["entrypoint"].rsplit(".", 1)
        assert (ROOT / Path(*module.split(".")[1:])).with_suffix(".py").is_file() and name.startswith("run_")
        assert found["pull_steps"][0]["prefect.deployments.steps.set_working_directory"] == {"directory": str(ROOT)}


def test_a_run_whose_process_died_does_not_stay_running(server):
    """Nobody is left to say so: worker and process were killed. It comes last, for the silence must last 75 seconds."""
    ((run, killed),) = DYING
    ended = until(lambda: final(server, run), 120 - (time.monotonic() - killed), lambda: "still running")
    assert ended["state_name"] == "Crashed" and ended["state"]["message"].startswith("no sign of life")
    assert server.ask("automations/count") == 1
