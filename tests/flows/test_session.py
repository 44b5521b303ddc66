"""A session: who does what, what a commit keeps, and rounds in which little or nothing happens."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from codistill.flows.drive import run_plainly
from codistill.flows.pool import Here, Placeless, StageError, WorkerDiedError
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.flows.tables import write_tables
from codistill.tests.finishing import finish_without_report

SPEC = """
name: session
seed: 1
rounds: {rounds}
data: {{dataset: digits, partition: {{by: iid}}, take: {{train: 120, test: 60}}, public: {{share: 0.2}}}}
agents: [{agents}]
pattern: {pattern}
participation: {participation}
measure: {{control: none, every: {every}, metrics: [accuracy, cross_entropy]}}
recipe: {recipe}
"""
TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: top}]}}"


def spec(
    agents="{name: a, count: 6, model: linear}",
    recipe="fd",
    pattern="distributed",
    rounds=4,
    every=1,
    participation="{}",
):
    return SPEC.format(
        agents=agents, recipe=recipe, pattern=pattern, rounds=rounds, every=every, participation=participation
    )


def rows(folder, table):
    return pq.read_table(folder.table(table)).to_pylist()


class Told(Placeless):
    """A pool without workers: every stage gives the rows that ``say`` returns."""

    def __init__(self, lanes, say=lambda request: {}):
        self.lanes, self.say, self.requests, self.replaced = lanes, say, [], []

    def open(self, folder):
        pass

    def perform(self, lane, request):
        self.requests.append((lane, request))
        empty = {"metrics": [], "ledger": [], "memory": [], "seconds": 0.5, "cpu_seconds": 0.25}
        return empty | self.say(request)

    def replace(self, lane):
        self.replaced.append(lane)

    def close(self):
        pass


class Notes(SilentProgress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_agents_are_dealt_out_by_their_work(launched):
    ready = launched(spec("{name: heavy, count: 2, model: cnn}, {name: light, count: 6, model: linear}"))
    for lanes in (1, 2, 3, 20):
        session = open_session(ready.folder, Told(lanes))
        cohorts = session.cohorts(1, ready.plan.stages[0])
        assert len(cohorts) == min(lanes, 8)
        assert sorted(place for cohort in cohorts for place in cohort.places) == list(range(8))
        loads = [sum(ready.plan.agents[place].work for place in cohort.places) for cohort in cohorts]
        if lanes > 1:
            assert all(len({0, 1} & set(cohort.places)) <= 1 for cohort in cohorts)
            assert max(loads) <= 1.1 * ready.plan.agents[0].work + ready.plan.agents[2].work * (6 if lanes < 3 else 0)
        assert [len(session.cohorts(1, stage)) for stage in ready.plan.stages if stage.tier == 0] == [1]


def test_an_agent_stays_with_its_worker_for_a_round(launched):
    ready = launched(spec(participation="{share: 0.7}", rounds=6))
    session = open_session(ready.folder, Told(3))
    for number in range(1, 7):
        dealt = [[cohort.places for cohort in session.cohorts(number, s)] for s in ready.plan.stages if s.tier < 0]
        assert dealt[0] == dealt[1]


def test_rows_are_in_the_agents_order_whoever_brought_them(launched):
    ready = launched(spec())

    def say(request):
        return {"metrics": [[place, "accuracy", 0.5, 10] for place in reversed(request["places"])]}

    session = open_session(ready.folder, Told(4, say))
    run_plainly(session, SilentProgress())
    for number in range(5):
        found = json.loads(session.folder.rows(number).read_text())
        assert [row[0] for row in found["metrics"]] == sorted(row[0] for row in found["metrics"])
        assert len(found["timings"]) == (4 if number == 0 else 4 + 1 + 4)
    assert sum(json.loads(session.folder.rows(n).read_text())["seconds"] for n in range(5)) == pytest.approx(
        write_tables(session.folder, session.plan)
    )


def test_what_a_worker_that_dies_did_is_done_again_and_what_fails_is_not(launched):
    ready = launched(spec())
    deaths = iter([True, True])

    def die(request):
        if request["round"] == 2 and request["stage"] == 1 and next(deaths, False):
            raise WorkerDiedError("worker 0 ended")
        return {}

    pool, notes = Told(2, die), Notes()
    session = open_session(ready.folder, pool)
    run_plainly(session, notes)
    assert pool.replaced == [0, 0] and notes.notes == ["worker 0 ended; its part of round 2 is done again"] * 2
    assert [request["stage"] for _, request in pool.requests if request["round"] == 2] == [0, 0, 1, 0, 1, 0, 1, 2, 2]
    assert session.folder.committed() == 4

    for error, times in ((WorkerDiedError("gone"), 3), (StageError("wrong"), 1)):

        def fail(request, error=error):
            raise error

        pool = Told(1, fail)
        session = open_session(launched(spec()).folder, pool)
        with pytest.raises(type(error)):
            run_plainly(session, SilentProgress())
        assert len(pool.requests) == times and session.folder.committed() == -1


@pytest.mark.parametrize("stops", [(4,), (2, 4)], ids=["in memory", "from disk"])
def test_what_nothing_changed_is_carried_into_the_next_round(launched, stops):
    ready = launched(spec(agents="{name: a, count: 2, model: linear}, {name: b, model: linear, leaves: 2}"))

    def say(request):
        number, places = request["round"], request["places"]
        if request["stage"] not in (-1, 2):
            return {}
        memory = [[place, kind, 1, 10 * number + place] for place in places for kind in ("working", "semantic")]
        return {"memory": memory, "metrics": [[place, "accuracy", number / 10, 5] for place in places]}

    folder = ready.folder
    for stop in stops:  # a second session begins from what is on disk
        session = open_session(folder, Told(2, say))
        for number in range(session.next_round, stop + 1):
            session.begin(number)
            for index, stage in session.stages(number):
                for lane, cohort in enumerate(session.cohorts(number, stage)):
                    session.perform(number, index, lane, cohort)
            session.commit(number)
    for number in (3, 4):
        found = json.loads(folder.rows(number).read_text())
        assert found["metrics"] == [[place, "accuracy", (number if place < 2 else 2) / 10, 5] for place in (0, 1, 2)]
        held = [[1, kind, 1, 10 * number + 1] for kind in ("working", "semantic")]
        assert [row for row in found["memory"] if row[0] > 0] == [*held, [2, "semantic", 1, 22]]


# --- whole runs in which little happens


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("pattern", ["distributed", TREE, "decentralized"], ids=["star", "tree", "peers"])
def test_rounds_without_anybody(conduct, pattern, every):
    folder = conduct(spec("{name: a, count: 4, model: linear, joins: 3, leaves: 3}", pattern=pattern, every=every))
    metrics = rows(folder, "metrics")
    measured = [0, 1, 2, 3, 4] if every == 1 else [0, 3, 4]
    assert sorted({row["round"] for row in metrics}) == measured
    value = {(row["round"], row["agent"]): row["value"] for row in metrics if row["metric"] == "cross_entropy"}
    assert len(value) == 4 * len(measured)
    assert all(value[0, f"a-{n}"] != value[3, f"a-{n}"] == value[4, f"a-{n}"] for n in (1, 2, 3, 4))
    if every == 1:
        assert all(value[0, f"a-{n}"] == value[2, f"a-{n}"] for n in (1, 2, 3, 4))
    assert {row["round"] for row in rows(folder, "ledger")} == {3}
    assert [row["status"] for row in rows(folder, "clock") if row["round"] == 2] == ["absent"] * 4
    assert json.loads(folder.summary.read_text())["packets"] == len(rows(folder, "ledger")) > 0


def test_an_agent_that_never_takes_part(conduct):
    folder = conduct(spec("{name: a, count: 3, model: linear}, {name: never, model: linear, joins: 9}"))
    values = {
        row["value"] for row in rows(folder, "metrics") if (row["agent"], row["metric"]) == ("never", "cross_entropy")
    }
    assert len(values) == 1 and len([r for r in rows(folder, "metrics") if r["agent"] == "never"]) == 10
    assert {file.stem for file in (folder.path / "models").iterdir()} == {"a-1", "a-2", "a-3"}
    found = json.loads(folder.summary.read_text())
    assert found["agents"] == 4 and 0 <= found["accuracy_worst"] <= found["accuracy"] <= 1


@pytest.mark.parametrize("recipe", ["fedavg", "fd", "fedproto", "fedmd", "local"])
def test_one_agent_alone(conduct, recipe):
    folder = conduct(spec("{name: only, model: mlp}", recipe))
    assert {row["agent"] for row in rows(folder, "metrics")} == {"only"}
    sent = {(row["from"], row["to"]) for row in rows(folder, "ledger")}
    up, down = ("only", "server"), ("server", "only")
    assert sent == {"local": set(), "fd": {up}}.get(recipe, {up, down})  # fd leaves out what is one's own


def test_an_edge_without_anybody_below_it_is_told_nothing(conduct):
    folder = conduct(
        spec("{name: a, count: 3, model: linear}, {name: b, count: 3, model: linear, joins: 4}", pattern=TREE)
    )
    ends = {(row["round"], end) for row in rows(folder, "ledger") for end in (row["from"], row["to"])}
    assert {number for number, end in ends if end == "edge-2"} == {4}
    assert {number for number, end in ends if end == "edge-1"} == {1, 2, 3, 4}


def test_peers_without_neighbours_learn_alone(conduct):
    links = "{decentralized: {graph: {edges: {links: [[a-1, a-2], [a-2, a-3]]}}}}"
    folder = conduct(spec("{name: a, count: 4, model: linear}", "fedavg", links))
    assert {end for row in rows(folder, "ledger") for end in (row["from"], row["to"])} == {"a-1", "a-2", "a-3"}
    alone = conduct(spec("{name: a, count: 4, model: linear}", "local"))
    values = [
        [row["value"] for row in rows(run, "metrics") if row["agent"] == "a-4" and row["metric"] == "cross_entropy"]
        for run in (folder, alone)
    ]
    assert values[0] == values[1] and len(set(values[0])) == 5


def test_agents_that_rest_are_measured_when_it_is_time(conduct, monkeypatch):
    """Measured every third round, an agent shows what its last round made of it, not what was measured before."""
    pairs = []
    for every in (1, 3):
        said = spec(participation="{share: 0.5}", rounds=7, every=every, pattern=TREE.replace("count: 2", "count: 3"))
        folder = conduct(said, lanes=2)
        pairs.append(
            {(r["round"], r["agent"], r["metric"]): (r["value"], r["weight"]) for r in rows(folder, "metrics")}
        )
    each, third = pairs
    assert {key[0] for key in third} == {0, 3, 6, 7} and len(third) == 4 * 6 * 2
    assert third == {key: value for key, value in each.items() if key[0] in (0, 3, 6, 7)}


def test_so_are_aggregators_with_models(conduct):
    pairs = []
    tree = "{hierarchical: {forward: own, tiers: [{name: edge, count: 3, model: linear}, {name: top, model: mlp}]}}"
    for every in (1, 3):
        said = spec(recipe="ds-fl", participation="{share: 0.34}", rounds=6, every=every, pattern=tree)
        folder = conduct(said)
        pairs.append({(r["round"], r["agent"], r["metric"]): r["value"] for r in rows(folder, "metrics")})
    each, third = pairs
    assert {"edge-1", "edge-2", "edge-3", "top"} <= {key[1] for key in third}
    assert third == {key: value for key, value in each.items() if key[0] in (0, 3, 6)}


def test_agents_without_test_samples_are_not_measured(conduct, tmp_path):
    held = {"train": [list(range(n, n + 20)) for n in (0, 20, 40)], "test": [list(range(30)), [], []]}
    path = tmp_path / "held.json"
    path.write_text(json.dumps(held))
    said = spec("{name: a, count: 3, model: linear}", participation="{share: 0.34}", every=3, rounds=9)
    said = said.replace("{by: iid}, take: {train: 120, test: 60}, public: {share: 0.2}", f"{{by: given, path: {path}}}")
    folder = conduct(said)
    assert {row["agent"] for row in rows(folder, "metrics")} == {"a-1"}
    assert json.loads(folder.summary.read_text())["accuracy_worst"] is not None
    path.write_text(json.dumps(held | {"test": [[], [], []]}))
    folder = conduct(said.replace("seed: 1", "seed: 2"))
    assert rows(folder, "metrics") == []
    assert json.loads(folder.summary.read_text())["accuracy"] is None


def test_a_run_measured_by_something_else_has_no_accuracy(conduct):
    folder = conduct(spec(), "measure.metrics=[cross_entropy]")
    found = json.loads(folder.summary.read_text())
    assert found["accuracy"] is found["accuracy_mean"] is found["accuracy_worst"] is None and found["packets"] > 0


def test_finishing_again_gives_the_same_files(conduct):
    folder = conduct(spec(participation="{share: 0.5}"))
    plan = open_session(folder, Here()).plan
    before = {
        path.name: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name != "run.json"
    }
    for name in ("metrics.parquet", "summary.json"):
        (folder.path / name).unlink()
    shutil.rmtree(folder.path / "models")
    (folder.path / "models").mkdir()
    for _ in range(2):
        finish_without_report(folder, plan)
    after = {
        path.name: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name != "run.json"
    }
    assert after == before
    assert folder.info()["status"] == "finished" and folder.info()["seconds"] > 0
