"""Who is there, who takes part, who is late, what the clock says, and what becomes of late knowledge."""

from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from codistill.flows.folder import RunFolder
from codistill.flows.plan import AgentPlan, Plan
from codistill.flows.rounds import Traffic, cost, schedule
from codistill.specs.schema import Participation
from codistill.tasks import packet
from codistill.tasks.knowledge import Rows
from codistill.tasks.patterns import GraphChoice

AGENT = AgentPlan("a", "a", "learner", -1, None, None, None, "shared", 10, 10, 0.0)


def agents(count, **more):
    return [replace(AGENT, name=f"a-{index + 1}", **more) for index in range(count)]


def scheduled(learners, rounds=200, traffic=None, graph=None, central=True, seed=1, **participation):
    passed = traffic or [Traffic(0, 0)] * len(learners)
    chosen = None if graph is None else GraphChoice.model_validate(graph)
    return schedule(seed, rounds, learners, lambda number: passed, Participation(**participation), chosen, central)


def taking_part(plan, count):
    return tuple(range(count)) if plan.taking_part is None else plan.taking_part


def test_everybody_takes_part_unless_something_else_is_said():
    for plan in scheduled(agents(4), rounds=3):
        assert (plan.taking_part, plan.late, plan.stale, plan.returning, plan.absent, plan.edges) == (
            None,
            (),
            (),
            (),
            (),
            None,
        )


@pytest.mark.parametrize(
    ("share", "minimum", "expected"),
    [(0.5, 1, 5), (0.34, 1, 3), (0.01, 1, 1), (0.01, 4, 4), (1.0, 1, 10), (0.9, 10, 10)],
)
def test_a_share_of_those_there_takes_part_but_no_fewer_than_the_minimum(share, minimum, expected):
    plans = scheduled(agents(10), share=share, minimum=minimum)
    assert {len(taking_part(plan, 10)) for plan in plans} == {expected}
    times = Counter(place for plan in plans for place in taking_part(plan, 10))
    assert len(times) == 10 and max(times.values()) < 2 * min(times.values())  # 200 rounds: about as often each


def test_the_minimum_is_no_more_than_are_there():
    learners = agents(2) + [replace(agent, name=f"b-{i}", joins=3) for i, agent in enumerate(agents(3))]
    plans = scheduled(learners, rounds=4, share=0.1, minimum=4)
    assert [len(taking_part(plan, 5)) for plan in plans] == [2, 2, 4, 4]
    assert [plan.absent for plan in plans] == [(2, 3, 4), (2, 3, 4), (), ()]


def test_availability_is_a_chance_by_round_and_agent():
    plans = scheduled(agents(5, availability=0.3), rounds=1000)
    absent = Counter(place for plan in plans for place in plan.absent)
    assert all(640 < absent[place] < 760 for place in range(5))
    assert all(set(taking_part(plan, 5)) == set(range(5)) - set(plan.absent) for plan in plans)
    assert len({plan.absent for plan in plans}) == 32  # independent of each other
    nobody = [plan for plan in plans if len(plan.absent) == 5]
    assert nobody and all(plan.taking_part == () for plan in nobody)


def test_agents_join_and_leave():
    learners = [replace(AGENT, name="first", leaves=2), replace(AGENT, name="second", joins=2, leaves=3), AGENT]
    plans = scheduled(learners, rounds=4)
    assert [plan.absent for plan in plans] == [(1,), (), (0,), (0, 1)]
    assert [plan.taking_part for plan in plans] == [(0, 2), None, (1, 2), (2,)]
    assert [plan.returning for plan in plans] == [(), (1,), (), ()]  # who joins is brought up to date


def test_a_further_agent_changes_nobody_elses_presence():
    few, more = (scheduled(agents(count, availability=0.5)) for count in (4, 6))
    assert [plan.absent for plan in few] == [tuple(i for i in plan.absent if i < 4) for plan in more]
    ordered = agents(6, availability=0.5)[::-1]
    other = scheduled(ordered)
    assert [{5 - i for i in plan.absent} for plan in other] == [set(plan.absent) for plan in more]
    assert [plan.absent for plan in scheduled(agents(4, availability=0.5), seed=2)] != [plan.absent for plan in few]


