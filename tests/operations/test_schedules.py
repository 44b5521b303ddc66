"""Schedules: said in a spec, due when Prefect says so, missed, and never due again."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from codistill.flows import missed
from codistill.flows.check.operating import of_specs
from codistill.flows.times import content, in_words, next_time, prefect_schedule
from codistill.specs.durations import seconds, written
from codistill.specs.load import load_specs
from codistill.specs.operating import Schedule
from codistill.specs.problems import SpecError
from hypothesis import given
from hypothesis import strategies as some
from prefect.server.schemas import schedules as theirs

UTC = UTC
NOW = datetime(2026, 3, 28, 20, 7, 30, tzinfo=UTC)  # the night in which Berlin's clocks go forward


@pytest.mark.parametrize(
    "said",
    [
        {"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
        {"cron": "*/7 1-4 * * 0", "timezone": "America/New_York"},
        {"interval": "10m"},
        {"interval": "7h", "timezone": "Asia/Tokyo"},
        {"interval": "5h", "timezone": "Europe/Berlin"},
        {"interval": "1d", "start": "2026-03-01T03:30:00", "timezone": "Europe/Berlin"},
        {"interval": "90s", "start": "2026-03-01T00:00:17"},
        {"interval": "2h", "start": "2026-01-01T00:30:00+02:00", "timezone": "Europe/Berlin"},
        {"rrule": "FREQ=WEEKLY;BYDAY=MO;BYHOUR=3;BYMINUTE=0;BYSECOND=0", "timezone": "Europe/Berlin"},
        {"rrule": "RRULE:FREQ=HOURLY;INTERVAL=5", "start": "2026-03-02T01:00:00"},
        {"rrule": "DTSTART:20260301T040000\nRRULE:FREQ=DAILY;COUNT=40"},
    ],
)
def test_the_next_time_is_the_one_that_prefect_finds(said):
    schedule = Schedule.model_validate(said)
    ours = prefect_schedule(schedule)
    server = getattr(theirs, type(ours).__name__).model_validate_json(ours.model_dump_json())
    dates = asyncio.run(server.get_dates(n=3, start=NOW + timedelta(microseconds=1)))
    dates = [datetime.fromtimestamp(date.timestamp(), UTC) for date in dates]
    assert next_time(schedule, NOW) == dates[0]
    assert next_time(schedule, dates[0]) == dates[1] and next_time(schedule, dates[1]) == dates[2]


def test_nothing_is_due_before_the_start():
    for way in ({"cron": "0 * * * *"}, {"interval": "1h"}, {"rrule": "FREQ=HOURLY"}):
        schedule = Schedule.model_validate(way | {"start": "2026-04-01T00:00:00"})
        assert next_time(schedule, NOW) == datetime(2026, 4, 1, tzinfo=UTC), way


def test_a_rule_to_which_the_server_adds_a_first_day_is_the_same_rule():
    said = Schedule.model_validate({"rrule": "FREQ=MINUTELY;INTERVAL=3"})
    ours = prefect_schedule(said)
    changed = SimpleNamespace(timezone="UTC", rrule="DTSTART:20261126T000000\nRRULE:FREQ=MINUTELY;INTERVAL=3")
    assert content(ours) == content(changed)
    assert content(ours) != content(SimpleNamespace(timezone="UTC", rrule="FREQ=MINUTELY;INTERVAL=4"))
    assert in_words(said) == "rrule FREQ=MINUTELY;INTERVAL=3, UTC"


@given(some.integers(1, 10 * 365 * 86_400 - 1))
def test_a_length_of_time_is_read_as_it_is_written(length):
    assert seconds(written(length)) == length == seconds(length)


@pytest.mark.parametrize(
    "said", ["", " ", "1x", "m", "1h 2d", "-5", "1e3", 0, -1, True, None, "0s", "3000000000s", [1]]
)
def test_what_is_no_length_of_time(said):
    with pytest.raises(ValueError, match="^expected a length of time"):
        seconds(said)


SPEC = """name: {name}
rounds: 1
data: {{dataset: digits, partition: {{by: iid}}}}
agents: [{{name: a, count: 2, model: mlp}}]
recipe: fedavg
{more}
"""


@pytest.fixture
def spec(tmp_path):
    def loaded(more, name="nightly"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(SPEC.format(name=name, more=more))
        return load_specs(str(path))[0]

    return loaded


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            'schedule: {rrule: "FREQ=DAILY;UNTIL=20200105T000000"}',
            "6:12: schedule.rrule: it is never due again: the last time was 2020-01-05T00:00:00+00:00; "
            "name a time to come, or leave `schedule` out",
        ),
        (
            'schedule: {rrule: "FREQ=DAILY;COUNT=3", start: 2021-01-01}',
            "6:12: schedule.rrule: it is never due again: the last time was 2021-01-03T00:00:00+00:00; "
            "name a time to come, or leave `schedule` out",
        ),
    ],
)
def test_a_schedule_in_the_past(spec, said, sentence):
    loaded = spec(said)
    (problem,) = of_specs([loaded], NOW)
    assert str(problem) == f"{loaded.node.mark.file}:{sentence}"
    assert of_specs([loaded], datetime(2020, 1, 1, tzinfo=UTC)) == []


def test_two_deployments_of_one_name(spec):
    first, second = spec("deploy: {name: same}"), spec("deploy: {name: same}", "other")
    (problem,) = of_specs([first, second], NOW)
    assert str(problem) == (
        f"{second.node.mark.file}:6:10: deploy.name: two deployments are called 'same'; the other is of "
        f"{first.node.mark.file}; give one of them another `deploy.name`"
    )


@pytest.mark.parametrize(
    ("said", "sentences"),
    [
        ("schedule: {}", ["schedule: expected exactly one of cron, interval, rrule; got none of them"]),
        ("schedule: {cron: '0 3 * * *', interval: 1h}", ["got cron and interval"]),
        ("schedule: {cron: '0 3 * *'}", ["6:18: schedule.cron: expected five fields of cron, such as '0 3 * * *'"]),
        ("schedule: {interval: 1h, timezone: Europe/Berln}", ["6:36: schedule.timezone", "mean 'Europe/Berlin'?"]),
        ("schedule: {rrule: FREQ=HOURY}", ["schedule.rrule: expected an iCalendar rule, such as FREQ=DAILY;BYHOUR=3"]),
        ('schedule: {rrule: "DTSTART:20200101T000000\\nRRULE:FREQ=DAILY", start: 2020-01-01}', ["DTSTART of its own"]),
        ("schedule: {interval: 1h, catchup: all}", ["6:26: schedule.catchup: unknown key", "did you mean 'catch_up'?"]),
        ("deploy: {retries: -1}", ["6:19: deploy.retries: expected a whole number from 0 to 100; got -1"]),
        ("deploy: {timeout: soon}", ["deploy.timeout: expected a length of time: seconds, or such as 90s"]),
        ("continue: lates", ["6:11: continue: expected a word", "got 'lates'; did you mean 'latest'?"]),
        ("continue: {run: x, digest: xyz}", ["continue.digest: expected"]),
    ],
)
def test_what_is_said_wrong(spec, said, sentences):
    with pytest.raises(SpecError) as caught:
        spec(said)
    (problem,) = caught.value.problems
    for sentence in sentences:
        assert sentence in str(problem)


# --- runs that were due while nobody ran them


class Client:
    """Remembers what was set aside; ``waiting``: the scheduled runs of the deployment."""

    def __init__(self, *waiting):
        self.waiting, self.aside = waiting, {}

    def read_flow_runs(self, deployment_filter, flow_run_filter, limit):
        assert list(map(str, deployment_filter.id.any_)) == [DEPLOYMENT]
        before = flow_run_filter.expected_start_time.before_
        return [run for run in self.waiting if run.expected_start_time <= before]

    def set_flow_run_state(self, identity, state):
        self.aside[identity] = state


DEPLOYMENT = "00000000-0000-0000-0000-000000000001"


def due(name, minutes, auto=True):
    """A run that was due so many minutes ago."""
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    return SimpleNamespace(id=name, name=name, expected_start_time=at, auto_scheduled=auto, deployment_id=DEPLOYMENT)


def hourly(**more):
    return Schedule.model_validate({"interval": "1h", **more})


def test_one_run_makes_up_for_those_missed():
    runs = [due("first", 180), due("second", 120), due("third", 60), due("to come", -1), due("mine", 30, auto=False)]
    client = Client(*runs)
    assert missed.why_skipped(client, runs[0], hourly()) is None
    assert set(client.aside) == {"second", "third"}
    assert client.aside["third"].name == "Skipped" and client.aside["third"].type.value == "CANCELLED"
    assert client.aside["third"].message == "missed, and made up for by the run first"


def test_each_missed_run_is_made_up_for():
    runs = [due("first", 180), due("second", 120)]
    client = Client(*runs)
    assert missed.why_skipped(client, runs[0], hourly(catch_up="all")) is None and not client.aside


def test_missed_runs_are_not_made_up_for():
    runs = [due("first", 180), due("second", 120), due("just now", 2)]
    client = Client(*runs)
    said = missed.why_skipped(client, runs[0], hourly(catch_up="none"))
    assert said == "missed, and the schedule says `catch_up: none`" and set(client.aside) == {"second"}
    assert missed.why_skipped(client, runs[2], hourly(catch_up="none")) is None


def test_nothing_is_done_before_the_start():
    runs = [due("first", 5), due("second", -55)]
    client = Client(*runs)
    begins = datetime.now(UTC) + timedelta(hours=2)
    said = missed.why_skipped(client, runs[0], hourly(start=begins.isoformat()))
    assert said == f"nothing is due before {begins.isoformat()}" and set(client.aside) == {"second"}


def test_what_a_person_starts_is_never_skipped():
    client = Client(due("first", 180))
    assert missed.why_skipped(client, due("mine", 500, auto=False), hourly(catch_up="none", start="2999-01-01")) is None
    assert missed.why_skipped(client, due("mine", 500), None) is None and not client.aside
