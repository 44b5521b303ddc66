"""A worker that is lost in the middle of a stage: another does its part of the round again, to the same bytes."""

import pytest
from codistill.flows.drive import do_round, run_plainly
from codistill.flows.pool import Here, PoolClosedError, Processes, WorkerDiedError
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.tests.fidelity.alike import same
from codistill.tests.finishing import finish_without_report
from codistill.tests.flows.test_fkge import FEDE, graph_folder, small

__all__ = ["graph_folder", "small"]  # fixtures

TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"
PEERS = "{decentralized: {graph: pairs}}"
SPEC = """
name: lost
seed: 2
rounds: 3
data:
  dataset: digits
  partition: {by: dirichlet, alpha: 0.5, min_size: 10}
  take: {train: 160, test: 60}
  public: {share: 0.2}
agents: [{name: m, count: 3, model: mlp}, {name: l, count: 2, model: linear, leaves: 3}]
participation: {share: 0.7}
measure: {control: none, metrics: [accuracy, cross_entropy]}
"""
CASES = {
    "fedavg, tree": ("recipe: fedavg", f"pattern={TREE}", "agents[1].model=mlp"),
    "svd, tree": ("recipe: fedkd", f"pattern={TREE}", "recipe.companion=mlp"),
    "fd, peers": ("recipe: fd", f"pattern={PEERS}"),
    "fedmd": ("recipe: fedmd",),
    "fedcache": ("recipe: fedcache",),
    "fedgkt": ("recipe: fedgkt",),
    "fedgen": ("recipe: {use: fedgen, with: {aggregate.steps: 3}}", "agents[1].model=mlp"),
    "fedtgp": ("recipe: {use: fedtgp, with: {aggregate.epochs: 3}}",),
    "ds-fl, late": (
        "recipe: ds-fl",
        "participation={share: 0.9, deadline: 1, late: next}",
        "agents[1].speed=0.000001",
    ),
}


class Losing(Here):
    """Loses its worker at every stage of every round once, after half of the cohort's agents are done."""

    def __init__(self, lanes, writes=False):
        super().__init__(lanes)
        self.lost, self.asked, self.writes = set(), 0, writes

    def perform(self, lane, request):
        at = (request["round"], request["stage"], lane)
        self.asked += 1
        if at in self.lost:
            return super().perform(lane, request)
        self.lost.add(at)
        places = request["places"]
        super().perform(lane, request | {"places": places[: (len(places) + 1) // 2], "measured": ()})
        raise WorkerDiedError(f"worker {lane} ended")


class Notes(SilentProgress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def run(ready, pool):
    session, notes = open_session(ready.folder, pool), Notes()
    run_plainly(session, notes)
    finish_without_report(ready.folder, session.plan)
    return ready.folder, notes.notes


@pytest.mark.parametrize("writes", [False, True], ids=["a round", "a stage"])
@pytest.mark.parametrize("room", [None, 0], ids=["kept", "on disk"])
@pytest.mark.parametrize("case", CASES)
def test_losses_at_every_stage_change_nothing(launched, monkeypatch, case, room, writes):
    """Where agents are written after each stage a loss costs one: as many more are asked for as there are losses."""
    recipe, *overrides = CASES[case]
    if room is not None:
        monkeypatch.setattr("codistill.flows.keeper.ROOM", room)
    whole, _ = run(launched(f"{SPEC}{recipe}\n", *overrides), Here(2))
    pool = Losing(2, writes)
    lossy, notes = run(launched(f"{SPEC}{recipe}\n", *overrides), pool)
    said = "its part of a stage of round" if writes else "its part of round"
    assert len(notes) == len(pool.lost) > 2 * 3 * 2 and all(said in note for note in notes)
    assert (pool.asked == 2 * len(pool.lost)) == writes
    same(whole, lossy)


def test_nor_do_they_where_graphs_are_embedded(launched, small):
    whole, _ = run(launched(small(FEDE)), Here(2))
    for writes in (False, True):
        lossy, notes = run(launched(small(FEDE)), Losing(2, writes))
        assert notes
        same(whole, lossy)


def test_only_the_agents_of_the_lost_worker_are_done_again(launched):
    ready, asked = launched(f"{SPEC}recipe: fd\n", "participation.share=1.0"), []

    class Once(Here):
        done = False

        def perform(self, lane, request):
            asked.append((request["stage"], lane, tuple(request["places"])))
            if request["round"] == 2 and request["stage"] == 2 and lane == 1 and not self.done:
                self.done = True
                raise WorkerDiedError("worker 1 ended")
            return super().perform(lane, request)

    pool = Once(2)
    session = open_session(ready.folder, pool)
    for number in (0, 1, 2):
        session.begin(number)
        del asked[:]
        do_round(session, number, SilentProgress())
        session.commit(number)
    assert [lane for stage, lane, _ in asked if stage == 0].count(1) == 2
    assert [lane for stage, lane, _ in asked if stage == 0].count(0) == 1
    assert len({places for _, lane, places in asked if lane == 1}) == 1


def test_a_pool_that_was_closed_gets_no_new_workers():
    pool = Processes(1)
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.replace(0)