def test_who_was_away_when_something_was_delivered_is_returning():
    learners = [replace(AGENT, name=name) for name in "abc"]
    learners[1] = replace(learners[1], availability=0.6)
    plans = scheduled(learners, rounds=50)
    for before, plan in zip(plans, plans[1:], strict=False):
        assert plan.returning == ((1,) if 1 in before.absent and 1 not in plan.absent else ())
    assert all(plan.returning == () for plan in scheduled(learners, rounds=50, central=False))


def test_a_round_that_delivers_nothing_leaves_nobody_behind():
    # Round 2 has nobody; in round 3 everybody is late; so in round 4 both hold what round 1 delivered.
    learners = agents(2, leaves=1) + [replace(agent, name=f"b{i}", joins=3) for i, agent in enumerate(agents(2))]
    plans = scheduled(learners, rounds=4, deadline=1.0, traffic=[Traffic(0, 0)] * 4)
    assert [taking_part(plan, 4) for plan in plans] == [(0, 1), (), (2, 3), (2, 3)]
    assert [plan.returning for plan in plans] == [(), (), (2, 3), ()]
    alone = [replace(AGENT, name="a"), replace(AGENT, name="b", availability=0.5)]
    empty = scheduled([replace(agent, availability=0.4) for agent in alone], rounds=100)
    fresh = None
    for plan in empty:
        there = taking_part(plan, 2)
        assert plan.returning == (() if fresh is None else tuple(i for i in there if i not in fresh))
        fresh = set(there) or fresh
    assert any(plan.taking_part == () for plan in empty)


# --- the clock

SLOW = replace(AGENT, name="slow", work=4e9, speed=2.0, bandwidth=8.0, latency=0.25)  # 2 s, and 1 MB/s
FAST = replace(AGENT, name="fast", work=4e9, speed=8.0, bandwidth=80.0)  # 0.5 s, and 10 MB/s


def test_cost_by_hand():
    assert cost(SLOW, 3_000_000, 1_000_000).compute == pytest.approx(2.0)
    assert cost(SLOW, 3_000_000, 1_000_000).transfer == pytest.approx(4.0 + 2 * 0.25)
    assert cost(SLOW, 0, 500_000).transfer == pytest.approx(0.5 + 0.25)
    assert cost(AGENT, 10**9, 10**9) == cost(replace(AGENT, work=1e18), 1, 1)  # nothing said: no time at all


def test_a_round_lasts_as_long_as_its_slowest_and_no_longer_than_the_deadline():
    traffic = [Traffic(1_000_000, 1_000_000)] * 2  # slow: 2 + 2 + 0.5 = 4.5 s; fast: 0.5 + 0.2 = 0.7 s
    assert [plan.ends for plan in scheduled([SLOW, FAST], 3, traffic)] == pytest.approx([4.5, 9.0, 13.5])
    plans = scheduled([SLOW, FAST], 3, traffic, deadline=3.0)
    assert [plan.ends for plan in plans] == pytest.approx([3.0, 6.0, 9.0])
    assert {plan.late for plan in plans} == {(0,)}
    plans = scheduled([SLOW, FAST], 3, traffic, deadline=4.6)
    assert [plan.ends for plan in plans] == pytest.approx([4.5, 9.0, 13.5]) and {plan.late for plan in plans} == {()}
    assert [plan.ends for plan in scheduled([replace(FAST, leaves=1)], 3, traffic[:1])] == pytest.approx([0.7] * 3)


def test_peers_pay_for_each_link_that_they_have_in_a_round():
    traffic = [Traffic(1_000_000, 0), Traffic(2_000_000, 0), Traffic(4_000_000, 0)]
    learners = [replace(AGENT, name=name, bandwidth=8.0) for name in "abc"]
    line = {"edges": {"links": [("a", "b"), ("b", "c")]}}
    # b sends 2 MB to each of two and gets 1 and 4: 9 s. Without c: 2 + 1.
    assert [p.ends for p in scheduled(learners, 2, traffic, line, False)] == pytest.approx([9.0, 18.0])
    learners[2] = replace(learners[2], joins=2)
    assert [p.ends for p in scheduled(learners, 2, traffic, line, False)] == pytest.approx([3.0, 12.0])


def test_who_returns_also_waits_for_what_was_missed():
    traffic = [Traffic(0, 1_000_000)] * 2
    learners = [replace(AGENT, name="a", bandwidth=8.0), replace(AGENT, name="b", bandwidth=8.0, joins=2)]
    assert [plan.ends for plan in scheduled(learners, 3, traffic)] == pytest.approx([1.0, 3.0, 4.0])


