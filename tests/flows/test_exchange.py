"""Who is given what along the links of a pattern, and what the ledger says of it."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from codistill.flows.exchange import Post
from codistill.flows.folder import RunFolder
from codistill.flows.plan import Plan, RoundPlan
from codistill.tasks import packet
from safetensors.torch import load_file

TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: top}]}}"
TWICE = """
  round:
    - retrieve: {memory: semantic, knowledge: prototypes}
    - train: {losses: [prototypes]}
    - extract: {knowledge: prototypes, from: training}
    - aggregate: {by: mean, weight: samples, exclude_self: true}
    - store: {memory: semantic}
    - extract: {knowledge: parameters}
    - aggregate: {by: mean, weight: samples}
    - absorb: {by: replace}"""


def spec(recipe, pattern="distributed", agents="{name: a, count: 4, model: mlp}", rounds=3, more=""):
    return f"""
name: exchange
seed: 2
rounds: {rounds}
data: {{dataset: digits, partition: {{by: iid}}, take: {{train: 160, test: 60}}, public: {{share: 0.2}}}}
agents: [{agents}]
pattern: {pattern}
measure: {{control: none}}
recipe: {recipe}
{more}
"""


def ledger(folder, **wanted):
    every = pq.read_table(folder.table("ledger")).to_pylist()
    return [row for row in every if all(row[key.strip("_")] == value for key, value in wanted.items())]


def links(rows):
    return Counter((row["from"], row["to"]) for row in rows)


def parents(folder):
    plan = Plan.read(folder.plan)
    return [(agent.name, plan.agents[agent.parent].name) for agent in plan.agents if agent.parent is not None]


@pytest.fixture
def everything_stays(monkeypatch):
    monkeypatch.setattr(RunFolder, "forget", lambda *anything, **more: None)


@pytest.mark.parametrize("pattern", ["distributed", TREE], ids=["star", "tree"])
def test_each_link_carries_one_packet_up_and_one_down(conduct, pattern):
    folder = conduct(spec("fedavg", pattern))
    up = parents(folder)
    for number in (1, 2, 3):
        assert links(ledger(folder, round=number)) == Counter(up + [(above, below) for below, above in up])


@pytest.mark.parametrize("pattern", ["distributed", TREE, "decentralized"], ids=["star", "tree", "peers"])
def test_two_exchanges_in_a_round(conduct, pattern):
    folder = conduct(spec(TWICE, pattern))
    for number in (1, 2, 3):
        first, second = ledger(folder, round=number, exchange=0), ledger(folder, round=number, exchange=1)
        assert {row["form"] for row in first} == {"prototypes"} and {row["form"] for row in second} == {"parameters"}
        assert links(first) == links(second) and set(links(first).values()) == {1}
    models = [load_file(folder.model(f"a-{n}")) for n in (1, 2, 3, 4)]
    alike = [all(torch.equal(models[0][key], other[key]) for key in other) for other in models]
    assert alike == ([True] * 4 if pattern != "decentralized" else [True, False, False, False])


BACKWARDS = """
  round:
    - train: {}
    - extract: {knowledge: parameters}
    - aggregate: {by: mean, weight: samples}
    - absorb: {by: replace}
    - extract: {knowledge: prototypes, from: private}
    - aggregate: {by: mean, weight: samples, exclude_self: true}
    - store: {memory: semantic}"""


def test_what_one_exchange_brought_is_not_taken_for_what_the_next_did_not(conduct, everything_stays):
    # The only agent in time is given the mean of the models, which is its own, and no prototypes but its own.
    agents = "{name: a, model: mlp}, {name: b, count: 2, model: mlp, speed: 0.000001}"
    folder = conduct(spec(BACKWARDS, agents=agents), "participation.deadline=0.001")
    assert len(links(ledger(folder, round=1, exchange=0))) == 6
    assert links(ledger(folder, round=1, exchange=1)) == Counter(
        [("a", "server"), ("b-1", "server"), ("b-2", "server"), ("server", "b-1"), ("server", "b-2")]
    )
    stored = folder.state(1, 0).parent
    assert not list(stored.glob("0.semantic.*")) and list(stored.glob("1.semantic.*"))


def test_nobody_is_sent_models_of_others_architectures_alone(conduct):
    # Those of the other architecture are late, so the aggregator has no model that they could use.
    agents = "{name: a, count: 2, model: linear}, {name: b, count: 2, model: mlp, speed: 0.000001}"
    folder = conduct(spec("feddf", agents=agents), "participation.deadline=0.001", "recipe.aggregate.steps=1")
    assert links(ledger(folder, from_="server")) == {("server", "a-1"): 3, ("server", "a-2"): 3}


def test_nobody_is_given_back_its_own_without_a_row_in_the_ledger(conduct, everything_stays):
    agents = "{name: a, model: linear}, {name: b, count: 2, model: linear, speed: 0.000001}"
    folder = conduct(spec("fd", agents=agents), "participation.deadline=0.001")
    down = links(ledger(folder, from_="server"))
    assert down == {("server", "b-1"): 3, ("server", "b-2"): 3}
    stored = folder.state(3, 0).parent
    assert [path.name for path in stored.glob("0.*")] == ["0.safetensors"]  # a has nothing to remember
    assert (stored / "1.semantic.class_logits.arrow").exists()


def test_only_ones_own_architecture_comes_down(conduct):
    folder = conduct(spec("fedavg", agents="{name: a, count: 2, model: mlp}, {name: b, count: 2, model: linear}"))
    rows = ledger(folder, round=2)
    sizes = {(row["from"], row["to"]): row["bytes"] for row in rows}
    for name in ("a-1", "a-2", "b-1", "b-2"):
        assert abs(sizes["server", name] - sizes[name, "server"]) < 50
    assert sizes["a-1", "server"] > 2 * sizes["b-1", "server"]


@pytest.mark.parametrize("pattern", ["distributed", TREE], ids=["star", "tree"])
def test_catching_up_with_two_exchanges(conduct, pattern):
    folder = conduct(spec(TWICE, pattern, "{name: a, count: 3, model: mlp}, {name: b, model: mlp, joins: 3}"))
    to = ledger(folder, round=3, to="b")
    assert Counter(row["exchange"] for row in to) == {0: 2, 1: 2}
    assert all(row["status"] == "delivered" for row in to)


def test_the_bytes_of_the_ledger_are_the_messages_that_lie_there(conduct, everything_stays):
    for pattern in ("distributed", TREE, "decentralized"):
        folder = conduct(spec("fd", pattern))
        plan = Plan.read(folder.plan)
        place = {agent.name: index for index, agent in enumerate(plan.agents)}
        for row in ledger(folder):
            one, other = place[row["from"]], place[row["to"]]
            up = plan.agents[other].tier > plan.agents[one].tier or pattern == "decentralized"
            names = [str(one)] if up else [f"{one}-to-{other}", f"{one}-to-all"]
            paths = [folder.packet(row["round"], 0, name) for name in names]
            path = next(path for path in paths if path.exists())
            assert path.stat().st_size == row["bytes"]
            assert packet.read(path).items == row["items"]


def test_peers_hear_late_what_they_were_sent_and_no_more(launched):
    """Links change: a late packet reaches those it was sent to in the round before, not this round's neighbours."""
    plan = launched(spec("fedavg", "decentralized", rounds=2)).plan
    assert plan.learners == 4
    rounds = (
        RoundPlan(1, late=(0,), edges=((0, 1), (1, 2))),
        RoundPlan(2, taking_part=(1, 2, 3), stale=(0,), edges=((0, 2), (1, 3))),
    )
    folder = launched(spec("fedavg", "decentralized", rounds=2)).folder
    post = Post(folder, replace(plan, schedule=rounds))
    asked = []
    post._heard = lambda number, exchange, senders, before, *more: asked.append((list(senders), list(before))) or []
    memory = SimpleNamespace(recall=lambda *anything: None, items=lambda *anything: {})
    for place in (1, 2, 3):
        assert post.received(SimpleNamespace(memory=memory, name="x"), place, 2, 0, None) is None
    assert asked == [([3], [0, 2]), ([], [1]), ([1], [])]
