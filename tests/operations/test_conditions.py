"""Scheduled runs that begin only for a reason: new data, or a metric below a bound."""

import pytest
from codistill.flows.check.holdings import checked_holdings
from codistill.flows.check.operating import now, of_specs
from codistill.flows.conditions import why_not_now
from codistill.flows.drive import doing, run_plainly
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.times import in_words
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError

from .conftest import until

SPEC = """
name: watched
seed: 1
rounds: 1
data: {dataset: digits, partition: {by: iid}, take: {train: 120, test: 60}}
agents: [{name: a, count: 2, model: linear}]
measure: {control: none}
engine: {workers: 1}
recipe: fedavg
continue: latest
schedule: {interval: 5s, only_if: new_data}
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "watched.yaml"
    path.write_text(SPEC, encoding="utf-8")

    def loaded(*overrides):
        (one,) = load_specs(str(path), list(overrides))
        return one

    return loaded


@pytest.fixture
def why(load, tmp_path):
    """A function that says why a scheduled run of the spec would do nothing, as the data are."""

    def said(*overrides):
        loaded = load(*overrides)
        (holdings,) = checked_holdings([loaded], tmp_path / "runs")
        return why_not_now(loaded.value, holdings, tmp_path / "runs")

    return said


@pytest.fixture
def finished(load, tmp_path):
    ready = launch(load().value, tmp_path / "runs")
    with doing(ready.folder, ready, Here(), SilentProgress()) as session:
        run_plainly(session, SilentProgress())
    return ready.folder.path.name


BELOW = "schedule={interval: 5s, only_if: {metric: accuracy, below: %s}}"


@pytest.mark.parametrize("said", [(), (BELOW % 0.1,), ("schedule={interval: 5s}",)])
def test_the_first_run_begins_anyway(why, said):
    assert why(*said) is None


def test_new_data_are_a_reason_and_the_same_are_none(why, finished):
    assert why() == f"the data are what they were in {finished}"
    assert why("data.take.train=119") is None
    assert why("rounds=2") == f"the data are what they were in {finished}"
    assert why("schedule={interval: 5s}") is None
    assert why("name=another") is None


def test_a_metric_below_its_bound_is_a_reason(why, finished):
    assert why(BELOW % 1.01) is None
    said = why(BELOW % 0.0)
    assert said.startswith("accuracy was ") and said.endswith(f"in {finished}, not below 0")
    other = ("name=another", "schedule={interval: 5s, only_if: {metric: accuracy, below: 0, of: watched}}")
    assert why(*other) == said
    unmeasured = ("name=another", "schedule={interval: 5s, only_if: {metric: macro_f1, below: 0, of: watched}}")
    assert why(*unmeasured) == f"{finished} did not measure macro_f1 (it measured accuracy)"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "schedule.only_if={metric: acuracy, below: 1}",
            "does not measure 'acuracy'; expected one of accuracy; did you",
        ),
        ("schedule.only_if={metric: macro_f1, below: 1}", "add it to measure.metrics, or say `of:`"),
        ("continue=anew", None),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_registered(load, said, message):
    problems = of_specs([load(said)], now())
    assert [message in str(problem) for problem in problems] == ([True] if message else [])


def test_a_metric_needs_a_run_that_learns_on(load):
    (problem,) = of_specs([load("continue=anew", BELOW % 0.5)], now())
    assert "is the same run, and finished already; say `continue: latest`" in str(problem)


@pytest.mark.parametrize("said", ["schedule.only_if=newdata", "schedule.only_if={below: 1}"])
def test_what_is_no_condition_is_answered(load, said):
    with pytest.raises(SpecError, match=r"schedule\.only_if"):
        load(said)


def test_in_words(load):
    assert in_words(load().value.schedule) == "every 5s, UTC, only if there are new data"
    condition = "schedule.only_if={metric: mrr, below: 0.25, of: x}"
    assert in_words(load(condition).value.schedule).endswith(", only if mrr is below 0.25 in x")


def test_a_deployed_run_without_a_reason_is_skipped_and_one_by_hand_is_not(server, begin, write, place):
    write("watched.yaml", SPEC)
    process = begin("codistill.flows.cli", "serve", "watched.yaml", "--runs", place / "watched")

    def skipped():
        assert process.poll() is None, process.communicate()[0]
        try:
            found = server.deployment("watched")
        except OSError:
            return None
        return [
            run["state"]["message"]
            for run in server.runs_of(found, "CANCELLED")
            if run["state"]["message"].startswith("the data are")  # others were missed while the first one ran
        ]

    reasons = until(skipped, 120, lambda: server.runs_of(server.deployment("watched")))
    (folder,) = (place / "watched").glob("watched-*")
    assert set(reasons) == {f"the data are what they were in {folder.name}"}
    by_hand = server.start(server.deployment("watched"))
    until(lambda: len([*(place / "watched").glob("watched-*")]) == 2, 90, lambda: by_hand)
