"""A run that is killed at any moment and started again ends with the same bytes as one that was not."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

SPEC = """
name: killed
seed: 3
rounds: 25
data: {dataset: digits, partition: {by: dirichlet, alpha: 0.5, min_size: 10}}
agents: [{name: phone, count: 5, model: mlp}, {name: laptop, count: 3, model: linear, speed: 1.0}]
participation: {share: 0.6}
measure: {control: none}
recipe: fd
"""
SAME = [f"{name}.parquet" for name in ("metrics", "ledger", "memory", "clock", "partition")] + ["summary.json"]


@pytest.fixture(scope="module")
def spec(write):
    return write(SPEC)


@pytest.fixture(scope="module")
def undisturbed(spec, codistill, tmp_path_factory):
    return run(codistill, spec, tmp_path_factory.mktemp("undisturbed"), 2)


def run(codistill, spec, runs, workers):
    done = codistill("run", spec, "--without-prefect", "--runs", runs, "--workers", workers, "-q")
    assert (done.returncode, done.stderr) == (0, ""), done
    return Path(done.stdout.strip())


def same(one, other):
    assert one != other
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    names = sorted(file.name for file in (one / "models").iterdir())
    assert len(names) == 8 and names == sorted(file.name for file in (other / "models").iterdir())
    for name in names:
        assert (one / "models" / name).read_bytes() == (other / "models" / name).read_bytes(), name


def committed(folder):
    try:
        return json.loads((folder / "checkpoint.json").read_text())["round"]
    except FileNotFoundError:
        return -1


def children(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if int(lines["PPid"]) == pid and not lines["State"].strip().startswith("Z"):
            found.append(int(status.parent.name))
    return found


def workers_of(process):
    """The children of a command that have come as far as being workers."""
    found = []
    for pid in children(process.pid):
        try:
            if b"codistill.flows.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def until(condition, process=None, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(codistill, spec, undisturbed, tmp_path, workers):
    folder = run(codistill, spec, tmp_path, workers)
    assert json.loads((folder / "run.json").read_text())["workers"] == workers
    same(undisturbed, folder)


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(begin, spec, undisturbed, tmp_path):
    """And it is moved once, for the folder is all there is of it."""
    runs, draw = tmp_path / "here", random.Random(7)

    def after(condition, least, most):
        def moment(process):
            until(lambda: condition(runs / undisturbed.name), process)
            time.sleep(draw.uniform(least, most))

        return moment

    moments = [
        after(lambda folder: True, 0.5, 1.5),  # while everything is read
        after(lambda folder: (folder / "packets").is_dir(), 0, 0.03),  # in the middle of the launch
        after(lambda folder: (folder / "packets" / "0000001").is_dir(), 0, 0.03),
        after(lambda folder: committed(folder) >= 8, 0, 0.1),
        after(lambda folder: committed(folder) >= 18, 0, 0.1),
        after(lambda folder: (folder / "metrics.parquet").exists(), 0, 0.01),  # in the middle of finishing
        after(lambda folder: "finished" in (folder / "run.json").read_text(), 0, 0.3),  # writing the report
    ]
    went_on = []
    for index, moment in enumerate(moments):
        process = begin("run", spec, "--without-prefect", "--runs", runs, "--workers", 2)
        moment(process)
        left = workers_of(process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        until(lambda left=left: not any(Path(f"/proc/{pid}").exists() for pid in left), seconds=8)
        went_on.append(committed(runs / undisturbed.name))
        if index == 3:
            runs = runs.rename(tmp_path / "there")
    assert went_on == sorted(went_on) and went_on[0] == -1 and went_on[-1] == 25 and len(set(went_on)) >= 4
    process = begin("run", spec, "--without-prefect", "--runs", runs, "--workers", 2)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in said
    folder = runs / undisturbed.name
    same(undisturbed, folder)
    assert (folder / "report.html").stat().st_size > 10_000
    assert not [path.name for path in folder.rglob(".*") if path.name != ".lock"]


def test_a_second_process_is_refused_and_a_killed_workers_part_is_done_again(
    begin, codistill, spec, undisturbed, tmp_path
):
    folder = tmp_path / undisturbed.name
    process = begin("run", spec, "--without-prefect", "--runs", tmp_path, "--workers", 2)
    until(lambda: committed(folder) >= 3, process)
    process.send_signal(signal.SIGSTOP)
    second = codistill("run", spec, "--without-prefect", "--runs", tmp_path, "--workers", 1)
    assert (second.returncode, second.stdout) == (2, "")
    said = f"{folder} is being run by another process ({process.pid})"
    assert second.stderr == f"{said}; wait until it is done, or end it: two never share a folder\n"
    workers = workers_of(process)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert f"(process {workers[0]}) ended with status -9" in said and said.count("is done again") == 1
    same(undisturbed, folder)


def test_into_a_folder_of_another_run_is_refused(codistill, spec, undisturbed, tmp_path):
    before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    said = ["--without-prefect", "--set", "seed=4", "--runs", tmp_path, "--into", undisturbed, "--workers", 1]
    done = codistill("run", spec, *said)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{undisturbed} holds another run (digest ") and done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()} == before