def test_what_is_late_is_dropped_or_counts_in_the_next_round():
    traffic = [Traffic(1_000_000, 1_000_000)] * 2
    learners = [replace(SLOW, leaves=2), FAST]
    dropped, kept = (scheduled(learners, 4, traffic, deadline=1.0, late=late) for late in ("drop", "next"))
    assert [plan.late for plan in dropped] == [plan.late for plan in kept] == [(0,), (0,), (), ()]
    assert [plan.stale for plan in dropped] == [(), (), (), ()]
    assert [plan.stale for plan in kept] == [(), (0,), (0,), ()]


# --- runs

SLOWPOKE = """
name: late
seed: 2
rounds: 3
data: {{dataset: digits, partition: {{by: iid}}, take: {{train: 120, test: 40}}}}
agents:
  - {{name: slow, model: linear, speed: 0.000001, leaves: 1}}
  - {{name: fast, count: 3, model: linear, leaves: {leaves}}}
pattern: {pattern}
participation: {{deadline: 0.001, late: {late}}}
measure: {{control: none}}
recipe:
  round:
    - retrieve: {{memory: semantic, knowledge: class_logits}}
    - train: {{epochs: 1}}
    - extract: {{knowledge: class_logits, from: training}}
    - aggregate: {{by: mean, weight: samples}}
    - store: {{memory: semantic}}
"""
PATTERNS = {
    "star": "distributed",
    "tree": "{hierarchical: {tiers: [{name: edge, count: 2}, {name: top}]}}",
    "peers": "{decentralized: {graph: complete}}",
}


def memories(folder, place, number):
    """What an agent holds in semantic memory after a round, by key."""
    found = {}
    for path in folder.state(number, place).parent.glob(f"{place}.semantic.*.arrow"):
        found[path.name.split(".")[2]] = packet.read(path)
    return found


def keep_everything(monkeypatch):
    monkeypatch.setattr(RunFolder, "forget", lambda *anything, **more: None)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_late_knowledge_is_merged_in_the_next_round(conduct, monkeypatch, pattern):
    keep_everything(monkeypatch)
    said = {late: SLOWPOKE.format(pattern=PATTERNS[pattern], late=late, leaves="null") for late in ("drop", "next")}
    folders = {late: conduct(text) for late, text in said.items()}
    plan = Plan.read(folders["next"].plan)
    assert [plan.round(n).late for n in (1, 2, 3)] == [(0,), (), ()]
    assert [plan.round(n).stale for n in (1, 2, 3)] == [(), (0,), ()]
    held = {
        late: [memories(folder, 1, number)["class_logits"] for number in (1, 2, 3)] for late, folder in folders.items()
    }
    assert torch.equal(held["drop"][0].values, held["next"][0].values)
    assert held["drop"][0].samples == 90 and [k.samples for k in held["drop"]] == [90, 90, 90]
    assert [k.samples for k in held["next"]] == [90, 120, 90]
    # by hand: the mean, weighted by samples, of three packets of round 2 and the slow one's of round 1
    given = [
        packet.read(folders["next"].packet(number, 0, str(place))) for number, place in ((1, 0), (2, 1), (2, 2), (2, 3))
    ]
    assert all(isinstance(one, Rows) for one in given)
    for row, label in enumerate(held["next"][1].ids.tolist()):
        parts = [(one.values[at], one.weights[at]) for one in given for at in range(one.items) if one.ids[at] == label]
        mean = sum(value.double() * weight for value, weight in parts) / sum(weight for _, weight in parts)
        torch.testing.assert_close(held["next"][1].values[row].double(), mean, atol=1e-5, rtol=0)
    for folder in folders.values():
        rows = pq.read_table(folder.table("ledger")).to_pylist()
        assert {row["round"] for row in rows if row["status"] == "late"} == {1}
        assert {row["from"] for row in rows if row["status"] == "late"} == {"slow"}
        assert all(row["from"] != "slow" for row in rows if row["status"] == "delivered" and row["round"] > 1)
        clock = {
            (row["round"], row["agent"]): row["status"] for row in pq.read_table(folder.table("clock")).to_pylist()
        }
        assert [clock[number, "slow"] for number in (1, 2, 3)] == ["late", "absent", "absent"]


