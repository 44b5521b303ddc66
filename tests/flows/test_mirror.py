"""A run whose agents are kept in a store, for workers that see no common folder: the same bytes as in one folder."""

import contextlib
import json
import shutil
import threading
from pathlib import Path

import pytest
from codistill.flows.drive import do_round, run_plainly
from codistill.flows.engines import EngineError, open_engine, remote
from codistill.flows.engines.lanes import Lanes
from codistill.flows.left_out import read_plan
from codistill.flows.pool import Here, WorkerDiedError
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.flows.shared_store import SharedStore
from codistill.specs.engine import Engine
from codistill.tests.finishing import finish_without_report
from codistill.tests.flows.test_engines import SPEC, content

CASES = {
    "stores": ("recipe=fedcache",),
    "tiers, some away": (
        "recipe=fedavg",
        "pattern={hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}",
        "participation.share=0.5",
        "rounds=5",
    ),
    "peers": ("recipe=fedmd", "pattern={decentralized: {graph: ring}}"),
    "late": (
        "recipe=fedproto",
        "participation={share: 0.9, deadline: 1, late: next}",
        "agents[0].speed=0.00001",
        "rounds=4",
    ),
    "references": ("recipe=fedkd", "participation.share=0.6", "recipe.companion=linear", "rounds=4"),
}


LOCK = threading.Lock()


class Apart(Lanes):
    """Lanes in this process that share nothing but the store; ``lost``: requests of a lane that lose its worker."""

    def __init__(self, lanes, store, lost=lambda lane, text: False):
        self.open_ones, self.lost = [{} for _ in range(lanes)], lost
        self.asked, self._done = 0, set()
        super().__init__(lanes, store)

    @property
    def done(self):
        """How many stages of lanes a run would have asked for that lost nobody."""
        return len(self._done)

    def ask(self, lane, text):
        said = json.loads(text)
        self.asked += 1
        self._done.add((lane, said["round"], said["stage"]))
        if self.lost(lane, said):
            for _, folder in self.open_ones[lane].values():
                shutil.rmtree(folder.path)
            self.open_ones[lane].clear()
            raise WorkerDiedError(f"worker {lane} is gone")
        hidden = said | {"folder": "/nowhere"}  # the run's folder is not seen there
        with LOCK, pytest.MonkeyPatch.context() as patch:  # one process stands for several: one thing at a time
            patch.setattr(remote, "_OPEN", self.open_ones[lane])
            return remote.perform_text(json.dumps(hidden))

    def renew(self, lane):
        pass

    def end(self):
        for lane in self.open_ones:
            for _, folder in lane.values():
                shutil.rmtree(folder.path)


def run(folder, pool):
    session = open_session(folder, pool)
    run_plainly(session, SilentProgress())
    pool.finish()
    finish_without_report(folder, session.plan)
    return session


BY_S3 = ("stores", "tiers, some away")


@pytest.mark.parametrize("case", CASES)
def test_a_run_in_a_store_is_the_run_in_a_folder(conduct, launched, tmp_path, bucket, case):
    store = f"{bucket}/{tmp_path.name}" if case in BY_S3 else str(tmp_path / "store")
    expected = content(conduct(SPEC + "recipe: fd\n", *CASES[case]))
    folder = launched(SPEC + "recipe: fd\n", *CASES[case]).folder
    with contextlib.closing(Apart(2, store)) as pool:
        run(folder, pool)
    assert content(folder) == expected
    left = SharedStore(store)
    assert left.names(folder.info()["digest"][:16]) == [], "a finished run leaves nothing in the store"
    assert len(left.names("prepared")) == 1, "but prepared data, for the next"
    assert "store" not in folder.info() or folder.info()["store"] is None


