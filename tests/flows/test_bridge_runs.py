"""Whole runs on bridge samples in which somebody comes later."""

import pyarrow.parquet as pq
import pytest
from codistill.flows.plan import Plan
from codistill.tasks.stores import Store

SPEC = """
name: later
seed: 3
rounds: 3
data: {{dataset: digits, partition: {{by: dirichlet, alpha: 0.5, min_size: 10}}, take: {{train: 300, test: 100}},
       public: {{share: 0.2}}}}
agents: [{{name: m, count: 3, model: mlp}}, {{name: late, model: mlp, joins: 2}}]
pattern: {{hierarchical: {{forward: own, tiers: [{{name: edge, count: 2, model: mlp}}, {{name: cloud, model: mlp}}]}}}}
measure: {{control: none}}
recipe: {{use: fedagg, with: {{extract.keys: {{principal: {{width: 12}}}}, extract.keys_when: {when}}}}}
"""


@pytest.mark.parametrize(("when", "known"), [("first", True), ("{until: 1}", False)])
def test_who_comes_later_is_known_up_to_the_top_where_each_tells_its_codes_first(conduct, when, known):
    folder = conduct(SPEC.format(when=when))
    plan = Plan.read(folder.plan)
    place = [agent.name for agent in plan.agents].index("cloud")
    held = Store.open(folder.state(plan.rounds, place).with_name(f"{place}.store.bridge.json"))
    samples = {agent.name: agent.samples for agent in plan.agents}
    assert held.count("late") == (samples["late"] if known else 0) and held.count("m-1") == samples["m-1"]
    refused = {row["agent"] for row in pq.read_table(folder.table("events")).to_pylist() if row["what"] == "refused"}
    assert bool(refused) != known
