"""The same run on worker processes, on a Dask cluster and on a Ray cluster: the same bytes, and a worker may die."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from codistill.flows.drive import run_plainly
from codistill.flows.engines import EngineError, one_engine, open_engine
from codistill.flows.engines.remote import read_reply
from codistill.flows.pool import StageError, WorkerDiedError
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.engine import Engine
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from codistill.tests.finishing import finish_without_report

SPEC = """
name: engines
seed: 5
rounds: 3
data:
  dataset: digits
  partition: {by: dirichlet, alpha: 1, min_size: 5}
  public: {share: 0.2}
  take: {train: 400, test: 100}
agents: [{name: phone, count: 3, model: mlp}, {name: laptop, count: 2, model: mlp}]
participation: {share: 0.8}
measure: {control: none}
"""
SAME = ("metrics", "ledger", "memory", "stores", "events", "clock")
KINDS = ("local", "dask", "ray")
METHODS = {
    "stores": ("recipe=fedcache",),
    "tiers": ("recipe=fedavg", "pattern={hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"),
    "peers": ("recipe=fedmd", "pattern={decentralized: {graph: ring}}"),
}


@pytest.fixture(scope="module", params=KINDS)
def pool(request):
    with contextlib.closing(open_engine(Engine(kind=request.param), 2)) as opened:
        yield opened


@pytest.fixture
def on(launched):
    """A function that runs a spec on a pool and returns its folder."""

    def run(pool, *overrides, progress=None):
        ready = launched(SPEC + "recipe: fd\n", *overrides)
        session = open_session(ready.folder, pool)
        run_plainly(session, progress or SilentProgress())
        finish_without_report(ready.folder, session.plan)
        return ready.folder

    return run


def content(folder):
    """What a run may not differ in, as bytes."""
    files = [folder.table(name) for name in SAME if folder.table(name).exists()]
    models = sorted((folder.path / "models").iterdir())
    assert len(models) >= 5 and len(files) >= 4
    return {file.name: file.read_bytes() for file in [*files, *models]}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_gives_the_same_bytes_on_every_engine(pool, on, conduct, method):
    here = conduct(SPEC + "recipe: fd\n", *METHODS[method])
    assert content(on(pool, *METHODS[method])) == content(here)


class Notes(SilentProgress):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@contextlib.contextmanager
def killed_in_the_middle(pool, monkeypatch, number, stage=0):
    """Kill worker 1 while it does a stage of a round, the first, which lasts longer than that takes."""
    pids, perform = pool.process_ids, pool.perform

    def kill():
        time.sleep(0.3)
        os.kill(pids[1], signal.SIGKILL)

    def performing(lane, request):
        if lane == 1 and (request["round"], request["stage"]) == (number, stage) and pids:
            thread = threading.Thread(target=kill)
            thread.start()
            try:
                return perform(lane, request)
            finally:
                thread.join()
                pids.clear()
        return perform(lane, request)

    monkeypatch.setattr(pool, "perform", performing)
    yield
    assert not pids


def test_a_worker_that_is_killed_in_the_middle_of_a_stage_changes_nothing(pool, on, conduct, monkeypatch):
    slow = ("recipe=fedcache", "recipe.train.epochs=150")
    expected, progress = content(conduct(SPEC + "recipe: fd\n", *slow)), Notes()
    with killed_in_the_middle(pool, monkeypatch, 2):
        assert content(on(pool, *slow, progress=progress)) == expected
    (note,) = progress.said
    assert "its part of round 2 is done again" in note and "worker 1" in note


def test_it_costs_one_stage_where_agents_are_written_after_each(on, conduct, monkeypatch):
    slow, asked, progress = ("recipe=fedmd", "recipe.train.epochs=600", "rounds=2"), [], Notes()
    expected = content(conduct(SPEC + "recipe: fd\n", *slow))
    with contextlib.closing(open_engine(Engine(kind="local", save="stage"), 2)) as workers:
        perform = workers.perform

        def performing(lane, request):
            asked.append((request["round"], request["stage"], lane))
            return perform(lane, request)

        monkeypatch.setattr(workers, "perform", performing)
        with killed_in_the_middle(workers, monkeypatch, 2, stage=2):
            assert content(on(workers, *slow, progress=progress)) == expected
    (note,) = progress.said
    assert "its part of a stage of round 2 is done again" in note
    assert sorted(asked) == sorted([*set(asked), (2, 2, 1)])


def test_what_goes_wrong_in_a_stage_is_said_by_its_own_name(pool, launched, capfd):
    ready = launched(SPEC + "recipe: fd\n")
    session = open_session(ready.folder, pool)
    with pytest.raises(StageError, match="IndexError|KeyError|ValueError"):
        pool.perform(0, {"round": 1, "stage": 77, "places": (0,), "measured": ()})
    del session
    pool.replace(0)


def test_a_worker_that_was_replaced_does_not_go_on_as_if_it_knew(monkeypatch, launched):
    from codistill.flows.engines.lanes import Lanes
    from codistill.flows.engines.remote import _OPEN, perform_text

    class InThisProcess(Lanes):
        def ask(self, lane, text):
            return perform_text(text)

        def renew(self, lane):
            pass

        def end(self):
            pass

    ready, pool = launched(SPEC + "recipe: fd\n"), InThisProcess(1)
    session = open_session(ready.folder, pool)
    session.begin(0)
    (cohort,) = session.cohorts(0, session.plan.start)
    session.perform(0, -1, 0, cohort)
    _OPEN.clear()  # what a process that begins knows
    with pytest.raises(WorkerDiedError, match="worker 0 was replaced in the middle of a round"):
        session.perform(0, -1, 0, cohort)
    pool.replace(0)
    session.perform(0, -1, 0, cohort)
    _OPEN.clear()


def test_an_error_is_told_apart_from_a_death():
    with pytest.raises(StageError, match="ValueError: so"):
        read_reply('{"error": "ValueError: so", "trace": "where"}', 0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("engine=dusk", r"engine\.kind: expected one of .*; got 'dusk'.*did you mean 'dask'"),
        ("engine={kind: ray, adress: x}", r"engine\.adress: unknown key.*did you mean 'address'"),
        ("engine={address: 'tcp://x:1'}", "an address is that of a dask or a ray cluster"),
    ],
)
def test_what_is_said_wrongly_is_answered(write, said, message):
    with pytest.raises(SpecError, match=message):
        load_specs(str(write(SPEC + "recipe: fd\n")), [said])


def test_a_word_is_the_kind_and_nothing_of_it_is_part_of_the_digest(launched):
    folders = [launched(SPEC + "recipe: fd\n", said).folder for said in ("engine=ray", "engine={workers: 3}")]
    assert len({folder.info()["digest"] for folder in folders}) == 1
    (loaded,) = load_specs("fl/fd", ["engine=dask", "engine={kind: dask, workers: 4}"])
    assert loaded.value.engine == Engine(kind="dask", workers=4)


def test_a_sweep_is_done_on_one_engine():
    with pytest.raises(EngineError, match="this one names local and dask at tcp://a:1; run one after the other"):
        one_engine([Engine(), Engine(kind="dask", address="tcp://a:1"), Engine(workers=2)])
    assert one_engine([Engine(workers=1), Engine(workers=2)]).kind == "local"


@pytest.mark.parametrize(("kind", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, kind, module):
    monkeypatch.setattr("codistill.flows.extras.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=rf"needs the package {module}; pip install 'codistill\[{kind}\]'"):
        open_engine(Engine(kind=kind), 1)


def test_a_scheduler_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setattr("codistill.flows.engines.dask.PATIENCE", 1)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        open_engine(Engine(kind="dask", address="tcp://127.0.0.1:9"), 1)


def test_a_cluster_that_runs_already_is_used_and_left_alone(on, conduct):
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        engine = Engine(kind="dask", address=cluster.scheduler_address)
        with contextlib.closing(open_engine(engine, 5)) as pool:
            assert pool.lanes == 2
            expected = content(conduct(SPEC + "recipe: fd\n"))
            assert content(on(pool)) == expected
        assert len(cluster.scheduler.workers) == 2


def test_the_command_takes_an_engine(codistill, write, tmp_path):
    spec = write(SPEC + "recipe: fd\n")
    one, other = (
        codistill("run", spec, "--runs", tmp_path / kind, "--engine", kind, "--workers", "2", "--without-prefect", "-q")
        for kind in ("local", "dask")
    )
    assert (one.returncode, other.returncode) == (0, 0), other.stderr

    same = [(Path(done.stdout.strip()) / "metrics.parquet").read_bytes() for done in (one, other)]
    assert same[0] == same[1]