@pytest.mark.parametrize("pattern", ["star", "tree"])
def test_late_knowledge_is_merged_even_where_nobody_takes_part(conduct, monkeypatch, pattern):
    keep_everything(monkeypatch)
    folder = conduct(SLOWPOKE.format(pattern=PATTERNS[pattern], late="next", leaves=1))
    plan = Plan.read(folder.plan)
    top = len(plan.agents) - 1
    assert plan.taking_part(2) == () and plan.aggregating(2, 0) == (4,) and plan.aggregating(3, 0) == ()
    slow = packet.read(folder.packet(1, 0, "0"))
    delivered = memories(folder, top, 2)["delivered%200"]
    assert torch.equal(delivered.ids, slow.ids)
    torch.testing.assert_close(delivered.values, slow.values)


COMING = """
name: coming
seed: 6
rounds: 6
data: {{dataset: digits, partition: {{by: iid}}, take: {{train: 120, test: 40}}}}
agents: [{{name: a, count: 2, model: linear}}, {{name: b, count: 2, model: linear{more}}}]
pattern: {pattern}
measure: {{control: none}}
recipe: {recipe}
"""


@pytest.mark.parametrize("recipe", ["fedavg", "fd"])
@pytest.mark.parametrize("pattern", ["star", "tree"])
def test_who_returns_is_brought_up_to_date(conduct, monkeypatch, recipe, pattern):
    keep_everything(monkeypatch)
    folder = conduct(COMING.format(recipe=recipe, pattern=PATTERNS[pattern], more=", joins: 4"))
    plan = Plan.read(folder.plan)
    assert [plan.round(number).returning for number in (3, 4, 5)] == [(), (2, 3), ()]
    rows = [row for row in pq.read_table(folder.table("ledger")).to_pylist() if row["round"] == 4]
    down = Counter((row["from"], row["to"]) for row in rows if row["to"].startswith("b"))
    above = "server" if pattern == "star" else "edge-2"
    assert down == {(above, "b-1"): 2, (above, "b-2"): 2}  # what was missed, and what this round gave
    if pattern == "tree":  # the edge was away as well: it gets it from the top, once for both
        assert Counter(row["from"] for row in rows if row["to"] == "edge-2") == {"top": 2, "b-1": 1, "b-2": 1}
    if recipe == "fedavg":
        # Away for three rounds, b-1 trains from what the others came to, not from where it began.
        sent = {place: packet.read(folder.packet(4, 0, str(place))) for place in (0, 2)}
        (mine,), (other,) = (tuple(one.tensors.values()) for one in (sent[2], sent[0]))
        began = tuple(packet.read(folder.packet(1, 0, "0")).tensors.values())[0]
        apart = sum(float((mine[key] - other[key]).square().sum()) for key in mine)
        assert apart < 0.5 * sum(float((mine[key] - began[key]).square().sum()) for key in mine)
    else:
        held = {key: memories(folder, 2, 4)[key] for key in ("class_logits",)}
        assert held["class_logits"].samples == 3  # of four, without itself


def test_peers_are_not_brought_up_to_date(conduct):
    folder = conduct(COMING.format(recipe="fedavg", pattern="decentralized", more=", joins: 4"))
    assert all(Plan.read(folder.plan).round(number).returning == () for number in range(1, 7))


def test_the_clock_table_is_what_was_really_sent(conduct):
    text = COMING.format(recipe="fd", pattern="distributed", more=", speed: 0.001, bandwidth: 0.5, latency: 0.1")
    folder = conduct(text)
    plan = Plan.read(folder.plan)
    ledger = pq.read_table(folder.table("ledger")).to_pylist()
    clock = pq.read_table(folder.table("clock")).to_pylist()
    assert len(clock) == 6 * 4 and {row["status"] for row in clock} == {"took part"}
    for row in clock:
        mine = [r["bytes"] for r in ledger if r["round"] == row["round"] and row["agent"] in (r["from"], r["to"])]
        assert len(mine) == 2
        if row["agent"].startswith("a"):
            assert row["compute_seconds"] == row["transfer_seconds"] == 0
        else:
            assert row["transfer_seconds"] == pytest.approx(sum(mine) * 8 / 0.5e6 + 2 * 0.1)
            agent = next(agent for agent in plan.agents if agent.name == row["agent"])
            assert row["compute_seconds"] == pytest.approx(agent.work / 1e6)
            assert row["round_end"] == pytest.approx(plan.round(row["round"]).ends)
    length = plan.round(1).ends
    slowest = max(row["compute_seconds"] + row["transfer_seconds"] for row in clock if row["round"] == 1)
    assert length == pytest.approx(slowest, rel=0.03)
