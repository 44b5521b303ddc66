"""Sensory memory is told of in the tables; working memory is a store for one round."""

from collections import defaultdict

import pyarrow.parquet as pq
import pytest
from codistill.flows import keeper
from codistill.flows.plan import Plan

SPEC = """
name: kinds
seed: 5
rounds: 3
data: {dataset: digits, partition: {by: dirichlet, alpha: 0.5, min_size: 12}, take: {train: 300, test: 100},
       public: {share: 0.2}}
agents: [{name: m, count: 4, model: mlp}]
measure: {control: none}
recipe:
  memories:
    own: {kind: sensory, holds: samples}
    inbox: {kind: working, holds: logits, capacity: {items: 20}, eviction: fifo}
  round:
    - train: {}
    - extract: {knowledge: logits, from: public}
    - aggregate: {by: mean}
    - store: {memory: inbox, when: {until: 2}}
    - absorb: {by: distil, on: public}
"""


def told(folder, name):
    """By memory and round: what each agent held of it."""
    found = defaultdict(dict)
    for row in pq.read_table(folder.table("stores")).to_pylist():
        if row["store"] == name:
            found[row["round"]][row["agent"]] = row
    return found


@pytest.fixture(scope="module", params=["agents stay in memory", "agents wait on disk"])
def folder(request, conduct):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "ROOM", keeper.ROOM if request.param == "agents stay in memory" else 1)
        return conduct(SPEC)


def test_sensory_memory_is_what_the_partition_gave(folder):
    samples = {agent.name: agent.samples for agent in Plan.read(folder.plan).agents if agent.samples}
    for number, by_agent in told(folder, "own").items():
        assert {name: row["items"] for name, row in by_agent.items()} == samples, number
        assert all(row["bytes"] == row["items"] * (64 * 4 + 8) for row in by_agent.values())
        assert {(row["kind"], row["hits"], row["evicted"]) for row in by_agent.values()} == {("sensory", 0, 0)}
    assert set(told(folder, "own")) == {0, 1, 2, 3}


def test_working_memory_holds_the_rounds_inbox_and_is_empty_in_the_next(folder):
    inbox, public = told(folder, "inbox"), Plan.read(folder.plan).public
    assert set(inbox) == {1, 2}  # nothing went in in round 3, and nothing was left
    for by_agent in inbox.values():
        assert set(by_agent) == {"m-1", "m-2", "m-3", "m-4"}
        assert {(row["items"], row["evicted"]) for row in by_agent.values()} == {(20, public - 20)}
    assert not list((folder.path / "state").glob("*/*.store.inbox*"))


def test_both_are_counted_once_under_their_kind(folder):
    held = {(row["round"], row["agent"], row["kind"]): row for row in pq.read_table(folder.table("memory")).to_pylist()}
    own, inbox = told(folder, "own")[2]["m-1"], told(folder, "inbox")[2]["m-1"]
    assert (held[2, "m-1", "sensory"]["items"], held[2, "m-1", "sensory"]["bytes"]) == (own["items"], own["bytes"])
    with_it, without = held[2, "m-1", "working"], held[3, "m-1", "working"]
    assert with_it["items"] - without["items"] == inbox["items"] == 20
    assert with_it["bytes"] - without["bytes"] == inbox["bytes"] > 0
