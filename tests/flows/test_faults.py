"""A disk that takes no more: one sentence, nothing half written, and the same command goes on when there is room."""

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from codistill.flows.faults import storage_fault

SPEC = """
name: full
seed: 1
rounds: 3
data: {dataset: digits, partition: {by: iid}, take: {train: 120, test: 60}}
agents: [{name: a, count: 3, model: mlp}]
measure: {control: none}
engine: {workers: 2}
recipe: RECIPE
"""
SENTENCE = "what is made cannot be written ({}); when it can, the same command goes on from the last round\n"


def run(spec, runs, largest=None):
    """Do the command; no file may become larger than ``largest`` bytes."""

    def limit():
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    line = [
        sys.executable,
        "-m",
        "codistill.flows.cli",
        "run",
        str(spec),
        "--runs",
        str(runs),
        "--without-prefect",
        "-q",
    ]
    return subprocess.run(line, preexec_fn=limit, capture_output=True, text=True, timeout=300)


def told(folder):
    names = ("metrics", "ledger", "memory", "stores", "events")
    tables = [folder / f"{name}.parquet" for name in names]
    files = [*(table for table in tables if table.exists()), *sorted((folder / "models").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("recipe", ["fedavg", "fedcache"])
def test_a_disk_that_is_full_in_the_middle_of_a_stage(write, tmp_path, recipe):
    spec = write(SPEC.replace("RECIPE", recipe))
    whole = run(spec, tmp_path / "whole")
    full = run(spec, tmp_path / "full", 50_000)  # the data are smaller, a model is larger
    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr == SENTENCE.format("File too large")
    again = run(spec, tmp_path / "full")
    assert (again.returncode, again.stderr) == (0, "")
    assert told(Path(again.stdout.strip())) == told(Path(whole.stdout.strip()))


def test_a_disk_that_is_full_before_there_is_a_run(write, tmp_path):
    spec = write(SPEC.replace("RECIPE", "fedavg"))
    full = run(spec, tmp_path / "runs", 5_000)
    assert (full.returncode, full.stdout) == (1, "") and full.stderr.startswith("what is made cannot be written (")
    assert full.stderr.count("\n") == 1
    again = run(spec, tmp_path / "runs")
    assert (again.returncode, again.stderr) == (0, "")


def test_a_folder_of_runs_that_is_a_file(write, tmp_path):
    (tmp_path / "runs").write_text("")
    done = run(write(SPEC.replace("RECIPE", "fedavg")), tmp_path / "runs")
    where = tmp_path / "runs" / ".prepared"
    assert (done.returncode, done.stderr) == (1, SENTENCE.format(f"Not a directory: {where}"))


class ForeignError(Exception):
    pass


def chained():
    try:
        try:
            raise OSError(errno.EDQUOT, "over", "/x")
        except OSError as inner:
            raise ForeignError("later") from inner
    except ForeignError as error:
        return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (
            ForeignError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "No space left on device",
        ),
        (OSError("91968 requested and 10208 written"), "No space left on device"),
        (chained(), "Disk quota exceeded: /x"),
        (FileNotFoundError(errno.ENOENT, "x", "/y"), None),
        (ValueError("no"), None),
    ],
)
def test_what_is_a_fault_of_the_disk(error, fault):
    assert storage_fault(error) == fault
