"""The command line as a person meets it: exit status, one sentence a mistake, plain lines."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import codistill as package
import pytest
from codistill.flows import cli
from codistill.flows.commands.list import KINDS
from codistill.flows.lock import InUseError
from codistill.flows.pool import StageError, StorageError, WorkerDiedError
from codistill.flows.report.reading import NotARunError
from codistill.flows.server import ServerError
from codistill.specs.json_schema import json_schema

ROOT = Path(package.__file__).parent
SPEC = """
name: small
seed: 1
rounds: 2
data: {dataset: digits, partition: {by: iid}, take: {train: 100, test: 50}, public: {share: 0.2}}
agents: [{name: a, count: 4, model: linear}]
measure: {control: none}
recipe: fedavg
"""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def refused(done, status=2):
    """The sentences that a command was refused with."""
    assert done.returncode == status, (done.stdout, done.stderr)
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.stderr.splitlines()


# --- mistakes


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(codistill, tmp_path):
    text = SPEC.replace("rounds: 2", "rounds: 0").replace("model: linear", "model: linaer").replace("seed: 1", "sed: 1")
    (tmp_path / "wrong.yaml").write_text(text)
    said = refused(codistill("run", "wrong.yaml", folder=tmp_path))
    assert [line.split(": ")[0] for line in said] == ["wrong.yaml:3:1", "wrong.yaml:4:9", "wrong.yaml:6:37"]
    assert "seed" in said[0] and "linear" in said[2]
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"]


def test_so_is_what_only_the_whole_spec_shows(codistill, tmp_path):
    text = SPEC.replace("recipe: fedavg", "recipe: fedmd").replace(", public: {share: 0.2}", "")
    text += "participation: {minimum: 9}\npattern: {decentralized: {graph: {k-regular: {degree: 7}}}}\n"
    (tmp_path / "wrong.yaml").write_text(text)
    for command in (["run", "wrong.yaml"], ["run", "wrong.yaml", "--without-prefect"], ["plan", "wrong.yaml"]):
        begun = time.monotonic()
        said = refused(codistill(*command, folder=tmp_path))
        assert time.monotonic() - begun < 20  # no worker and no server was waited for
        assert len(said) >= 3 and all(line.startswith("wrong.yaml:") for line in said)
        assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"]


def test_a_wrong_variant_of_a_sweep_stops_all_of_it(codistill, tmp_path, write):
    said = refused(codistill("run", write(SPEC), "--set", "recipe=[fedavg, fedmad]", folder=tmp_path))
    assert len(said) == 1 and "fedmd" in said[0] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("rounds", "path=value"),
        ("rounds=none of them", "rounds"),
        ("recipe.absorb.temprature=2", "temprature"),
        ("agents[3].model=mlp", "agents"),
        ("=3", "expected a key"),
        ("agents[0].model={mlp: {hidden: [}", "--set"),
    ],
)
def test_wrong_overrides(codistill, write, tmp_path, said, sentence):
    (line,) = refused(codistill("run", write(SPEC), "--set", said, folder=tmp_path))
    assert line.startswith("--set ") and sentence in line and not list(tmp_path.iterdir())


def test_files_that_are_not_there(codistill, tmp_path):
    (said,) = refused(codistill("run", "fl/fedmad", folder=tmp_path))
    assert "fl/fedmd" in said
    assert "nothing.yaml" in " ".join(refused(codistill("plan", "nothing.yaml", folder=tmp_path)))
    for command in (["report", "nowhere"], ["compare", "nowhere"]):
        (said,) = refused(codistill(*command, folder=tmp_path))
        assert "nowhere" in said
    assert not list(tmp_path.iterdir())


def test_into_names_one_folder(codistill, write, tmp_path):
    (said,) = refused(codistill("run", write(SPEC), "--set", "seed=[1, 2]", "--into", "x", folder=tmp_path))
    assert said == "--into names one folder, and the sweep has 2 runs" and not list(tmp_path.iterdir())


def test_what_is_no_run_is_not_written_into(codistill, write, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    said = refused(
        codistill("run", write(SPEC), "--without-prefect", "--workers", 1, "--into", "mine", folder=tmp_path)
    )
    assert said == ["mine is there and is no run; name another folder with --into"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_data_set_that_is_not_there(codistill, write, tmp_path):
    (tmp_path / "empty").mkdir()
    said = refused(
        codistill(
            "run", write(SPEC), "--set", "data.dataset=mnist", folder=tmp_path, CODISTILL_DATA=str(tmp_path / "empty")
        )
    )
    assert said and "mnist" in said[0] and str(tmp_path / "empty") in " ".join(said)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (InUseError("x is being run"), 2, "x is being run"),
        (NotARunError("no run"), 2, "no run"),
        (StageError("ValueError: no"), 1, "a stage failed in a worker: ValueError: no"),
        (WorkerDiedError("worker 1 ended"), 1, "worker 1 ended, again and again; the same command goes on"),
        (ServerError("no answer"), 1, "no answer"),
        (PermissionError(13, "Permission denied", "/x"), 1, "cannot be written (Permission denied: /x); when it can"),
        (StorageError("No space left on device"), 1, "what is made cannot be written (No space left on device); when"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_can_go_wrong_is_said_in_a_sentence(monkeypatch, capsys, error, status, sentence):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    assert sentence in capsys.readouterr().err


def test_what_cannot_go_wrong_is_not_hidden(monkeypatch):
    def fail():
        raise AssertionError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(AssertionError, match="a bug"):
        cli.main()


# --- what is printed


@pytest.fixture(scope="module")
def sweep(codistill, write, tmp_path_factory):
    runs = tmp_path_factory.mktemp("sweep")
    said = ["--set", "recipe=[fedavg, fd]", "--set", "seed=[1, 2]", "--set", "measure.control=local"]
    return runs, codistill("run", write(SPEC), *said, "--without-prefect", "--workers", 2, "--runs", runs)


def test_a_sweep_runs_all_variants(sweep):
    runs, done = sweep
    assert (done.returncode, done.stderr) == (0, "")
    folders = sorted(runs.glob("small-*"))
    found = {(s["recipe"], s["seed"]) for s in (json.loads((f / "summary.json").read_text()) for f in folders)}
    assert found == {("fedavg", 1), ("fedavg", 2), ("fd", 1), ("fd", 2)} and len(folders) == 4
    controls = {json.loads((folder / "run.json").read_text())["control"] for folder in folders}
    assert len(controls) == 2 and done.stdout.count("the control") == 2  # one for each seed, and each done once
    assert len(list((runs / "controls").iterdir())) == 2


def test_without_a_terminal_lines_are_plain(sweep):
    _, done = sweep
    assert not CONTROL.search(done.stdout)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("round")] and all(len(line) < 200 for line in lines)
    assert sum(line.endswith("report.html") for line in lines) == 4


def test_a_finished_run_is_not_done_again(codistill, write, sweep):
    runs, _ = sweep
    before = {path: path.read_bytes() for path in runs.glob("small-*/*.parquet")}
    done = codistill(
        "run", write(SPEC), "--set", "measure.control=local", "--without-prefect", "--workers", 1, "--runs", runs
    )
    assert done.returncode == 0 and "round" not in done.stdout and "report.html" in done.stdout
    assert {path: path.read_bytes() for path in runs.glob("small-*/*.parquet")} == before


def test_comparing_the_runs_of_a_sweep(codistill, sweep, tmp_path):
    runs, _ = sweep
    folders = sorted(runs.glob("small-*"))
    done = codistill("compare", *folders)
    assert (done.returncode, done.stderr) == (0, "") and "fedavg" in done.stdout and not CONTROL.search(done.stdout)
    page = tmp_path / "page.html"
    rows = codistill("compare", *folders, "--json", "--html", page)
    assert len(json.loads(rows.stdout)) > 0 and page.stat().st_size > 10_000
    assert codistill("compare", *folders, "--markdown").stdout.startswith("|")


@pytest.mark.parametrize("what", KINDS)
def test_each_list_is_a_name_and_a_sentence_a_line(capsys, monkeypatch, what):
    monkeypatch.setattr("sys.argv", ["codistill", "list", what])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and lines
    names = [line.split()[0] for line in lines]
    assert len(set(names)) == len(names)
    assert all(re.match(rf"{re.escape(name)} +\S.*\S$", line) for name, line in zip(names, lines, strict=True)), lines
    expected = {"recipes": "fedmd", "specs": "fl/fedmd", "models": "mlp", "datasets": "digits", "graphs": "ring"}
    assert expected.get(what, names[0]) in names


def test_an_unknown_list(codistill):
    (said,) = refused(codistill("list", "recipe"))
    assert "'recipe'" in said and all(kind in said for kind in KINDS)


def test_the_schema_that_ships_is_the_one_that_is_printed(codistill, tmp_path):
    assert codistill("schema", "--check", ROOT / "specs" / "spec.schema.json").returncode == 0
    printed = codistill("schema").stdout
    assert json.loads(printed) == json_schema()
    other = tmp_path / "other.json"
    other.write_text(printed.replace("rounds", "turns"))
    assert "write it again" in refused(codistill("schema", "--check", other))[0]
    assert refused(codistill("schema", "--check", tmp_path / "none")) == [f"there is no file {tmp_path / 'none'}"]


def test_importing_the_command_line_imports_nothing_heavy():
    code = "import sys, codistill.flows.cli; print({'torch', 'prefect', 'pyarrow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([os.sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- Ctrl-C


def test_ctrl_c_leaves_a_run_that_can_be_gone_on_with(begin, codistill, write, tmp_path):
    path = write(SPEC.replace("rounds: 2", "rounds: 400"))
    process = begin("run", path, "--without-prefect", "--workers", 2, "--runs", tmp_path)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("*/rounds/0000005.json")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted; the same command goes on from the last finished round"
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
    (folder,) = tmp_path.glob("small-*")
    committed = json.loads((folder / "checkpoint.json").read_text())["round"]
    assert 5 <= committed < 400
    process = begin("run", path, "--without-prefect", "--workers", 2, "--runs", tmp_path)
    assert process.stdout.readline() == f"small: fedavg, distributed: 400 rounds, going on with round {committed + 1}\n"
    process.kill()


def test_ctrl_c_does_not_wait_for_a_stage(begin, write, tmp_path):
    text = SPEC.replace("recipe: fedavg", "recipe: {use: fedavg, with: {train.epochs: 10000, train.batch: 1}}")
    process = begin("run", write(text), "--without-prefect", "--workers", 2, "--runs", tmp_path)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("*/packets/0000001")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in said, said