@pytest.mark.parametrize("writes", [False, True], ids=["a round", "a stage"])
@pytest.mark.parametrize("case", ["stores", "tiers, some away", "references"])
def test_a_worker_that_is_lost_begins_from_the_store(conduct, launched, tmp_path, monkeypatch, case, writes):
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0 if case == "stores" else 2**20)
    expected = content(conduct(SPEC + "recipe: fd\n", *CASES[case]))
    folder, lost = launched(SPEC + "recipe: fd\n", *CASES[case]).folder, set()

    def lose(lane, request):
        """Lose the worker of a lane at every third stage, once."""
        at = (lane, request["round"], request["stage"])
        if sum(at) % 3 or at in lost:
            return False
        lost.add(at)
        return True

    with contextlib.closing(Apart(2, str(tmp_path / "store"), lose)) as pool:
        pool.writes = writes
        run(folder, pool)
        assert content(folder) == expected and len(lost) > 3
        assert (pool.asked == pool.done + len(lost)) == writes, "where agents are written a loss costs one stage"
    assert SharedStore(str(tmp_path / "store")).names(folder.info()["digest"][:16]) == []


@pytest.mark.parametrize("case", ["stores", "tiers, some away"])
def test_a_run_goes_on_by_its_store_and_from_a_folder(conduct, launched, tmp_path, case):
    """Two rounds without a store, one with it, and the rest by other workers; without the store it says so."""
    store = str(tmp_path / "store")
    expected = content(conduct(SPEC + "recipe: fd\n", *CASES[case], "rounds=5"))
    folder = launched(SPEC + "recipe: fd\n", *CASES[case], "rounds=5").folder

    def some(pool, rounds):
        session = open_session(folder, pool)
        for number in range(session.next_round, session.next_round + rounds):
            do_round(session, number, SilentProgress())
            session.commit(number)

    some(Here(), 3)
    with contextlib.closing(Apart(2, store)) as pool:
        some(pool, 1)
    shutil.rmtree(folder.path / "state")
    (folder.path / "state").mkdir()
    with pytest.raises(
        EngineError, match="engine.store: what the run's agents know is in .*, so go on with it by that"
    ):
        open_session(folder, Here())
    with contextlib.closing(Apart(3, store)) as pool:
        run(folder, pool)
    assert content(folder) == expected


def test_the_store_holds_what_a_run_needs_and_no_more(launched, tmp_path):
    folder = launched(SPEC + "recipe: fedcache\n", "rounds=4").folder
    with contextlib.closing(Apart(2, str(tmp_path / "store"))) as pool:
        session = open_session(folder, pool)
        for number in range(5):
            do_round(session, number, SilentProgress())
            session.commit(number)
            there = {path for path in (tmp_path / "store").rglob("*") if path.is_file() and "prepared" not in str(path)}
            states = {path.name for path in there if path.suffix == ".safetensors"}
            assert (
                len([path for path in there if path.suffix == ".safetensors"])
                == len(states)
                <= len(session.plan.agents)
            )
            assert not [path for path in there if "packets" in path.parts]


def test_a_run_that_continues_another_by_a_store(conduct, launched, tmp_path):
    first = conduct(SPEC + "recipe: fedcache\n")
    said = f"continue={{run: {first.path}}}"
    expected = content(conduct(SPEC + "recipe: fedcache\n", said))
    folder = launched(SPEC + "recipe: fedcache\n", said).folder
    with contextlib.closing(Apart(2, str(tmp_path / "store"))) as pool:
        run(folder, pool)
    assert content(folder) == expected


def test_a_cluster_by_s3(conduct, launched, bucket):
    said = ("recipe=fedcache", "rounds=2")
    expected = content(conduct(SPEC + "recipe: fd\n", *said))
    folder = launched(SPEC + "recipe: fd\n", *said).folder
    with contextlib.closing(open_engine(Engine(kind="dask", store=f"{bucket}/dask"), 2)) as pool:
        assert run(folder, pool).plan == read_plan(folder)
    assert content(folder) == expected
    assert not list(Path("/tmp").glob(f"codistill-run-*/{folder.path.name}"))
