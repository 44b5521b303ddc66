"""Trackers are told every round, find their run again, and never end one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from codistill.flows.drive import doing, run_plainly
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from codistill.tasks.trackers import TRACKERS, TrackerError

SPEC = """
name: tracked
seed: 2
rounds: 3
data: {dataset: digits, partition: {by: iid}, take: {train: 120, test: 60}}
agents: [{name: a, count: 3, model: linear}]
measure: {metrics: [accuracy, cross_entropy]}
recipe: fedavg
"""


class Notes(SilentProgress):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def run(write, tmp_path):
    """A function that runs the spec, and its control, with the trackers said; and returns folder and notes."""

    def done(*overrides, until=None):
        (loaded,) = load_specs(str(write(SPEC)), list(overrides))
        ready, notes = launch(loaded.value, tmp_path / "runs"), Notes()
        for part in ready.left:
            with doing(part, ready, Here(), notes) as session:
                run_plainly(session, notes)
        return ready.folder, notes.said

    return done


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_what_the_tables_have(run):
    folder, notes = run("track=[tensorboard]")
    assert notes == []
    told = scalars(folder.path / "tensorboard")
    assert set(told) == {"accuracy", "accuracy_lowest", "cross_entropy", "cross_entropy_lowest", "bytes"}
    summary = json.loads(folder.summary.read_text())
    assert [step for step, _ in told["accuracy"]] == [0, 1, 2, 3]
    assert told["accuracy"][-1][1] == pytest.approx(summary["accuracy"], abs=1e-6)
    assert told["accuracy_lowest"][-1][1] == pytest.approx(summary["accuracy_worst"], abs=1e-6)
    assert sum(value for _, value in told["bytes"]) == summary["bytes"]


def test_runs_lie_side_by_side_in_a_folder_that_is_named(run, tmp_path):
    folder, _ = run(f"track=[{{tensorboard: {{into: '{tmp_path}/board'}}}}]")
    assert scalars(tmp_path / "board" / folder.path.name)["accuracy"][-1][0] == 3


def test_mlflow_has_parameters_metrics_and_the_report(run, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder, notes = run(f"track=[{{mlflow: {{uri: '{uri}', experiment: mine}}}}]")
    assert notes == []
    client = MlflowClient(uri)
    (one,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (one.info.status, one.info.run_name) == ("FINISHED", folder.path.name)
    assert (one.data.params["recipe"], one.data.params["seed"]) == ("fedavg", "2")
    history = client.get_metric_history(one.info.run_id, "accuracy")
    assert [point.step for point in history] == [0, 1, 2, 3]
    assert history[-1].value == pytest.approx(json.loads(folder.summary.read_text())["accuracy"])
    assert [found.path for found in client.list_artifacts(one.info.run_id)] == ["report.html"]


def test_a_run_that_goes_on_is_one_run_in_mlflow(write, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (loaded,) = load_specs(str(write(SPEC)), ["measure.control=none", f"track=[{{mlflow: {{uri: '{uri}'}}}}]"])
    ready = launch(loaded.value, tmp_path / "runs")

    class Interrupted(Notes):
        def round_done(self, number, *anything):
            if number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), doing(ready.folder, ready, Here(), Interrupted()) as session:
        run_plainly(session, Interrupted())
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("codistill").experiment_id
    assert [one.info.status for one in client.search_runs([experiment])] == ["FAILED"]
    with doing(ready.folder, ready, Here(), Notes()) as session:
        run_plainly(session, Notes())
    (one,) = client.search_runs([experiment])
    assert one.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(one.info.run_id, "accuracy")] == [0, 1, 2, 3]


def test_nothing_of_it_changes_a_number_or_the_digest(run):
    told, _ = run("track=[tensorboard]", "measure.control=none", "name=told")
    alone, _ = run("measure.control=none", "name=alone")
    assert told.info()["digest"] == alone.info()["digest"] and told.path != alone.path
    assert told.table("metrics").read_bytes() == alone.table("metrics").read_bytes()


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(run, monkeypatch):
    class Failing:
        def round(self, number, values):
            raise OSError("the disk is full\nmore")

        def end(self, report):
            raise AssertionError("it was left out")

    entry = TRACKERS["tensorboard"]
    monkeypatch.setitem(TRACKERS._entries, "tensorboard", replace(entry, function=lambda *_: Failing()))
    folder, notes = run("track=[tensorboard]", "measure.control=none")
    assert notes == ["tensorboard is no longer told (the disk is full); the run goes on"]
    assert folder.info()["status"] == "finished"


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(run, monkeypatch, name):
    monkeypatch.setattr("codistill.flows.extras.find_spec", lambda module: None)
    with pytest.raises(
        TrackerError, match=rf"track: {name} needs the package {name}; pip install 'codistill\[{name}\]'"
    ):
        run(f"track=[{name}]", "measure.control=none")


def test_an_address_that_is_no_store_is_said(run):
    with pytest.raises(TrackerError, match=r"track\.mlflow: nowhere://x cannot be used \(.*\); correct the address"):
        run("track=[{mlflow: {uri: 'nowhere://x'}}]", "measure.control=none")


def test_a_name_that_is_none_is_answered(write):
    with pytest.raises(
        SpecError, match=r"track\[0\]: expected one of tensorboard, mlflow; got 'tensorbord'.*did you mean"
    ):
        load_specs(str(write(SPEC)), ["track=[tensorbord]"])


def test_by_the_command_with_prefect(codistill, write, tmp_path):
    spec = write(SPEC + "track: [tensorboard]\n")
    done = codistill("run", spec, "--runs", tmp_path, "-q", "--set", "measure.control=none")
    assert (done.returncode, done.stderr) == (0, "")
    assert scalars(Path(done.stdout.strip()) / "tensorboard")["accuracy"][-1][0] == 3
